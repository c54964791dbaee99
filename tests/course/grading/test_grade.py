"""Grading: right answers get their points whatever else is in the notebook, and a broken submission stops no other."""

import csv
import re
import socket
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.grading import grade as grading
from gen_affect_lib.course.grading import jail, judge, sandbox, submissions
from gen_affect_lib.course.grading.grade import grade_file, grade_folder
from gen_affect_lib.course.grading.grades import Grade
from gen_affect_lib.course.grading.submissions import Submission, page_name
from gen_affect_lib.course.release.student import student_edition
from gen_affect_lib.errors import UserError
from tests.course.handed_in import WRONG, answered, code, graded, solved, write

LIMITS = {"seconds": 120, "memory_gb": 4}
RIGHT = dict.fromkeys(
    ("looks_ratio", "unpatchify", "patchify_by_unfold", "sincos_1d", "sincos_2d", "PatchEmbed"), "right"
)


def graded_as(notebook, tmp_path, **limits) -> Grade:
    return grade_file(Submission("ada", write(notebook, tmp_path / "02_patches.ipynb")), **(LIMITS | limits))


def states(grade: Grade) -> dict:
    return {exercise.name: grade.state(exercise) for exercise in grade.exercises}


def message(grade: Grade, name: str) -> str:
    return grade.outcome.verdicts[name]["message"]


# --- what is right and what is not ---


def test_the_whole_notebook_gets_all_points(tmp_path):
    grade = graded_as(nbformat.read(notebooks("02")[0], as_version=4), tmp_path)
    assert states(grade) == RIGHT and (grade.points, grade.of, grade.percent) == (15, 15, 100)
    assert grade.problem == "" and grade.notebook == "02_patches" and grade.outcome.seconds > 0


def test_nothing_written_gets_none_and_is_called_unfinished(tmp_path):
    grade = graded_as(student_edition(solved()), tmp_path)
    assert set(states(grade).values()) == {"unfinished"} and grade.points == 0 and grade.problem == ""


def test_a_wrong_answer_gets_the_message_of_its_check_and_the_others_count(tmp_path):
    grade = graded_as(answered(**WRONG), tmp_path)
    assert states(grade) == RIGHT | {"looks_ratio": "wrong", "unpatchify": "wrong"} and grade.points == 12
    assert "The number of pairs is the square" in message(grade, "looks_ratio") and "only regrouped" in message(
        grade, "unpatchify"
    )
    assert grade.outcome.verdicts["unpatchify"]["code"] == WRONG["unpatchify"]


def test_later_cells_use_the_reference_as_in_the_notebook(tmp_path):
    notebook = answered(**WRONG)
    notebook.cells.append(code("assert unpatchify(torch.ones(1, 4, 4), 4, 4, 2).shape == (1, 1, 4, 4)"))
    assert graded_as(notebook, tmp_path).outcome.errors == []


def test_errors_of_other_cells_are_reported_with_number_and_line_and_cost_no_points(tmp_path):
    notebook = solved()
    notebook.cells.insert(0, code("x = 1\nx.missing()"))
    grade = graded_as(notebook, tmp_path)
    assert states(grade) == RIGHT
    assert grade.problem == "cell [1] stopped with AttributeError: 'int' object has no attribute 'missing'"
    (error,) = grade.outcome.errors
    assert error["cell"] == 1 and "AttributeError" in error["error"] and error["line"] == "x.missing()"


# --- cells copied, split, moved, edited and deleted ---


def test_of_a_copied_exercise_the_best_answer_counts(tmp_path):
    notebook = solved()
    for name, at in (("looks_ratio", 0), ("unpatchify", len(notebook.cells))):  # once before the right one, once after
        for cell in (
            nbformat.v4.new_code_cell(WRONG[name], metadata=graded(notebook, name).metadata),
            nbformat.from_dict(graded(notebook, f"check_{name}")),
        ):
            notebook.cells.insert(at, cell)
            at += 1
    notebook.cells.insert(0, code("import torch"))
    assert states(graded_as(notebook, tmp_path)) == RIGHT


def test_a_split_answer_counts(tmp_path):
    notebook = answered(looks_ratio="def looks_ratio():\n    return fourfold() ** 2")
    place = notebook.cells.index(graded(notebook, "looks_ratio"))
    notebook.cells.insert(place, code("def fourfold():\n    return 4"))
    assert states(graded_as(notebook, tmp_path)) == RIGHT


def test_without_its_check_an_answer_is_judged_where_it_is_complete(tmp_path):
    notebook = answered(looks_ratio="def looks_ratio(): return 4", unpatchify=WRONG["unpatchify"])
    notebook.cells = [
        cell
        for cell in notebook.cells
        if cell.metadata.get("nbgrader", {}).get("grade_id") not in ("check_looks_ratio", "check_unpatchify")
    ]
    notebook.cells.insert(notebook.cells.index(graded(notebook, "unpatchify")), code("def looks_ratio(): return 16"))
    notebook.cells.append(
        code("assert unpatchify(torch.ones(1, 4, 4), 4, 4, 2).shape == (1, 1, 4, 4)")
    )  # the kit's own
    grade = graded_as(notebook, tmp_path)
    assert states(grade) == RIGHT | {"unpatchify": "wrong"} and grade.outcome.errors == []


def test_an_answer_below_its_check_counts(tmp_path):
    notebook = answered(looks_ratio=WRONG["looks_ratio"])
    notebook.cells.append(code("def looks_ratio(): return 16"))
    assert states(graded_as(notebook, tmp_path)) == RIGHT


@pytest.mark.parametrize(
    "check",
    [
        "check_looks_ratio = lambda answer: answer\nlooks_ratio = check_looks_ratio(looks_ratio)",
        "print('✓ right')",
        "raise RuntimeError",
        "looks_ratio = lambda: 4",
        "def looks_ratio(:",
    ],
)
def test_an_edited_check_has_no_effect(tmp_path, check):
    notebook = answered(looks_ratio=WRONG["looks_ratio"])
    graded(notebook, "check_looks_ratio").source = check
    assert states(graded_as(notebook, tmp_path))["looks_ratio"] == "wrong"


def test_an_edited_check_does_no_harm_to_a_right_answer(tmp_path):
    notebook = solved()
    graded(
        notebook, "check_looks_ratio"
    ).source = "from gen_affect_lib.course.checks import notebook_02\nnotebook_02.check_looks_ratio(looks_ratio)"
    graded(notebook, "check_unpatchify").source = "1 / 0"
    assert states(graded_as(notebook, tmp_path)) == RIGHT


@pytest.mark.parametrize(
    "answer, words",
    [
        ("", "is its cell still there"),
        ("def unpatchify(:\n    pass", "its cell stopped: SyntaxError"),
        ("x = undefined\ndef unpatchify(): pass", "its cell stopped: NameError"),
        ("raise SystemExit\nunpatchify = 1", "its cell stopped: SystemExit"),
    ],
)
def test_an_answer_that_is_missing_is_unfinished_and_the_notebook_goes_on(tmp_path, answer, words):
    notebook = answered(unpatchify=answer)
    notebook.cells.append(code("unpatchify(torch.ones(1, 4, 4), 4, 4, 2)"))
    grade = graded_as(notebook, tmp_path)
    assert states(grade) == RIGHT | {"unpatchify": "unfinished"} and words in message(grade, "unpatchify")
    assert len(grade.outcome.errors) == bool(answer)


def test_the_kits_own_component_is_no_answer(tmp_path):
    grade = graded_as(answered(unpatchify="from gen_affect_lib.model.patches import unpatchify"), tmp_path)
    assert states(grade) == RIGHT | {"unpatchify": "unfinished"} and "the kit's own" in message(grade, "unpatchify")


# --- what a notebook may not do, and which points that costs ---


TAKES_NO_POINTS = {
    "a loop in an answer": (
        "def looks_ratio():\n    while True:\n        pass",
        "wrong",
        "did not finish within",
        "",
    ),
    "a loop that catches everything": (
        "def looks_ratio():\n    while True:\n        try:\n            while True:\n                pass\n"
        "        except Exception:\n            pass",
        "wrong",
        "did not finish within",
        "",
    ),
    "a loop in a cell": (
        "while True:\n    pass\nlooks_ratio = 1",
        "unfinished",
        "it did not finish within",
        "] did not finish within",
    ),
    "a number without end, deep in Python": (
        "looks_ratio = 7 ** 10**10",
        "unfinished",
        "did not finish within",
        "",
    ),
    "the end of the process": (
        "import os\nlooks_ratio = 1\nos._exit(0)",
        "unfinished",
        "it ended the whole run (exit code 0)",
        "] ended the whole run (exit code 0), and was left out",
    ),
    "its end within the check": (
        "def looks_ratio():\n    import os\n    os._exit(3)",
        "wrong",
        "ended the whole run (exit code 3) when it was called",
        "",
    ),
    "a signal": (
        "import os\nlooks_ratio = os.kill(os.getpid(), 9)",
        "unfinished",
        "SIGKILL",
        "] ended the whole run (SIGKILL)",
    ),
    "a fault of memory": (
        "import faulthandler\nlooks_ratio = faulthandler._sigsegv()",
        "unfinished",
        "SIGSEGV",
        "SIGSEGV",
    ),
    "an exit": ("import sys\nlooks_ratio = sys.exit(0)", "unfinished", "SystemExit", "] stopped with"),
    "an exit within the check": ("def looks_ratio():\n    raise SystemExit", "wrong", "SystemExit", ""),
    "more memory than there may be": (
        "looks_ratio = []\nwhile True:\n    looks_ratio.append(bytearray(b'x') * 10**7)",
        "unfinished",
        "took more than 2 GB of memory",
        "took more than 2 GB of memory",
    ),
    "too large a tensor within the check": (
        "def looks_ratio():\n    import torch\n    return torch.ones(10**10)",
        "wrong",
        "allocate memory",
        "",
    ),
    "output without end": (
        "import sys\nfor _ in range(10**5):\n    print('x' * 1000)\n    print('y' * 1000, file=sys.stderr)\n    "
        "sys.__stdout__.write('z')\ndef looks_ratio():\n    print('x' * 10**6)\n    return 4",
        "wrong",
        "The number of pairs is the square",
        "",
    ),
    "an answer that is endless to read": ("def looks_ratio():\n    return 'x' * 10**7", "wrong", "return a number", ""),
    "another program": (
        "import subprocess\nlooks_ratio = subprocess.run(['true'])",
        "unfinished",
        "no other program or process",
        "] stopped with",
    ),
    "a shell": ("!ls\nlooks_ratio = 1/0", "unfinished", "ZeroDivisionError", "] stopped with"),
    "another process": (
        "import os\nlooks_ratio = os.fork()",
        "unfinished",
        "no other program or process",
        "] stopped with",
    ),
    "a pool of processes": (
        "from multiprocessing import get_context\nlooks_ratio = get_context('spawn').Process().start()",
        "unfinished",
        "no other program or process",
        "] stopped with",
    ),
    "a question to nobody": ("looks_ratio = input('who are you?')", "unfinished", "EOFError", "] stopped with"),
    "a file that is too large": (
        "with open('big', 'wb') as file:\n    looks_ratio = file.truncate(2**40)",
        "unfinished",
        "OSError",
        "] stopped with",
    ),
}


@pytest.mark.skipif(sys.platform == "win32", reason="cells are timed by a signal")
@pytest.mark.parametrize("what", TAKES_NO_POINTS)
def test_what_breaks_a_notebook_costs_its_own_points_only(tmp_path, what):
    answer, state, words, problem = TAKES_NO_POINTS[what]
    grade = graded_as(answered(looks_ratio=answer), tmp_path, seconds=24, memory_gb=2)
    assert states(grade) == RIGHT | {"looks_ratio": state}, grade.outcome
    assert words in message(grade, "looks_ratio") and len(message(grade, "looks_ratio")) <= 10_000
    assert problem in grade.problem
    assert len(grading.page(grade)) < 50_000


def told(grade: Grade) -> list[str]:
    """What the cells of a notebook have raised: they can write to no file that a test can read."""
    return [error["error"].partition("RuntimeError: ")[2] for error in grade.outcome.errors]


def test_its_files_are_in_folders_of_its_own_that_are_deleted_afterwards(tmp_path):
    notebook = solved()
    notebook.cells.append(code("PROFILE = 'gpu'"))
    notebook.cells.append(
        code(
            "import os, tempfile\nfrom gen_affect_lib import paths\n"
            "folders = [os.getcwd(), paths.OUTPUTS, paths.CACHE, tempfile.gettempdir(), os.path.expanduser('~')]"
        )
    )
    notebook.cells += [
        code(f"open(str(folders[{k}]) + '/file', 'w')\nraise RuntimeError(folders[{k}])") for k in range(5)
    ]
    notebook.cells.append(code("raise RuntimeError(PROFILE)"))
    grade = graded_as(notebook, tmp_path)
    *folders, profile = told(grade)
    assert states(grade) == RIGHT and len(set(folders)) == 5
    assert profile == "smoke", "whatever size it was set to at home"
    assert all("gen_affect_grade_" in folder for folder in folders)
    assert not any((tmp_path / folder).exists() for folder in folders)


def test_random_numbers_are_the_same_wherever_a_cell_stands(tmp_path):
    draw = (
        "import random, numpy, torch\nraise RuntimeError((random.random(), numpy.random.rand(), torch.rand(1).item()))"
    )
    notebook = solved()
    notebook.cells += [code(draw), code("torch.rand(5)"), code(draw), code(draw + "\n# another")]
    first, second, other = told(graded_as(notebook, tmp_path))
    assert first == second != other


def test_nothing_reaches_the_network_not_even_this_machine(tmp_path):
    reached = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)

        def listen():
            try:
                reached.append(server.accept())
            except OSError:
                pass

        threading.Thread(target=listen, daemon=True).start()
        address = f"('127.0.0.1', {server.getsockname()[1]})"
        notebook = solved()
        notebook.cells += [
            code(f"import socket\nsocket.create_connection({address})"),
            code(f"socket.socket().connect({address})"),
            code(f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', {address})"),
            code("socket.gethostbyname('localhost')"),
            code("import urllib.request\nurllib.request.urlopen('http://localhost')"),
        ]
        grade = graded_as(notebook, tmp_path)
    assert len(grade.outcome.errors) == 5 and all(
        "the network is closed" in error["error"] for error in grade.outcome.errors
    )
    assert states(grade) == RIGHT and not reached


def test_loops_and_pauses_use_up_no_time_of_later_answers(tmp_path):
    notebook = solved()
    for number in range(4):
        notebook.cells.insert(1, code(f"n = {number}\nwhile True: n += 1"))
    notebook.cells.insert(1, code("import time\ntime.sleep(600)"))
    grade = graded_as(notebook, tmp_path, seconds=16)
    assert states(grade) == RIGHT and len(grade.outcome.errors) == 5
    assert all("did not finish within" in error["error"] for error in grade.outcome.errors)


def test_a_right_answer_after_one_that_never_ends_has_time_left(tmp_path):
    notebook = answered(looks_ratio="def looks_ratio():\n    while True: pass")
    notebook.cells.append(code("def looks_ratio(): return 16"))
    assert states(graded_as(notebook, tmp_path, seconds=24)) == RIGHT


def test_a_notebook_that_ends_too_often_is_not_run_again(tmp_path):
    notebook = solved()
    notebook.cells += [code(f"import os\nos._exit({k})") for k in range(judge.TRIES)]
    grade = graded_as(notebook, tmp_path)
    assert (
        states(grade) == RIGHT and f"it ended early {judge.TRIES} times" in grade.problem and not grade.outcome.finished
    )


def test_a_kit_that_does_not_start_is_reported(tmp_path, monkeypatch):
    (tmp_path / "kit" / "gen_affect_lib").mkdir(parents=True)
    (tmp_path / "kit" / "gen_affect_lib" / "__init__.py").write_text("raise RuntimeError('the kit is broken')")
    monkeypatch.setattr(sandbox, "_kit", lambda: tmp_path / "kit")
    tmp_path.chmod(0o755)
    grade = graded_as(solved(), tmp_path)
    assert "it did not start: " in grade.problem and set(states(grade).values()) == {"not reached"}


# --- what an honest notebook may need ---


def test_the_rest_of_a_cell_with_a_missing_package_or_magic_is_run(tmp_path):
    notebook = solved()
    notebook.cells[0].source = (
        "from google.colab import drive\ndrive.mount('/content')\n%load_ext lab_black\nimport no_such_package as nsp\n"
        + notebook.cells[0].source
    )
    grade = graded_as(notebook, tmp_path)
    assert states(grade) == RIGHT
    assert grade.problem.startswith("cell [1] stopped with ModuleNotFoundError: No module named 'google")
    assert "the package google is not installed where this was graded" in grade.problem


def test_after_another_error_the_rest_of_a_cell_is_not_run(tmp_path):
    grade = graded_as(answered(looks_ratio="x = undefined\ndef looks_ratio(): return 16"), tmp_path)
    assert states(grade) == RIGHT | {"looks_ratio": "unfinished"}


def test_settings_of_the_notebook_fail_no_right_answer(tmp_path):
    notebook = solved()
    notebook.cells.insert(1, code("torch.set_default_dtype(torch.float64)\ntorch.set_default_device('meta')"))
    notebook.cells.insert(2, code("torch.set_grad_enabled(False)\nimport warnings\nwarnings.simplefilter('error')"))
    assert states(graded_as(notebook, tmp_path)) == RIGHT


def test_a_module_beside_the_notebook_can_be_imported(tmp_path):
    own = graded(solved(), "unpatchify").source
    (tmp_path / "my_patches.py").write_text(own)
    (tmp_path / "json.py").write_text("raise RuntimeError('a name of the library')")
    grade = graded_as(answered(unpatchify="from my_patches import unpatchify"), tmp_path)
    assert states(grade) == RIGHT and grade.outcome.errors == []


def test_modules_do_not_stand_beside_the_notebooks_of_several_students(tmp_path):
    (tmp_path / "my_patches.py").write_text(graded(solved(), "unpatchify").source)
    write(solved(), tmp_path / "02_bob.ipynb")
    grade = graded_as(answered(unpatchify="from my_patches import unpatchify"), tmp_path)
    assert states(grade)["unpatchify"] == "unfinished" and "my_patches" in grade.problem


# --- what a dishonest one gains ---

STAND_IN = "stand_in = lambda f: type(f.__name__, (f,), {}) if isinstance(f, type) else (lambda *a, **k: f(*a, **k))"
GAINS_NOTHING = {
    "the reference of the check": f"{STAND_IN}\n"
    "from gen_affect_lib.course.checks.notebook_02 import check_NAME\n"
    "NAME = stand_in(check_NAME.reference)",
    "the reference after a wrong answer": f"{STAND_IN}\n"
    "from gen_affect_lib.course.checks.notebook_02 import check_NAME\n"
    "NAME = stand_in(check_NAME(lambda *_: None))",
    "the kit's own component": "from gen_affect_lib.model import patches\n"
    "NAME = (lambda own: lambda *a: own(*a))(getattr(patches, 'NAME', None))",
    "the solution": "from gen_affect_lib.course.checks.notebook_02 import check_NAME\nexec(check_NAME.solution())",
    "a verdict of its own": "from gen_affect_lib.course.checks import exercise\n"
    "exercise.Exercise.judge = lambda self, answer: exercise.Verdict('right')\nNAME = lambda *_: 1",
    "a comparison of its own": "from gen_affect_lib.course.checks import compare, differences\n"
    "compare.difference = differences.difference = lambda *_: ''\nNAME = lambda *_: 1",
    "a number that equals all": "class Any(float):\n    def __sub__(self, other): return 0.0\n"
    "    def __eq__(self, other): return True\nNAME = lambda *_: Any()",
    "an answer in the frames above": "import sys\ndef NAME(*_):\n    frame = sys._getframe()\n    while frame:\n"
    "        for value in frame.f_locals.values():\n"
    "            if hasattr(value, 'reference'): return value.reference(*_)\n"
    "        frame = frame.f_back",
    "an answer among all objects": "import gc\ndef NAME(*_):\n    for one in gc.get_objects():\n"
    "        if type(one).__name__ == 'Exercise' and one.name == 'NAME': return one.reference(*_)",
    "messages of its own": "import os\nfor number in range(3, 20):\n"
    "    try: os.write(number, b'{\"done\": null}\\n')\n"
    "    except OSError: pass\nNAME = 1",
}


@pytest.mark.skipif(sys.platform == "win32", reason="cells are timed by a signal")
@pytest.mark.parametrize("what", GAINS_NOTHING)
def test_a_trick_gains_no_points_and_is_named(tmp_path, what):
    names = ("looks_ratio", "unpatchify", "sincos_1d")
    grade = graded_as(answered(**{name: GAINS_NOTHING[what].replace("NAME", name) for name in names}), tmp_path)
    assert "right" not in {states(grade)[name] for name in names}, grade.outcome
    assert grade.outcome.look_at


def test_predictions_are_not_guessed_in_a_loop(tmp_path):
    notebook = answered(looks_ratio="def looks_ratio(): return 1")
    graded(notebook, "check_looks_ratio").source += "\nfor k in range(20): check_looks_ratio(lambda: k)"
    grade = graded_as(notebook, tmp_path)
    assert states(grade) == RIGHT | {"looks_ratio": "wrong"} and grade.outcome.look_at == [
        "2.1 was guessed more than 2 times"
    ]


HOSTILE = """
import ctypes, os, glob
secret, table, kit = {secret!r}, {table!r}, {kit!r}
libc = ctypes.CDLL(None)
done = []
def attempt(name, step):
    try: step(); done.append(name)
    except BaseException: pass
attempt('read', lambda: open(secret).read())
attempt('write', lambda: open(table, 'w').write('9 of 9'))
attempt('kit', lambda: open(kit, 'a').write('x'))
attempt('own kit', lambda: open(__import__('gen_affect_lib').__file__, 'a').write('x'))
attempt('etc', lambda: open('/etc/x', 'w'))
attempt('shadow', lambda: open('/etc/shadow').read())
attempt('remount', lambda: None if libc.mount(None, b'/', None, 32 | 4096, None) == 0 else 1 / 0)
attempt('unshare', lambda: None if libc.unshare(0x20000) == 0 else 1 / 0)
lines = [open(f'/proc/{{p}}/cmdline', 'rb').read() for p in os.listdir('/proc') if p.isdigit()]
if any(b'grading.judge' in line for line in lines): done.append('processes')
def connect():
    s = libc.socket(2, 1, 0)
    address = (2).to_bytes(2, 'little') + ({port}).to_bytes(2, 'big') + bytes([127, 0, 0, 1]) + bytes(8)
    if libc.connect(s, address, 16) != 0: raise OSError
attempt('network', connect)
if libc.fork() == 0:
    libc.setsid()
    import time
    time.sleep(600)
    os._exit(0)
raise RuntimeError(done)
"""


@pytest.mark.skipif(bool(jail.namespaces_missing()), reason="needs namespaces")
def test_a_hostile_notebook_sees_and_changes_nothing_and_leaves_nothing_behind(tmp_path):
    import psutil

    (tmp_path / "secret").write_text("the answers of another student")
    (tmp_path / "grades.csv").write_text("0 of 9")
    with socket.create_server(("127.0.0.1", 0)) as server:
        cell = HOSTILE.format(
            secret=str(tmp_path / "secret"),
            table=str(tmp_path / "grades.csv"),
            kit=sandbox.__file__,
            port=server.getsockname()[1],
        )
        notebook = solved()
        notebook.cells.append(code(cell))
        before = {path: path.read_bytes() for path in [Path(sandbox.__file__), *tmp_path.iterdir()] if path.is_file()}
        grade = graded_as(notebook, tmp_path / "in")
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()
    assert told(grade) == ["[]"] and states(grade) == RIGHT
    assert all(path.read_bytes() == content for path, content in before.items())
    judges = [one for one in psutil.Process().children() if "gen_affect_lib.course.grading.judge" in one.cmdline()]
    assert judges and not any(one.children(recursive=True) for one in judges), "what it has started has ended with it"
    assert any("ctypes" in words for words in grade.outcome.look_at)


def test_without_namespaces_a_notebook_changes_a_copy_of_the_kit(tmp_path, monkeypatch):
    monkeypatch.setattr(jail, "namespaces_missing", lambda: "not here")
    notebook = solved()
    change = "import gen_affect_lib as kit\nopen(kit.__file__, 'a').write('x')\nraise RuntimeError(kit.__file__)"
    notebook.cells.append(code(change))
    job = {"cells": submissions.code_cells(notebook.cells), "notebook": "02", "seconds": 120, "memory_gb": 4}
    outcome = judge.judge({**job, "profile": "smoke", "helpers": {}, "kit": str(sandbox._kit()), "container": None})
    assert {verdict["state"] for verdict in outcome["verdicts"].values()} == {"right"}
    assert "gen_affect_grade_" in outcome["errors"][0]["error"]
    assert not (sandbox._kit() / "gen_affect_lib" / "__init__.py").read_text().endswith("x")


def test_in_a_container_nothing_is_shared_but_the_submission(tmp_path, monkeypatch):
    """The command line only: a program in place of docker writes it down."""
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/said\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "folder").mkdir()
    cell = jail.Jail(tmp_path / "folder", tmp_path / "kit", "smoke", "gen-affect")
    cell.start()
    cell.process.wait(30)
    said = (tmp_path / "said").read_text().splitlines()
    assert said[:3] == ["run", "--rm", "--interactive"] and {"--network=none", "--read-only", "--cap-drop=ALL"} < set(
        said
    )
    volumes = [one.partition("=")[2] for one in said if one.startswith("--volume")]
    assert [one.rpartition(":")[2] for one in volumes] == ["ro", "ro", "/submission"]
    assert said[said.index("gen-affect") + 1] == "python"
    cell.kill()
    assert (tmp_path / "said").read_text().splitlines() == ["kill", cell.name]


# --- a folder of them ---


class Page(HTMLParser):
    """The tags of a page, each closed in its turn, and its words."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.words = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory):
    """A folder of submissions and what became of it: (the rows of the table, the folder of the pages)"""
    folder = tmp_path_factory.mktemp("all") / "submitted"
    write(solved(), folder / "ada" / "ps1" / "my homework.ipynb")
    write(
        answered(
            looks_ratio="def looks_ratio():\n    '''<script>alert(1)</script>'''\n    return '<b>`4`</b>'",
            unpatchify="raise ValueError('<i>no</i>')",
        ),
        folder / "=bob.ipynb",
    )
    (folder / "cut.ipynb").write_text((folder / "=bob.ipynb").read_text()[:999])
    (folder / "drawing.ipynb").write_text('{"cells": [{"cell_type": "code", "source": "1"}]}')
    write(nbformat.v4.new_notebook(cells=[code("1")]), folder / "cy" / "03_mmdit.ipynb")
    (folder / "notes.md").write_text("not graded")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    out = grade_folder(folder, **LIMITS, jobs=2)
    assert out == folder.parent / "submitted_grades" / "grades.csv"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    with out.open(newline="", encoding="utf-8-sig") as stream:
        return {row["submission"]: row for row in csv.DictReader(stream)}, out.parent / "feedback"


def test_every_submission_has_a_row(handed_in):
    rows, _ = handed_in
    assert list(rows) == ["'=bob", "ada/ps1/my homework", "cut", "cy/03_mmdit", "drawing", "notes.md"]
    assert "a .md is no notebook" in rows["notes.md"]["problem"] and rows["notes.md"]["of"] == ""
    assert rows["ada/ps1/my homework"] == rows["ada/ps1/my homework"] | {
        "notebook": "02_patches",
        "points": "15",
        "of": "15",
        "percent": "100",
        "problem": "",
        "2.1 looks_ratio": "right",
        "3.1 timestep_embedding": "",
    }
    bob = rows["'=bob"]
    assert (bob["points"], bob["percent"], bob["2.1 looks_ratio"], bob["2.2 unpatchify"]) == (
        "12",
        "80",
        "wrong",
        "unfinished",
    )
    assert (rows["cut"]["points"], rows["cut"]["of"]) == ("0", "") and "only a part" in rows["cut"]["problem"]
    assert "none of the notebooks with exercises" in rows["drawing"]["problem"]
    assert (
        rows["cy/03_mmdit"]["3.1 timestep_embedding"] == "unfinished" and rows["cy/03_mmdit"]["2.1 looks_ratio"] == ""
    )


def test_every_submission_has_a_page_that_needs_nothing_else(handed_in):
    rows, folder = handed_in
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.html")} == {
        f"{page_name(name.strip(chr(39)))}.html" for name in rows
    }
    for path in folder.rglob("*.html"):
        page = Page(path.read_text())
        names = [tag for tag, _ in page.tags]
        assert ("html", {"lang": "en"}) in page.tags and names.count("h1") == names.count("main") == names.count(
            "title"
        ) == 1
        assert not {"script", "img", "link", "a", "b", "i"} & set(names), (
            "nothing is loaded, and no answer becomes a tag"
        )
        assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.tags if tag == "th")
        levels = [int(name[1]) for name in names if re.fullmatch("h[1-6]", name)]
        assert levels[0] == 1 and all(later <= level + 1 for level, later in zip(levels, levels[1:]))


def test_a_page_shows_verdict_hint_answer_and_errors(handed_in):
    _, folder = handed_in
    words = Page((folder / "=bob.html").read_text()).words
    assert "12 of 15 points (80 %)" in words
    assert "not yet right. Return a number; '<b>4</b>' came back." in words  # backticks are code's
    assert "A hint: How many patches of 4 lie in one patch of 8?" in words
    assert "<script>alert(1)</script>" in words, "the answer, as it was written"
    assert "There is no unpatchify" in words and "ValueError: <i>no</i>" in words
    assert "in the line raise ValueError('<i>no</i>')" in words
    assert "Nothing could be run" in Page((folder / "cut.html").read_text()).words


def test_the_text_of_a_page_has_enough_contrast():
    def luminance(color):
        channels = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        return sum(
            weight * (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4)
            for weight, c in zip((0.2126, 0.7152, 0.0722), channels)
        )

    text = grading.page(Grade("ada", broken="x"))
    assert set(re.findall(r"color: (#\w+)", text)) == {"#1b1b1b"} and "#fff" in text
    for paper in ("#ffffff", "#f6f6f6"):
        assert (luminance(paper) + 0.05) / (luminance("#1b1b1b") + 0.05) > 7


def test_a_line_is_printed_when_a_submission_ends(tmp_path, capsys, monkeypatch):
    def broken_for_ada(cells, number, **_):
        return sandbox.Outcome(problems=["it was odd"], seconds=3.2)

    monkeypatch.setattr(sandbox, "run", broken_for_ada)
    write(solved(), tmp_path / "in" / "ada.ipynb")
    (tmp_path / "in" / "bob.ipynb").write_text("")
    grade_folder(tmp_path / "in", tmp_path / "out", jobs=1)
    assert capsys.readouterr().out.splitlines() == [
        "ada    0 of  15 points     3 s  it was odd",
        "bob                             the file is no notebook, or only a part of one",
        "2 handed in: 1 graded, 0 unchanged since they were graded, 1 that could not be graded",
    ]


def test_a_fault_of_ours_is_a_row_too(tmp_path, monkeypatch, capsys):
    def fails(*_, **__):
        raise RuntimeError("ours")

    monkeypatch.setattr(sandbox, "run", fails)
    grade = graded_as(solved(), tmp_path)
    assert grade.problem == "grading it failed with RuntimeError: ours" and "Traceback" in capsys.readouterr().err


@pytest.fixture
def quick(monkeypatch):
    """Without running anything, an answer is right if its code contains its name; returns the list of what was run."""
    ran = []

    def run(cells, number, **_):
        text = "\n".join(cell["source"] for cell in cells)
        ran.append(text)
        verdicts = {
            name: {"state": "right" if f"def {name}" in text else "unfinished", "message": "", "code": ""}
            for name in RIGHT
        }
        return sandbox.Outcome(verdicts)

    monkeypatch.setattr(sandbox, "run", run)
    return ran


def hand_in(path, *names):
    """A notebook 02 with answers to the exercises `names`."""
    write(nbformat.v4.new_notebook(cells=[code(f"def {name}(): pass") for name in names or ("nothing",)]), path)


def table(out) -> dict:
    with (out / "grades.csv").open(newline="", encoding="utf-8-sig") as stream:
        return {row["submission"]: row for row in csv.DictReader(stream)}


def test_grades_are_merged_and_what_has_not_changed_is_not_graded_again(tmp_path, quick, capsys):
    hand_in(tmp_path / "week1" / "ada" / "02_a.ipynb", "looks_ratio")
    hand_in(tmp_path / "week1" / "bob" / "02_b.ipynb", "unpatchify")
    hand_in(tmp_path / "late" / "cy" / "02_c.ipynb", "sincos_1d")
    grade_folder(tmp_path / "week1", tmp_path / "out", jobs=1)
    grade_folder(tmp_path / "late", tmp_path / "out", jobs=1)
    assert {name: row["points"] for name, row in table(tmp_path / "out").items()} == {
        "ada/02_a": "1",
        "bob/02_b": "2",
        "cy/02_c": "3",
    }
    capsys.readouterr()
    hand_in(tmp_path / "week1" / "bob" / "02_b.ipynb", "sincos_1d", "unpatchify")
    grade_folder(tmp_path / "week1", tmp_path / "out", jobs=1)
    assert len(quick) == 4, "ada's was not run again"
    assert "2 handed in: 1 graded, 1 unchanged since they were graded, 0 that" in capsys.readouterr().out
    rows = table(tmp_path / "out")
    assert (rows["bob/02_b"]["points"], rows["bob/02_b"]["attempts"], rows["ada/02_a"]["attempts"]) == ("5", "2", "1")


def test_of_several_attempts_the_best_or_the_last_counts(tmp_path, quick):
    import os

    path = tmp_path / "in" / "02_a.ipynb"
    for day, names in enumerate((["looks_ratio"], ["sincos_1d", "unpatchify"], ["unpatchify"])):
        hand_in(path, *names)
        os.utime(path, (86400 * (day + 1),) * 2)
        grade_folder(tmp_path / "in", tmp_path / "out")
    assert table(tmp_path / "out")["02_a"]["points"] == "5" and table(tmp_path / "out")["02_a"]["attempts"] == "3"
    grade_folder(tmp_path / "in", tmp_path / "out", counts="last")
    assert table(tmp_path / "out")["02_a"]["points"] == "2" and len(quick) == 3


def test_what_had_a_problem_is_graded_again_only_with_other_limits(tmp_path, quick, monkeypatch):
    hand_in(tmp_path / "in" / "02_a.ipynb")
    ran, run = [], sandbox.run
    monkeypatch.setattr(
        sandbox, "run", lambda cells, number, **limits: ran.append(limits) or sandbox.Outcome(problems=["too long"])
    )
    for seconds in (60, 60, 90):
        grade_folder(tmp_path / "in", tmp_path / "out", seconds=seconds)
    assert [limits["seconds"] for limits in ran] == [60, 90]
    monkeypatch.setattr(sandbox, "run", run)
    grade_folder(tmp_path / "in", tmp_path / "out", seconds=120)
    assert table(tmp_path / "out")["02_a"]["attempts"] == "1", "the same file is the same attempt"


def test_a_damaged_attempt_is_graded_again(tmp_path, quick):
    hand_in(tmp_path / "in" / "02_a.ipynb", "looks_ratio")
    grade_folder(tmp_path / "in", tmp_path / "out")
    (kept,) = (tmp_path / "out" / "attempts").iterdir()
    for damage in ("", "{", "[]", '{"submission": 1}'):
        kept.write_text(damage)
        grade_folder(tmp_path / "in", tmp_path / "out")
    assert len(quick) == 5 and table(tmp_path / "out")["02_a"]["points"] == "1"


def test_one_submission_that_cannot_be_written_costs_no_other_its_row(tmp_path, quick, monkeypatch):
    for name in "abc":
        hand_in(tmp_path / "in" / f"02_{name}.ipynb", "looks_ratio")
    page = grading.page

    def fails_for_b(grade):
        if grade.submission == "02_b":
            raise RecursionError("deep")
        return page(grade)

    monkeypatch.setattr(grading, "page", fails_for_b)
    with pytest.raises(UserError, match="not everything could be written to .*RecursionError: deep"):
        grade_folder(tmp_path / "in", tmp_path / "out", jobs=1)
    assert list(table(tmp_path / "out")) == ["02_a", "02_b", "02_c"]
    assert {path.name for path in (tmp_path / "out" / "feedback").iterdir()} == {"02_a.html", "02_c.html"}


def test_a_terminal_without_the_letters_of_a_name_stops_nothing(tmp_path, quick, monkeypatch):
    import io

    hand_in(tmp_path / "in" / "a_Łukasz_02.ipynb", "looks_ratio")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", terminal)
    grade_folder(tmp_path / "in", tmp_path / "out")
    terminal.flush()
    assert terminal.buffer.getvalue().decode("cp1252").startswith("a_?ukasz_02")
    assert "a_Łukasz_02" in table(tmp_path / "out")


def test_file_names_that_are_not_utf8_are_graded(tmp_path):
    name = b"\xfcmit.ipynb".decode("utf-8", "surrogateescape")  # not UTF-8: as some archives unpack
    (tmp_path / "in").mkdir()
    try:
        (tmp_path / "in" / name).write_text("")
    except OSError:
        pytest.skip("this system has no such names")
    grade_folder(tmp_path / "in", tmp_path / "out")
    assert list(table(tmp_path / "out")) == ["?mit"]


@pytest.mark.parametrize(
    "given, words",
    [
        (["{}/none"], "is no folder"),
        (["{}/file"], "is no folder"),
        (["{}/empty"], "there is no notebook in"),
        (["{}/in", "--out", "{}/in"], "is inside the folder of submissions"),
        (["{}/in", "--out", "{}/in/deep"], "is inside the folder of submissions"),
        (["{}/in", "--out", "{}/file"], "is a file"),
    ],
)
def test_a_mistake_of_the_grader_ends_in_one_line(tmp_path, given, words):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "02.ipynb").write_text("")
    folder, *out = [part.replace("{}", str(tmp_path)) for part in given if part != "--out"]
    with pytest.raises(UserError, match=words):
        grade_folder(folder, *out)
    assert not (tmp_path / "in_grades").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is a signal here")
@pytest.mark.parametrize("how, code_", [("SIGINT", 130), ("SIGTERM", 130), ("SIGKILL", -9)])
def test_ending_the_grader_ends_everything_and_keeps_the_finished_grades(tmp_path, how, code_):
    import os
    import signal
    import time

    import psutil

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.ipynb").write_text("")
    notebook = solved()
    notebook.cells.insert(0, code("import time\ntime.sleep(300)"))
    write(notebook, tmp_path / "in" / "b.ipynb")
    command = [sys.executable, "-m", "gen_affect_lib", "course", "grade", str(tmp_path / "in"), "--jobs", "2"]

    def listen():  # what a shell starts with & ignores Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as process:
        own: list = []
        until = time.monotonic() + 240
        while not any("grading.player" in " ".join(one.cmdline()) for one in own) and time.monotonic() < until:
            time.sleep(0.5)
            own = [one for one in psutil.Process(process.pid).children(recursive=True) if one.status() != "zombie"]
        time.sleep(2)
        own = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(getattr(signal, how))
        _, said = process.communicate(timeout=60)
    assert process.returncode == code_ and (said == "stopped\n" or how == "SIGKILL")
    assert "only a part" in (tmp_path / "in_grades" / "grades.csv").read_text(encoding="utf-8-sig")
    assert len(own) >= 2 and not psutil.wait_procs(own, timeout=30)[1], "no judge and no submission is left"
    assert not list(tmp_path.glob("gen_affect_grade_*"))
