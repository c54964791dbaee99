"""The three ways to install (make, pip, conda) ask for the same things."""

import re
import shutil
import subprocess
import sys
import time
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import gen_affect_lib
from gen_affect_lib.doctor import read_constraints
from gen_affect_lib.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [Requirement(text) for text in PROJECT["dependencies"] + EXTRAS["test"] + EXTRAS["browser"]]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_requirement_has_a_tested_version_in_its_range(requirement):
    tested = read_constraints()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(tested)


def test_constraints_pin_each_package_once_and_name_no_address():
    text = (ROOT / "constraints.txt").read_text()
    pins = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins)
    assert len(read_constraints()) == len(pins)
    for name in ("constraints.txt", "pyproject.toml", "environment.yml", "Makefile"):
        assert not re.search(r"index-url|find-links|@ ?(?:https?|file)://", (ROOT / name).read_text()), name


def test_constraints_hold_all_that_the_requirements_bring_along():
    """What is installed under the requirements is pinned, so that two installs a year apart are the same."""
    from importlib.metadata import PackageNotFoundError, distribution

    pinned, seen, waiting = read_constraints(), set(), [requirement.name for requirement in REQUIREMENTS]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            asked = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # needed on another platform only
        waiting += [
            Requirement(text).name
            for text in asked
            if Requirement(text).marker is None or Requirement(text).marker.evaluate({"extra": ""})
        ]
    assert seen - set(pinned) <= {"pip"} | {name for name in seen if not _installed(name)}


def _installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def test_conda_asks_for_the_same_as_pip():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    packages = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    python = next(entry for entry in packages if entry.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(Version(python.removeprefix("python=") + ".0"))
    assert "pip" in packages
    # Everything else comes from pyproject.toml: there is no second list that could drift from it.
    assert {entry.partition("=")[0] for entry in packages} == {"python", "pip"}
    (from_pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert environment["dependencies"][-1] == {"pip": from_pip}
    assert from_pip == ["-c constraints.txt", "-e .[test]"]
    assert (ROOT / "constraints.txt").exists()


def test_importing_the_kit_is_quick_and_loads_nothing_heavy():
    code = "import sys, gen_affect_lib; print(sorted({'torch', 'diffusers', 'matplotlib', 'skia'} & set(sys.modules)))"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert time.perf_counter() - start < 2.5


@pytest.mark.parametrize("name", gen_affect_lib.__all__)
def test_every_public_name_loads(name):
    assert getattr(gen_affect_lib, name) is not None
    assert name in dir(gen_affect_lib)


@pytest.mark.parametrize("name", sorted(gen_affect_lib._MODULES))
def test_every_public_module_loads(name):
    assert getattr(gen_affect_lib, name).__name__ == f"gen_affect_lib.{name}"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'MMDIT'"):
        gen_affect_lib.MMDIT


def test_make_explains_itself_without_installing_anything(tmp_path):
    command = ["make", "-s", "-f", ROOT / "Makefile"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    for target in ("demo", "test", "test-browser", "lab", "course", "timings", "clean"):
        assert f"make {target}" in done.stdout
    assert not list(tmp_path.iterdir())


def test_make_says_clearly_that_a_python_is_too_old(tmp_path):
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
    done = subprocess.run(
        ["make", "-s", "-f", ROOT / "Makefile", f"PYTHON={old}", "doctor"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert f"error: {old} is no Python 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()


def in_a_bare_place(tmp_path, **programs) -> dict:
    """Settings under which a command finds these programs (name: what the shell is to do) and few others."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, does in programs.items():
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o755)
    for name in {"sh", "dirname", "make", "touch", "grep"} - set(programs):
        (tools / name).symlink_to(shutil.which(name))
    return {"PATH": str(tools)}


@pytest.mark.parametrize("failing", [None, "test", "test-browser"])
def test_the_integration_run_is_both_test_targets(tmp_path, failing):
    """Both run, whatever the first one says, and either one's failure is the run's."""
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    place = in_a_bare_place(
        tmp_path, ldconfig="echo libGL.so.1 libEGL.so.1", make=f'echo "$1" >> "{tmp_path}/ran"; [ "$1" != "{failing}" ]'
    )
    done = subprocess.run([script], env=place, capture_output=True, text=True)
    assert (tmp_path / "ran").read_text().split() == ["test", "test-browser"]
    assert (done.returncode != 0) == (failing is not None), done.stderr


@pytest.mark.parametrize(
    "user, said",
    [
        ("0", "apt-get install -qq -y --no-install-recommends chromium"),
        ("1000", "error: no Chromium was found. Install one (Debian: apt install chromium)"),
    ],
)
def test_without_a_chromium_make_gets_it_or_says_how(tmp_path, user, said):
    venv = tmp_path / ".venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").write_text(f'#!/bin/sh\necho "python $*" >> "{tmp_path}/ran"\n')
    (venv / "python").chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
    for stamp in (".installed", ".installed-browser"):
        (venv.parent / stamp).write_text("")
    place = in_a_bare_place(tmp_path, id=f"echo {user}", **{"apt-get": f'echo "apt-get $*" >> "{tmp_path}/ran"'})
    command = ["make", "-s", "-f", ROOT / "Makefile", "test-browser"]
    done = subprocess.run(command, cwd=tmp_path, env=place, capture_output=True, text=True)
    ran = (tmp_path / "ran").read_text() if (tmp_path / "ran").exists() else ""
    assert said in ran + done.stderr
    assert (done.returncode == 0) == (user == "0") == ("python -m pytest tests/browser" in ran)
