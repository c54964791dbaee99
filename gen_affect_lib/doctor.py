"""Whether the course can run on this machine: one line for each requirement, and what to do where it is not met."""

import ctypes
import platform
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from gen_affect_lib.course import notebooks, timings
from gen_affect_lib.machine import describe_machine, gpu_name
from gen_affect_lib.paths import CHECKPOINTS, ROOT, SHIPPED

INSTALL = "python -m pip install -c constraints.txt -e '.[test]'"
# Linux: {library: the package of Debian and Ubuntu that contains it}
SYSTEM_LIBRARIES = {"libGL.so.1": "libgl1", "libEGL.so.1": "libegl1", "libgthread-2.0.so.0": "libglib2.0-0"}
DISK_GB = 2  # free disk space for rendered pairs, checkpoints of a training and executed notebooks
MEMORY_GB = 3  # free memory


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    ok: bool
    text: str

    def __str__(self) -> str:
        return f"[{'OK' if self.ok else 'FAIL'}]".ljust(7) + self.text


def report() -> int:
    """Print the whole report; return the exit code, 0 if nothing is wrong, else 1."""
    failed = 0
    for heading, findings in (
        ("Python and packages", [check_python(), *check_packages()]),
        ("System libraries", check_system_libraries()),
        ("Machine", check_machine()),
        ("Shipped networks", check_networks()),
        ("Photographs", check_landmarker()),
    ):
        print(heading)
        for finding in findings:
            print("  " + str(finding), flush=True)
            failed += not finding.ok
    print("Notebooks")
    for line in notebook_lines():
        print("  " + line)
    print(f"{failed} to fix: see the lines marked [FAIL]." if failed else "All is well.")
    return 1 if failed else 0


def check_python(requires: str | None = None, current: str | None = None) -> Finding:
    """Whether the running Python is one that pyproject.toml allows."""
    requires = requires or _pyproject()["requires-python"]
    current = current or platform.python_version()
    if Version(current) in SpecifierSet(requires, prereleases=True):
        return Finding(True, f"Python {current}")
    return Finding(False, f"Python {current}, but {requires} is needed: make .venv again with a newer one")


def check_packages(
    requirements: list[str] | None = None, constraints: dict[str, str] | None = None
) -> Iterator[Finding]:
    """Each required package, compared with the tested version in constraints.txt."""
    if requirements is None:
        project = _pyproject()
        requirements = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    constraints = read_constraints() if constraints is None else constraints
    for requirement in map(Requirement, requirements):
        tested = constraints.get(canonicalize_name(requirement.name))
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(False, f"{requirement.name} is not installed: {INSTALL}")
            continue
        # 2.13.0+cpu and 2.13.0+cu129 are builds of the same code.
        if tested is not None and Version(found).public != Version(tested).public:
            yield Finding(False, f"{requirement.name} {found}, but {tested} was tested: {INSTALL}")
        else:
            yield Finding(True, f"{requirement.name} {found}")


def check_system_libraries(libraries: dict[str, str] = SYSTEM_LIBRARIES) -> Iterator[Finding]:
    """The libraries that skia-python and OpenCV load and no pip package contains; and whether skia draws."""
    if sys.platform.startswith("linux"):
        missing = [name for name in libraries if not _loads(name)]
        packages = " ".join(libraries[name] for name in missing)
        for name in libraries:
            if name in missing:
                yield Finding(
                    False,
                    f"{name} is missing: sudo apt-get install {packages} (Debian, Ubuntu), or "
                    "conda install -c conda-forge libgl libegl",
                )
            else:
                yield Finding(True, name)
        if missing:
            return
    try:
        import skia
    except ImportError as error:
        yield Finding(False, f"skia-python does not load ({error}): {INSTALL}")
    else:
        side = 8
        surface = skia.Surface(side, side)
        surface.getCanvas().clear(skia.ColorRED)
        drawn = tuple(int(value) for value in surface.makeImageSnapshot().toarray()[0, 0])
        red = drawn[:3] in ((255, 0, 0), (0, 0, 255))  # RGBA or BGRA, depending on the platform
        yield Finding(red, "skia-python draws" if red else f"skia-python draws {drawn} for red: {INSTALL}")


def check_machine(root: Path = ROOT, disk_gb: float = DISK_GB, memory_gb: float = MEMORY_GB) -> Iterator[Finding]:
    """The cores, the GPU with its memory, the free memory in GB, and the free disk space in GB at `root`."""
    machine = describe_machine()
    yield Finding(True, f"{machine['cores']} CPU cores ({machine['cpu']}), {machine['system']}")
    if machine["gpu"]:
        import torch

        total = torch.cuda.get_device_properties(0).total_memory / 2**30
        yield Finding(True, f"GPU {machine['gpu']} with {total:.0f} GB")
    else:
        yield Finding(True, "no CUDA device: everything runs on the CPU")
    total, free = psutil.virtual_memory().total / 2**30, psutil.virtual_memory().available / 2**30
    yield Finding(
        free >= memory_gb,
        f"{free:.1f} of {total:.1f} GB memory free"
        + ("" if free >= memory_gb else f", but {memory_gb} GB are needed: close other programs"),
    )
    free = shutil.disk_usage(root).free / 2**30
    yield Finding(
        free >= disk_gb,
        f"{free:.0f} GB disk free"
        + ("" if free >= disk_gb else f", but {disk_gb} GB are needed: free some space on the disk of {root}"),
    )


def check_landmarker() -> Iterator[Finding]:
    """Whether photographs can be read, which needs an optional package."""
    try:
        from gen_affect_lib.photo import landmarker  # here: it loads packages that may be missing
    except ImportError as error:
        yield Finding(False, f"photographs cannot be read ({error}): {INSTALL}")
        return
    if not landmarker.is_installed():
        yield Finding(True, f"photographs cannot be read, which is optional: {landmarker.INSTALL}")
        return
    try:
        landmarker.FaceLandmarker.load()
        yield Finding(True, "the face landmarker works: photographs can be read")
    except Exception as error:  # damaged files and broken packages raise anything
        yield Finding(False, f"the face landmarker does not work ({error!s:.300}): {landmarker.INSTALL}")


def check_networks() -> Iterator[Finding]:
    """Whether each shipped network loads, and reads or generates a face."""
    try:
        from gen_affect_lib.avatars import Avatar  # here: these load packages that may be missing
        from gen_affect_lib.encoders.expression import ExpressionEncoder
        from gen_affect_lib.encoders.pack import FacePack
        from gen_affect_lib.evaluation.judges.networks import both_judges
        from gen_affect_lib.pipeline import GenAffectPipeline
    except ImportError as error:
        yield Finding(False, f"the networks cannot be loaded ({error}): {INSTALL}")
        return
    face = Avatar().render(128)

    def generate() -> None:
        pipeline = GenAffectPipeline.from_pretrained(SHIPPED)
        pipeline.set_progress_bar_config(disable=True)
        pipeline(face, ["joy"], num_inference_steps=1)

    attempts = {
        "insightface_pack": lambda: FacePack().one(face),
        "expression": lambda: ExpressionEncoder.from_pretrained().read([face]),
        "gen_affect": generate,
        "judges": both_judges,
    }
    for name, attempt in attempts.items():
        try:
            attempt()
            yield Finding(True, f"{name} works")
        except Exception as error:  # damaged files and broken packages raise anything
            reason = " ".join(str(error).split())
            yield Finding(
                False, f"{name} does not work ({reason:.300}): restore {CHECKPOINTS / name} from the repository"
            )


def notebook_lines() -> Iterator[str]:
    """A table: time and memory of each notebook at each profile, or why it cannot run here."""
    from gen_affect_lib.profiles import default_profile  # here: this loads packages that may be missing

    names = [path.stem for path in notebooks()]
    known, has_gpu = timings.load(), gpu_name() is not None
    total = psutil.virtual_memory().total / 2**30
    yield " ".join(["".ljust(22), *(size.rjust(20) for size in timings.SIZES)])
    for name in names:
        cells = []
        for size in timings.SIZES:
            cost = timings.measured(known, size, name)
            if size == "gpu" and not has_gpu:
                cells.append("needs a GPU")
            elif cost is None:
                cells.append(timings.UNKNOWN)
            elif cost["memory_gb"] > total:
                cells.append(f"needs {cost['memory_gb']:.1f} GB")
            else:
                cells.append(timings.format_cost(cost))
        yield " ".join([name.ljust(22), *(cell.rjust(20) for cell in cells)])
    for size in timings.SIZES:
        if size in known:
            yield f"{size}: measured on {timings.format_origin(known[size])}"
    yield f"The notebooks start with PROFILE = {default_profile()!r} on this machine"


def read_constraints(path: Path = ROOT / "constraints.txt") -> dict[str, str]:
    """{package: version} of a constraints file."""
    pinned = {}
    for line in path.read_text().splitlines():
        name, separator, number = line.split("#")[0].strip().partition("==")
        if separator:
            pinned[canonicalize_name(name)] = number.strip()
    return pinned


def _pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
