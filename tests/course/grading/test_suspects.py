"""What only cheats write is named, and nothing that the course's own notebooks contain."""

import pytest

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.grading import submissions
from gen_affect_lib.course.grading.suspects import found


def in_cell(source):
    return found([{"number": 3, "source": source}])


@pytest.mark.parametrize(
    "source, words",
    [
        ("f = check_f.reference", "check_f.reference"),
        ("getattr(check_f, 'refer' + 'ence')", "getattr(check_f, …)"),
        ("exec(check_f.solution())", "check_f.solution"),
        ("import gc", "import gc"),
        ("from ctypes import CDLL", "import ctypes"),
        ("def f():\n    import zmq", "import zmq"),
        ("import sys\nsys._getframe()", "_getframe"),
        ("sys.modules['a']", "sys.modules"),
        ("f.__closure__[0].cell_contents", "__closure__"),
        ("import gen_affect_lib.flow as w\nw.sample = lambda: 1", "changes the kit's `w.sample`"),
        ("import gen_affect_lib as g\nopen(g.__file__, 'w')", "g.__file__"),
        ("from gen_affect_lib.course.grading import judge", "gen_affect_lib.course.grading"),
        ("class Any(float):\n    def __sub__(self, x): return 0", "compares as it likes"),
        ("open('/proc/1/cmdline')", "/proc/"),
        ("open('x_grades/grades.csv')", "grades.csv"),
        ("eval('1')", "eval"),
        ("%matplotlib inline\nimport socket", "import socket"),
    ],
)
def test_what_only_cheats_write_is_named_with_its_cell(source, words):
    (line,) = in_cell(source)
    assert line.startswith("cell [3]: ") and words in line


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nmodel.eval()\nf = check_f(f)",
        "check_f.hint(1)\ncheck_f.reveal()",
        "class Mode(str, Enum):\n    A = 'a'",
        "pipe.face_pack = other\nx.weight.data = y",
        "def f(:",
        "",
    ],
)
def test_honest_cells_are_not(source):
    assert in_cell(source) == []


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_the_kits_own_cells_are_not(path):
    cells = submissions.code_cells(submissions.read(path))
    assert found(cells, {cell["source"] for cell in cells}) == []
    others = {cell["source"] for cell in cells if "BEGIN SOLUTION" not in cell["source"]}
    assert found(cells, others) == [], "no solution contains it"
