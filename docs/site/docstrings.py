"""The library's docstrings are text with `code` in it; Sphinx expects reStructuredText."""

import re

SECTION = re.compile(r"^(Args|Returns|Raises|Attributes|Yields):$")
CODE = re.compile(r"(`[^`\n]+`)")


def to_rst(lines: list[str]) -> None:
    """Change the lines of a docstring in place: `code` becomes ``code``, all else is plain text.

    Indented lines outside of the sections keep their line breaks, as formulas and small tables need.
    """
    result, in_section = [], False
    for line in lines:
        text = line.strip()
        indented = line.startswith("    ")
        if SECTION.match(text):
            in_section = True
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
        result.append(line[: len(line) - len(line.lstrip())] + escaped(text))
    lines[:] = result


def escaped(text: str) -> str:
    """One line: the marks of reStructuredText are escaped outside of `code`."""
    parts = CODE.split(text)
    plain = lambda part: re.sub(r"([\\*|_`])", r"\\\1", part)  # noqa: E731
    bullet = parts[0].startswith(("- ", "* "))
    parts[0] = "- " + plain(parts[0][2:]) if bullet else plain(parts[0])
    return "".join(f"`{part}`" if n % 2 else (part if n == 0 else plain(part)) for n, part in enumerate(parts))
