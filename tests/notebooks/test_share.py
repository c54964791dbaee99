"""In each notebook the student writes at least a third of the lines of what it builds by hand."""

import ast
import io
import re
import tokenize

import nbformat
import pytest

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks import exercises
from gen_affect_lib.paths import NOTEBOOKS

LEAST = 1 / 3
ROW = re.compile(r"(?m)^\| .* \| `gen_affect_lib[\w.]*\.(\w+)`(?: \(here `(\w+)`\))?.* \| \[(\d\d),")
SILENT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def taught(number: str) -> set[str]:
    """The names that the map gives to what a notebook builds."""
    rows = ROW.findall((NOTEBOOKS / "README.md").read_text(encoding="utf-8"))
    return {here or name for name, here, where in rows if where == number}


def code_lines(source: str) -> set[int]:
    """The numbers of the lines with code: no comments, no docstrings, no empty lines."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {token.start[0] for token in tokens if token.type not in SILENT}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def solution_lines(source: str) -> set[int]:
    """The numbers of the lines that the students' edition leaves out."""
    found, inside = set(), False
    for number, line in enumerate(source.splitlines(), 1):
        if "### BEGIN SOLUTION" in line:
            inside = True
        elif "### END SOLUTION" in line:
            inside = False
        elif inside:
            found.add(number)
    return found


def share(cells, names: set[str]) -> tuple[int, int]:
    """Lines that the student writes, and all lines, of the definitions with these names."""
    of_student = of_all = 0
    for cell in cells:
        source = re.sub(r"(?m)^%.*$", "", cell.source)
        if cell.cell_type != "code" or not any(name in source for name in names):
            continue
        lines, solution = code_lines(source), solution_lines(source)
        for node in ast.parse(source).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in names:
                own = lines & set(range(node.lineno, node.end_lineno + 1))
                of_student, of_all = of_student + len(own & solution), of_all + len(own)
    return of_student, of_all


@pytest.mark.parametrize("taught_in", [one for one in notebooks() if exercises(one.stem)], ids=lambda one: one.stem)
def test_the_student_writes_a_third(taught_in):
    names = taught(taught_in.stem[:2]) | {one.name for one in exercises(taught_in.stem) if one.is_code}
    of_student, of_all = share(nbformat.read(taught_in, 4).cells, names)
    assert of_student >= LEAST * of_all > 0, f"{of_student} of {of_all} lines"


def test_what_is_given_counts():
    cell = nbformat.v4.new_code_cell(
        'def f(x):\n    """Twice."""\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION\n\n\ndef g(x):\n'
        "    # three times\n    y = 3 * x\n    return y\n\n\ndef other(x):\n    return x\n"
    )
    assert share([cell], {"f", "g"}) == (1, 5)
    assert share([cell], {"g"}) == (0, 3)
