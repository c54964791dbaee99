"""The library's docstrings are text with `code` in it; Sphinx expects reStructuredText."""

import re

SECTION = re.compile(r"^(Args|Returns|Raises|Attributes|Yields):$")
CODE = re.compile(r"(`[^`\n]+`)")


def to_rst(lines: list[str]) -> None:
    """Change the lines of a docstring in place: `code` becomes ``code``, all else is plain text.

    Indented lines outside of the sections keep their line breaks, as formulas and small tables need.
    """
    result, in_section, flat = [], False, False
    for line in lines:
        text = line.strip()
        indented = line.startswith("    ")
        if SECTION.match(text):
            in_section, flat = True, text in ("Returns:", "Raises:", "Yields:")
        elif text and not indented:
            in_section = False
        if not text or SECTION.match(text):
            result.append(line)
            continue
        if indented and not in_section:
            if result and result[-1] and not result[-1].startswith("| "):
                result.append("")
            result.append("| " + escaped(text))
            continue
        if result and result[-1].startswith("| "):
            result.append("")
        indentation = "    " if in_section and flat else line[: len(line) - len(line.lstrip())]
        result.append(indentation + escaped(text))
    lines[:] = result


def escaped(text: str) -> str:
    """One line: the marks of reStructuredText are escaped outside of `code`."""
    parts = CODE.split(text)
    plain = lambda part: re.sub(r"([\\*|_`])", r"\\\1", part)  # noqa: E731
    bullet = parts[0].startswith(("- ", "* "))
    parts[0] = "- " + plain(parts[0][2:]) if bullet else plain(parts[0])
    result = ""
    for n, part in enumerate(parts):
        if n % 2:
            result += f"`{part}`"
        else:  # a mark of code may not touch a word, so an empty escape parts them
            result += (r"\ " if result and part[:1].isalnum() else "") + (part if n == 0 else plain(part))
    return result
