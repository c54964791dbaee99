"""Which names a cell defines, and which exercises it checks."""

import pytest

from gen_affect_lib.course.grading.cells import checked, defined


@pytest.mark.parametrize(
    "source, names",
    [
        ("def f(): pass", {"f"}),
        ("class A:\n    b = 1", {"A"}),
        ("@decorated\ndef f(): g = 1", {"f"}),
        ("f = g = 1", {"f", "g"}),
        ("A.forward = f", {"A"}),
        ("a, (b, *c) = x", {"a", "b", "c"}),
        ("from x import y as z, v\nimport p.q", {"z", "v", "p"}),
        ("if True:\n    def f(): pass\nelse:\n    f = None", {"f"}),
        ("for k in x: pass", {"k"}),
        ("table[0] = 1", {"table"}),
        ("f: int = 1", {"f"}),
        ("f = check_f(f)", set()),
        ("f = checks.check_f(f)", set()),
        ("f = [k for k in x]", {"f", "k"}),
        ("print(f)", set()),
        ("def f(:\n    pass\nb = 1", {"f", "b"}),
        ("f = check_f(f", set()),
        ("", set()),
    ],
)
def test_what_a_cell_defines(source, names):
    assert defined(source) == names


@pytest.mark.parametrize(
    "source, names",
    [
        ("f = check_f(f)", {"f"}),
        ("checks.check_f(g)", {"f"}),
        ("f = check_f(f); g = check_g(g)", {"f", "g"}),
        ("check_f.hint(1)", set()),
        ("from x import check_f", set()),
        ("f = check_f(f", {"f"}),
    ],
)
def test_what_a_cell_checks(source, names):
    assert checked(source) == names
