"""What a student gets back: one page, which needs nothing but itself."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gen_affect_lib.course.grading.grade import Grade

_STYLE = """
body { max-width: 48rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; color: #1b1b1b; background: #fff; }
table { border-collapse: collapse; } caption { text-align: left; font-weight: bold; padding: .3rem 0; }
th, td { border: 1px solid #767676; padding: .3rem .7rem; text-align: left; }
pre { overflow-x: auto; padding: .7rem; border: 1px solid #767676; background: #f6f6f6; }
code, pre { font: .9rem/1.4 monospace; } h2 { margin-top: 2rem; }
"""
_SIGNS = {"right": "✓ right", "wrong": "✗ not yet", "unfinished": "○ unfinished", "not reached": "– not reached"}
_SAID = {
    "right": "Your answer does what it should.",
    "not reached": "The notebook came to its end before this exercise. See what stopped it, below.",
}


def page(grade: Grade) -> str:
    """The page of one submission, as HTML."""
    parts = [f"<h1>Feedback on {escape(grade.submission)}</h1>"]
    if grade.exercises:
        parts.append(
            f"<p><strong>{grade.points} of {grade.of} points</strong> ({grade.percent} %), notebook {escape(grade.notebook)}. "
            "An exercise gives its points when its answer is right; of several answers the best counts.</p>"
        )
        parts.append(_table(grade))
    if grade.broken or grade.outcome.problems:
        parts.append("<h2>What went wrong with the whole notebook</h2>")
        parts += [
            f"<p>{_text(_sentence(problem))}</p>" for problem in (grade.broken, *grade.outcome.problems) if problem
        ]
        if grade.broken:
            parts.append(
                "<p>Nothing could be run, and so there are no points. Please hand in the notebook's own .ipynb file.</p>"
            )
    for exercise in grade.exercises:
        state = grade.state(exercise)
        verdict = grade.outcome.verdicts.get(exercise.name, {"message": "", "code": ""})
        parts.append(f"<h2>Exercise {exercise.number}: {escape(exercise.title)}</h2>")
        parts.append(
            f"<p><strong>{_SIGNS[state]}.</strong> {_text(_sentence(_SAID.get(state) or verdict['message']))}</p>"
        )
        if state in ("wrong", "unfinished"):
            parts.append(f"<p>A hint: {_text(exercise.hints[0])}</p>")
        if verdict["code"]:
            parts.append(f"<h3>Your answer to exercise {exercise.number}</h3>\n{_code(verdict['code'])}")
    if grade.outcome.errors:
        parts.append(
            "<h2>Cells that stopped with an error</h2>\n<p>The numbers are those that a run from top to bottom gives.</p>\n<ul>"
        )
        for error in grade.outcome.errors:
            line = f", in the line <code>{escape(error['line'])}</code>" if error["line"] else ""
            parts.append(f"<li>Cell [{error['cell']}]: {_text(error['error'])}{line}</li>")
        parts.append("</ul>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Feedback on {escape(grade.submission)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _table(grade: Grade) -> str:
    rows = []
    for exercise in grade.exercises:
        state = grade.state(exercise)
        points = exercise.points if state == "right" else 0
        rows.append(
            f'<tr><th scope="row">{exercise.number} {escape(exercise.title)}</th><td>{_SIGNS[state]}</td>'
            f"<td>{points} of {exercise.points}</td></tr>"
        )
    return (
        '<table>\n<caption>Points</caption>\n<thead><tr><th scope="col">Exercise</th><th scope="col">Result</th>'
        '<th scope="col">Points</th></tr></thead>\n<tbody>\n' + "\n".join(rows) + "\n</tbody>\n</table>"
    )


def _code(text: str) -> str:
    """Code in a box that can be scrolled by keyboard too."""
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def _text(text: str) -> str:
    """Words with `code` in backticks."""
    return re.sub(r"`([^`\n]+)`", r"<code>\1</code>", escape(text))


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!", "…", "`")) else text + "."
