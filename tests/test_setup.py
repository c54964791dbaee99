"""Installing (make, pip, conda), the public API, the Makefile, and the files around the project agree."""

import ast
import re
import runpy
import shutil
import subprocess
import sys
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

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
TESTED = PROJECT["dependencies"] + EXTRAS["test"] + EXTRAS["browser"] + EXTRAS["site"]
REQUIREMENTS = [Requirement(text) for text in TESTED]


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
    """Transitive dependencies are pinned too, so that two installs a year apart are the same."""
    from importlib.metadata import PackageNotFoundError, distribution

    pinned, seen, waiting = read_constraints(), set(), list(REQUIREMENTS)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen:
            continue
        seen.add(name)
        try:
            needed = [Requirement(text) for text in distribution(name).requires or []]
        except PackageNotFoundError:
            continue  # needed on another platform only
        extras = ["", *requirement.extras]
        waiting += [r for r in needed if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras)]
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
    # Everything else comes from pyproject.toml, so that there is no second list.
    assert {entry.partition("=")[0] for entry in packages} == {"python", "pip"}
    (from_pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert environment["dependencies"][-1] == {"pip": from_pip}
    assert from_pip == ["-c constraints.txt", "-e .[test]"]
    assert (ROOT / "constraints.txt").exists()


def test_importing_the_kit_loads_nothing_heavy():
    code = "import sys, gen_affect_lib; print(sorted({'torch', 'diffusers', 'matplotlib', 'skia'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", gen_affect_lib.__all__)
def test_every_public_name_loads(name):
    assert getattr(gen_affect_lib, name) is not None
    assert name in dir(gen_affect_lib)


@pytest.mark.parametrize("name", sorted(gen_affect_lib._MODULES))
def test_every_public_module_loads(name):
    assert getattr(gen_affect_lib, name).__name__ == f"gen_affect_lib.{name}"


def test_editors_and_type_checkers_see_the_same_names_as_python():
    """The imports under TYPE_CHECKING against the tables that load names on first use."""
    tree = ast.parse((ROOT / "gen_affect_lib" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, "`import X as X` marks a public name"
            seen[alias.name] = node.module.removeprefix("gen_affect_lib").removeprefix(".")
    assert seen == gen_affect_lib._NAMES | dict.fromkeys(gen_affect_lib._MODULES, "")


def test_the_types_are_packaged():
    assert PYPROJECT["tool"]["setuptools"]["package-data"] == {"gen_affect_lib": ["py.typed"]}
    assert (ROOT / "gen_affect_lib" / "py.typed").is_file()


def test_the_version_is_written_once():
    assert "version" not in PROJECT and PROJECT["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "gen_affect_lib.__version__"}
    assert Version(gen_affect_lib.__version__)
    files = ("pyproject.toml", "environment.yml", "CITATION.cff", "README.md", "Dockerfile")
    assert not [name for name in files if gen_affect_lib.__version__ in (ROOT / name).read_text()]


def test_an_unreleased_version_has_an_unreleased_section_in_the_changelog():
    sections = re.findall(r"(?m)^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text())
    version = Version(gen_affect_lib.__version__)
    assert sections[0] == ("Unreleased" if version.is_devrelease else str(version))
    assert sections[1:] == sorted(sections[1:], key=Version, reverse=True)


def test_the_citation_is_the_same_for_tools_and_for_readers():
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    entry = re.search(r"(?s)@article\{.*?\n\}", (ROOT / "README.md").read_text())[0]
    assert f"title   = {{{paper['title']}}}" in entry and f"{{{paper['year']}}}" in entry
    assert " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]) in entry
    assert paper["url"].rpartition("/")[2] in entry


def test_the_hosted_workflow_covers_three_systems():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert {job["runs-on"].partition("-")[0] for job in workflow["jobs"].values()} == {"ubuntu", "macos", "windows"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'MMDIT'"):
        _ = gen_affect_lib.MMDIT


def test_make_explains_itself_without_installing_anything(tmp_path):
    command = ["make", "-s", "-f", ROOT / "Makefile"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    for target in (
        "demo",
        "test",
        "lint",
        "test-browser",
        "site",
        "test-site",
        "lab",
        "course",
        "timings",
        "light",
        "clean",
    ):
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


def minimal_environment(tmp_path, **programs) -> dict:
    """A PATH with a few system programs and the given ones, each with the shell command that it runs."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, does in programs.items():
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o755)
    for name in {"sh", "dirname", "make", "touch", "grep"} - set(programs):
        (tools / name).symlink_to(shutil.which(name))
    return {"PATH": str(tools)}


@pytest.mark.parametrize("failing", [None, "ruff check", "ruff format", "lint-imports", "pyright"])
def test_make_test_lints_before_it_tests(tmp_path, failing):
    """Each tool's failure fails `make test` before any test runs."""
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", ".venv/.installed"):
        (tmp_path / name).write_text("")
    for program, call in (("python", 'call="${2:-} ${3:-}"'), ("lint-imports", "call=lint-imports")):
        log = f'echo "$call" >> "{tmp_path}/ran"; case "$call" in "{failing}"*) exit 1;; esac'
        (venv / "bin" / program).write_text(f"#!/bin/sh\n{call}\n{log}\n")
        (venv / "bin" / program).chmod(0o755)
    command = ["make", "-s", "-f", ROOT / "Makefile", "test", "JOBS=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    ran = [line.strip() for line in (tmp_path / "ran").read_text().splitlines()]
    expected = ["gen_affect_lib doctor", "ruff check", "ruff format", "lint-imports", "pyright", "pytest -n"]
    assert ran == expected[: expected.index(failing) + 1 if failing else None], done.stderr
    assert (done.returncode != 0) == (failing is not None)


def test_the_commit_hooks_run_what_make_lint_runs():
    """All are local and use the installed tools, so that a commit needs no network."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    assert all(hook["language"] == "system" for hook in hooks.values())
    assert {"ruff-check", "ruff-format", "import-linter", "pyright"} <= set(hooks)
    kilobytes = re.search(r"--maxkb=(\d+)", hooks["notebook-size"]["entry"]).group(1)
    assert 1_480_000 < int(kilobytes) * 1024 <= 1_500_000  # the limit of tests/notebooks/test_contract.py


def test_every_environment_variable_is_documented():
    """CONTRIBUTING.md has one table row for each variable that the library, the notebooks or the Makefile use."""
    files = [*ROOT.glob("gen_affect_lib/**/*.py"), *ROOT.glob("notebooks/*.ipynb")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    makefile = (ROOT / "Makefile").read_text()
    used = set(re.findall(r"\bGEN_AFFECT_[A-Z0-9]+\b", code + makefile))
    used |= set(re.findall(r"(?:environ(?:\.get|\.setdefault)?|getenv)[\[(]\s*\\?[\"']([A-Z][A-Z0-9_]+)", code))
    used |= set(re.findall(r"\\?[\"']([A-Z][A-Z_]+)\\?[\"'] (?:not )?in os\.environ", code))
    used |= set(re.findall(r"(?m)^(?:export |\t)([A-Z][A-Z_]+) ?=", makefile))
    rows = re.findall(r"(?m)^\| `([A-Z][A-Z0-9_]+)` \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert sorted(rows) == sorted(used)


def test_the_picture_of_the_architecture_is_that_of_the_contract():
    script = runpy.run_path(str(ROOT / "docs" / "architecture.py"))
    drawn = script["PICTURE"].read_text(encoding="utf-8")
    assert drawn == script["svg"](), "run `python docs/architecture.py`"
    library = {path.stem for path in (ROOT / "gen_affect_lib").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {module for layer in script["layers"]() for module in layer} == library - {"__init__", "__pycache__"}


def test_every_file_that_the_pages_link_to_exists():
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
            assert (ROOT / target).exists(), f"{page} links to {target}"


@pytest.mark.parametrize("failing", [None, "test", "test-browser"])
def test_the_integration_run_is_all_test_targets(tmp_path, failing):
    """All targets run even if one fails, and the script fails if one does."""
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    place = minimal_environment(
        tmp_path,
        ldconfig="echo libGL.so.1 libEGL.so.1 libgthread-2.0.so.0",
        make=f'echo "$1" >> "{tmp_path}/ran"; [ "$1" != "{failing}" ]',
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
    place = minimal_environment(tmp_path, id=f"echo {user}", **{"apt-get": f'echo "apt-get $*" >> "{tmp_path}/ran"'})
    command = ["make", "-s", "-f", ROOT / "Makefile", "test-browser"]
    done = subprocess.run(command, cwd=tmp_path, env=place, capture_output=True, text=True)
    ran = (tmp_path / "ran").read_text() if (tmp_path / "ran").exists() else ""
    assert said in ran + done.stderr
    assert (done.returncode == 0) == (user == "0") == ("python -m pytest tests/browser" in ran)
