"""The page of feedback that a student gets: one HTML file that loads nothing else."""

from __future__ import annotations

import re
from html import escape

from gen_affect_lib.course.checks import Exercise
from gen_affect_lib.course.checks.wording import sentence
from gen_affect_lib.course.grading.grades import NOT_REACHED, Grade, plain_number

_STYLE = """
body { max-width: 48rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; color: #1b1b1b;
  background: #fff; }
table { border-collapse: collapse; } caption { text-align: left; font-weight: bold; padding: .3rem 0; }
th, td { border: 1px solid #767676; padding: .3rem .7rem; text-align: left; }
pre { overflow-x: auto; padding: .7rem; border: 1px solid #767676; background: #f6f6f6; }
code, pre { font: .9rem/1.4 monospace; } h2 { margin-top: 2rem; }
"""
_SIGNS = {"right": "✓ right", "wrong": "✗ not yet right", "unfinished": "○ unfinished", NOT_REACHED: "– not reached"}
_MESSAGES = {  # for the states in which no check has a message
    "right": "Your answer passes the check.",
    NOT_REACHED: "The run of the notebook ended before this exercise: see the problems above.",
}


def page(grade: Grade) -> str:
    """The page of one submission, as HTML."""
    title = f"Feedback on {escape(grade.submission)}"
    parts = [f"<h1>{title}</h1>"]
    if grade.exercises:
        parts.append(
            f"<p><strong>{plain_number(grade.points)} of {grade.of} points</strong> ({grade.percent} %), notebook "
            f"{escape(grade.notebook)}. An exercise gives its points if its answer is right; of several answers the "
            "best one counts.</p>"
        )
        parts += [f"<p>{_text(sentence(words))}</p>" for words in _about_the_points(grade)]
        parts.append(_table(grade))
    problems = [problem for problem in (grade.broken, *grade.outcome.problems) if problem]
    if problems:
        parts.append("<h2>Problems with the whole notebook</h2>")
        parts += [f"<p>{_text(sentence(problem))}</p>" for problem in problems]
        if grade.broken:
            parts.append(
                "<p>Nothing could be run, so there are no points. Please hand in the .ipynb file of the notebook.</p>"
            )
    if grade.outcome.errors:
        parts.append("<h2>Cells that stopped with an error</h2>")
        parts.append("<p>Cells have the numbers that they get when you restart the kernel and run all cells.</p>\n<ul>")
        for error in grade.outcome.errors:
            line = f", in the line <code>{escape(error['line'])}</code>" if error["line"] else ""
            parts.append(f"<li>Cell [{error['cell']}]: {_text(error['error'])}{line}</li>")
        parts.append("</ul>")
    for exercise in grade.exercises:
        parts += _exercise(grade, exercise)
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _about_the_points(grade: Grade) -> list[str]:
    """What has changed the points of the whole submission."""
    words = []
    if days := grade.rules.days_late(grade.handed_in):
        lost = 100 * (1 - grade.rules.kept(grade.handed_in))
        words.append(f"it was handed in late, {days} day{'s' * (days > 1)}: {lost:g} % of its points are lost")
    if grade.attempts > 1:
        words.append(f"it was handed in {grade.attempts} times, and this attempt counts")
    if whole := grade.by_hand():
        words.append(f"{plain_number(whole.points)} points were given by hand: {whole.comment}".rstrip(": "))
    return words


def _exercise(grade: Grade, exercise: Exercise) -> list[str]:
    """The section on one exercise: verdict, hint and the student's answer."""
    state = grade.state(exercise)
    verdict = grade.outcome.verdicts.get(exercise.name, {"message": "", "code": ""})
    message = _text(sentence(_MESSAGES.get(state) or verdict["message"]))
    parts = [f"<h2>Exercise {exercise.number}: {escape(exercise.title)}</h2>"]
    parts.append(f"<p><strong>{_SIGNS[state]}.</strong> {message}</p>")
    if by_hand := grade.by_hand(exercise.number):
        words = f"{plain_number(by_hand.points)} points were given by hand: {by_hand.comment}".rstrip(": ")
        parts.append(f"<p>{_text(sentence(words))}</p>")
    if state in ("wrong", "unfinished"):
        parts.append(f"<p>A hint: {_text(exercise.hints[0])}</p>")
    if verdict["code"]:
        parts.append(f"<h3>Your answer to exercise {exercise.number}</h3>\n{_code(verdict['code'])}")
    return parts


def _table(grade: Grade) -> str:
    rows = []
    for exercise in grade.exercises:
        state = grade.state(exercise)
        points = plain_number(grade.points_of(exercise))
        rows.append(
            f'<tr><th scope="row">{exercise.number} {escape(exercise.title)}</th><td>{_SIGNS[state]}</td>'
            f"<td>{points} of {exercise.points}</td></tr>"
        )
    return (
        '<table>\n<caption>Points</caption>\n<thead><tr><th scope="col">Exercise</th><th scope="col">Result</th>'
        '<th scope="col">Points</th></tr></thead>\n<tbody>\n' + "\n".join(rows) + "\n</tbody>\n</table>"
    )


def _code(text: str) -> str:
    """Code in a box that can be scrolled with the keyboard, too."""
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def _text(text: str) -> str:
    """Text as HTML; parts in backticks become code."""
    return re.sub(r"`([^`\n]+)`", r"<code>\1</code>", escape(text))
