"""What every test stands on: no network, and folders of its own for what it writes."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

# Here, and not in a fixture: before any test module imports anything that could reach for the network.
NO_NETWORK = Path(__file__).parent / "no_network"
sys.path.insert(0, str(NO_NETWORK))
sys.modules.pop("sitecustomize", None)  # the system may have one of its own
import sitecustomize  # noqa: E402, F401

sys.path.remove(str(NO_NETWORK))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(NO_NETWORK), os.environ.get("PYTHONPATH")]))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

_kept = os.environ.get("GEN_AFFECT_OUTPUTS") or Path(__file__).parent.parent / "outputs"

# The suite leaves the user's outputs and cache alone, and two workers do not share theirs.
_scratch = tempfile.mkdtemp(prefix="gen_affect_tests_")
atexit.register(shutil.rmtree, _scratch, ignore_errors=True)
os.environ["GEN_AFFECT_OUTPUTS"] = os.path.join(_scratch, "outputs")
os.environ["GEN_AFFECT_CACHE"] = os.path.join(_scratch, "cache")
os.environ["GEN_AFFECT_PROFILE"] = "smoke"


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-domain-reliability",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture(scope="session")
def kept_outputs() -> Path:
    """The user's own folder of outputs, for what a test leaves behind to be looked at."""
    return Path(_kept)


@pytest.fixture(scope="session")
def launch():
    """Runs a program in two processes that train together, on processors."""

    def run(*program):
        options = ["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]  # 0: a port that is free
        command = [sys.executable, "-m", "accelerate.commands.launch", *options, *map(str, program)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)

    return run


@pytest.fixture(scope="session")
def chromium():
    """The system's Chromium, headless. It resolves no name but loopback."""
    from playwright.sync_api import sync_playwright  # not installed for `make test`

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert path, "no Chromium was found: apt install chromium"
    root = hasattr(os, "getuid") and os.getuid() == 0  # whose Chromium has no sandbox
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*QUIET, *["--no-sandbox"] * root])
        yield browser
        browser.close()
