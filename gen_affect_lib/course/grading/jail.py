"""The process in which a submission runs: what it may see, how it is watched, and how it is ended.

On Linux it runs in `namespaces` of its own, or with `--container` in a container. Where neither is possible, it runs
on a copy of the kit with a home folder of its own, and `limits` stops accidents only.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import site
import subprocess
import sys
import threading
import time
import uuid
from functools import cache
from pathlib import Path

import psutil

from gen_affect_lib.course.grading.limits import OUT_OF_MEMORY
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import DATA, ROOT

PARTS = ("work", "outputs", "cache", "home", "temporary")  # folders of the player's own
_NAMESPACES = Path(__file__).with_name("namespaces.py")
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix", "/gnu"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/fonts", "/etc/localtime", "/etc/passwd"),
    *("/etc/group", "/etc/nsswitch.conf", "/etc/alternatives", "/sys/devices/system/cpu", "/var/cache/fontconfig"),
)
_KEPT = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "SYSTEMROOT",
    "SYSTEMDRIVE",
    "COMSPEC",
    "PATHEXT",
)
_RUN = "from gen_affect_lib.course.grading.player import main; main()"


@cache
def namespaces_missing() -> str:
    """Why submissions cannot run in namespaces on this machine; empty if they can."""
    if sys.platform != "linux":
        return "only Linux has namespaces"
    import tempfile

    with tempfile.TemporaryDirectory(prefix="gen_affect_grade_") as name:
        spec = {"root": f"{name}/root", "read": _readable(Path(name)), "write": [name], "cwd": name}
        Path(name, "root").mkdir()
        command = [sys.executable, "-I", "-S", str(_NAMESPACES), json.dumps(spec), sys.executable, "-c", "import torch"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    lines = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else (lines[-1] if lines else f"exit code {done.returncode}")


def adopt_orphans() -> None:
    """Make this process the parent of all its descendants that lose theirs, so that `Jail.kill` finds them."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def container_program() -> str:
    """The program that runs containers. Raises UserError if there is none."""
    found = shutil.which("docker") or shutil.which("podman")
    if found is None:
        raise UserError("--container needs docker or podman, and neither is installed: grade without it")
    return found


class Jail:
    """One player's process. folder: a new folder of its own. kit: the players' copy of the kit. container: an image."""

    def __init__(self, folder: Path, kit: Path, profile: str, container: str | None):
        self.folder, self.kit, self.profile, self.container = folder, kit, profile, container
        self.inside = Path("/submission") if container else folder  # where the player sees its folder
        self.name = f"gen_affect_{uuid.uuid4().hex}"
        self.process: subprocess.Popen | None = None
        self._family: list[psutil.Process] = []
        self._family_at = 0.0
        self._ending = threading.Lock()
        for part in (*PARTS, "root"):
            (folder / part).mkdir()

    def start(self) -> None:
        log = (self.folder / "log.txt").open("wb")
        command, environment, cwd = self._command()
        with log:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                bufsize=0,
            )
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()

    def _command(self) -> tuple[list[str], dict[str, str], Path]:
        if self.container:
            own = {name: f"/submission/{part}" for name, part in _FOLDERS.items()}
            variables = _variables(self.profile) | own | {"PYTHONPATH": "/kit", "GEN_AFFECT_DATA": "/data"}
            options = [f"--env={name}={value}" for name, value in variables.items()]
            user = [f"--user={os.getuid()}:{os.getgid()}"] if hasattr(os, "getuid") else []
            mounted = [f"--volume={self.kit}:/kit:ro", f"--volume={DATA.resolve()}:/data:ro"]
            limits = ["--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
            limits += ["--pids-limit=1000", "--tmpfs=/tmp", "--workdir=/kit", *user, f"--name={self.name}"]
            volume = f"--volume={self.folder}:/submission"
            started = [container_program(), "run", "--rm", "--interactive", *limits, *mounted, volume, *options]
            return [*started, self.container, "python", "-c", _RUN], dict(os.environ), self.folder
        kit = self.kit
        spec: dict = {"plain": True}
        missing = namespaces_missing()
        if missing:
            kit = self.folder / "kit"  # a submission could change it
            shutil.copytree(self.kit, kit)
        else:
            spec = {"root": str(self.folder / "root"), "read": _readable(self.kit), "cwd": str(kit)}
            spec["write"] = [str(self.folder / part) for part in PARTS]
            if os.geteuid() == 0:
                from gen_affect_lib.course.grading.namespaces import NOBODY

                for part in PARTS:
                    for path in (self.folder / part, *(self.folder / part).rglob("*")):
                        os.chown(path, NOBODY, NOBODY)
        variables = _variables(self.profile) | {name: str(self.folder / part) for name, part in _FOLDERS.items()}
        users = [path for path in [site.getusersitepackages()] if path in sys.path]  # the home folder is another one
        variables |= {"PYTHONPATH": os.pathsep.join([str(kit), *users]), "GEN_AFFECT_DATA": str(DATA.resolve())}
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        command = [sys.executable, "-c", _RUN]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", str(_NAMESPACES), json.dumps(spec), *command]
        return command, kept | variables, kit

    def family(self) -> list[psutil.Process]:
        """The process and all that it started, as of the last second."""
        if self.process is not None and time.monotonic() > self._family_at + 1:
            try:
                own = psutil.Process(self.process.pid)
                self._family = [own, *own.children(recursive=True)]
            except psutil.Error:
                self._family = []
            young = len(self._family) < 3  # they are still being started
            self._family_at = time.monotonic() - (0.9 if young else 0)
        return self._family

    def look_again(self) -> None:
        """Let `family` look for processes at its next call, however short the last one is ago."""
        self._family_at = 0.0

    def cpu(self) -> float:
        """CPU time in seconds; 0 in a container, where only the player's own limit and the clock count."""
        return 0.0 if self.container else sum(_of(one, lambda one: sum(one.cpu_times()[:2])) for one in self.family())

    def memory(self) -> float:
        """Resident memory in bytes; 0 in a container."""
        return 0.0 if self.container else sum(_of(one, lambda one: one.memory_info().rss) for one in self.family())

    def why(self, memory_gb: float) -> str:
        """How the process ended, in words."""
        assert self.process is not None
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "closed its connection to the grader"
        if code == OUT_OF_MEMORY:
            return f"took more than {memory_gb:g} GB of memory"
        name = next((signal.Signals(-code).name for known in signal.Signals if known == -code), f"exit code {code}")
        return f"ended the whole run ({name})"

    def last_line(self) -> str:
        """The last line that the process wrote to its log."""
        try:
            lines = (self.folder / "log.txt").read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1][:500] if lines else ""

    def kill(self) -> None:
        """End the process and everything that it started. Further calls do nothing."""
        with self._ending:
            if self.process is not None:
                self._kill(self.process)
                self.process = None

    def _kill(self, process: subprocess.Popen) -> None:
        if self.container:
            subprocess.run([container_program(), "kill", self.name], capture_output=True)
        process.kill()
        for _ in range(200):
            left = psutil.Process().children(recursive=True)  # the judge adopts what has lost its parent
            for one in left:
                _of(one, lambda one: one.kill() or 0)
            if not psutil.wait_procs(left, timeout=0.05)[1]:
                break
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


_FOLDERS = {
    "HOME": "home",
    "USERPROFILE": "home",
    "IPYTHONDIR": "home",
    "TMPDIR": "temporary",
    "TEMP": "temporary",
    "TMP": "temporary",
    "GEN_AFFECT_OUTPUTS": "outputs",
    "GEN_AFFECT_CACHE": "cache",
    "MPLCONFIGDIR": "home",
}


def _variables(profile: str) -> dict[str, str]:
    return {
        "GEN_AFFECT_PROFILE": profile,
        "MPLBACKEND": "Agg",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",  # the same numbers on every machine, and one core for each submission
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def _readable(kit: Path) -> list[str]:
    """What a player may read: the system's programs and libraries, Python, its packages, the kit and its data."""
    packages = [path for path in sys.path if path and Path(path).is_dir() and not Path(path, "gen_affect_lib").is_dir()]
    return [*_SYSTEM, sys.base_prefix, sys.prefix, *packages, str(kit), str(DATA.resolve())]


def _of(process: psutil.Process, quantity) -> float:
    """A quantity of a process; 0 if it has ended."""
    try:
        return quantity(process)
    except psutil.Error:
        return 0.0


def copy_of_the_kit(folder: Path) -> Path:
    """A compiled copy of the library for players. Its checks contain no reference answers."""
    import compileall

    from gen_affect_lib.course import notebooks
    from gen_affect_lib.course.checks import exercises

    kit = folder / "kit"
    shutil.copytree(ROOT / "gen_affect_lib", kit / "gen_affect_lib")  # with what is compiled already
    for path in notebooks():
        if own := exercises(path.stem):
            lines = ["from gen_affect_lib.course.grading.stub import Asked", ""]
            lines += [f'check_{exercise.name} = Asked("{exercise.name}")' for exercise in own]
            course = kit / "gen_affect_lib" / "course"
            for module in (
                f"checks/notebook_{path.stem[:2]}.py",
                f"checks_{path.stem[:2]}.py",
            ):  # or of the first edition
                (course / module).write_text("\n".join([*lines, ""]))
    compileall.compile_dir(kit, quiet=2)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return kit
