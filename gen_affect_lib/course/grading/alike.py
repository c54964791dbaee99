"""Pairs of answers that are nearly identical, the kit's own text left out."""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Iterable, Sequence
from functools import cache

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.grading import submissions
from gen_affect_lib.course.grading.grades import Grade

SHORTEST = 40  # tokens: shorter answers are alike by chance
LEAST = 0.85  # share of the common pieces of two answers, of all their pieces
_PIECE = 6  # tokens


def pairs(grades: Sequence[Grade]) -> list[list[str]]:
    """Rows of a table: two submissions, the exercise, how alike they are in percent, and how many tokens long."""
    rows = [["first", "second", "exercise", "alike in percent", "tokens"]]
    by_exercise: dict[str, list[tuple[str, frozenset, int]]] = {}
    for grade in grades:
        for exercise in grade.exercises:
            code = grade.outcome.verdicts.get(exercise.name, {}).get("code", "")
            tokens = own_tokens(code, kit_lines(grade.notebook)) if exercise.is_code else []
            if len(tokens) >= SHORTEST:
                pieces = frozenset(tuple(tokens[k : k + _PIECE]) for k in range(len(tokens) - _PIECE + 1))
                by_exercise.setdefault(f"{exercise.number} {exercise.name}", []).append(
                    (grade.submission, pieces, len(tokens))
                )
    for name, answers in by_exercise.items():
        for k, (first, one, length) in enumerate(answers):
            for second, other, _ in answers[k + 1 :]:
                alike = len(one & other) / len(one | other)
                if alike >= LEAST:
                    rows.append([first, second, name, str(round(100 * alike)), str(length)])
    return rows


def own_tokens(code: str, kit: Iterable[str]) -> list[str]:
    """The tokens of what a student wrote: without the kit's lines, comments and layout; names by their order.

    With names by the order of their first appearance, an answer with other names is the same.
    """
    kit = set(kit)
    lines = [line for line in code.splitlines() if line.strip() not in kit]
    names: dict[str, str] = {}
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(line.strip() for line in lines)).readline):
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                found.append(names.setdefault(token.string, f"name{len(names)}"))
            elif token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING):
                found.append(token.string)
    except (tokenize.TokenError, SyntaxError):
        pass  # as far as it can be read
    return found


@cache
def kit_lines(notebook: str) -> frozenset[str]:
    """The lines of the course's own notebook, solutions included: whoever looks them up writes the same."""
    (path,) = notebooks(notebook)
    cells = submissions.code_cells(submissions.read(path))
    return frozenset(line.strip() for cell in cells for line in cell["source"].splitlines())
