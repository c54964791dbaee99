"""A real JupyterLab on this machine's loopback, and a real Chromium that opens notebooks in it.

Nothing but loopback is reached: the server and its kernels stand under the suite's block (tests/no_network), and the
browser resolves no name.
"""

import base64
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, Page

from gen_affect_lib.paths import ROOT

KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
STARTS, WORKS = 90, 600  # seconds: that anything starts, and that a notebook runs, on a machine that is busy


@dataclass(frozen=True)
class Lab:
    """A server. `folder` is what it serves, `url` its address, `token` what lets one in."""

    folder: Path
    url: str
    token: str


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    folder.mkdir()
    # Nobody's settings but these: no question about news stands in the way.
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    places = {
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
    }
    environment = os.environ | {name: str(home / place) for name, place in places.items()}
    environment["PYTHONPATH"] = os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one = Lab(folder, f"http://127.0.0.1:{port}", secrets.token_hex(16))
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={one.token}",
        f"--ServerApp.root_dir={folder}",
        "--ServerApp.allow_root=True",
        "--LabApp.extension_manager=readonly",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    with open(home / "log", "w") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            _wait_for_answer(one, server, home / "log")
            yield one
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_for_answer(lab: Lab, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + STARTS
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(f"{lab.url}/api/status?token={lab.token}", timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-4000:]}")


@dataclass
class Notebook:
    """A notebook that is open in the browser. `asked` are the addresses that its page has asked so far."""

    page: Page
    path: Path
    asked: list[str]
    pictures: Path

    def run_all(self) -> nbformat.NotebookNode:
        """Run every cell, and give back the notebook as JupyterLab saves it. Ends early where a cell fails."""
        # A folded cell shows no prompt. So the prompts of the others are counted, and the kernel has to be idle.
        cells = sum(
            cell.cell_type == "code" and bool(cell.source.strip()) and not folded(cell)
            for cell in nbformat.read(self.path, 4).cells
        )
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.page.wait_for_function(
            """cells => {
                const done = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')]
                    .filter((prompt) => /\\d/.test(prompt.textContent)).length;
                const kernel = document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status;
                const failed = document.querySelector('[data-mime-type="application/vnd.jupyter.error"]');
                return done >= cells && kernel === 'idle' || failed;
            }""",
            arg=cells,
            timeout=1000 * WORKS,
        )
        with self.page.expect_response(
            lambda answer: answer.request.method == "PUT" and self.path.name in answer.url, timeout=1000 * STARTS
        ):
            self.page.keyboard.press("Control+s")
        return nbformat.read(self.path, as_version=4)

    def run(self, cell: int) -> None:
        """Start a cell, counted from 0."""
        self.page.locator(".jp-CodeCell").nth(cell).locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")

    def panel(self, words: str) -> "OpenPanel":
        """The panel in which these words stand."""
        with_picture = self.page.locator(".widget-vbox", has=self.page.locator(".gen-affect-pad"))
        root = with_picture.filter(has_text=words).first
        root.locator(".gen-affect-pad img").wait_for(timeout=1000 * STARTS)
        return OpenPanel(self.page, root)

    def screenshot(self, name: str) -> None:
        self.page.screenshot(path=self.pictures / f"{name}.png")


def folded(cell: nbformat.NotebookNode) -> bool:
    return bool(cell.metadata.get("jupyter", {}).get("source_hidden"))


@dataclass
class OpenPanel:
    """A panel on the page."""

    page: Page
    root: Locator

    @property
    def pad(self) -> Locator:
        return self.root.locator(".gen-affect-pad")

    @property
    def alt(self) -> str:
        return self.pad.locator("img").get_attribute("alt")

    @property
    def bytes(self) -> bytes:
        """The picture, as the page shows it."""
        read = """async (img) => {
            const reader = new FileReader();
            reader.readAsDataURL(await (await fetch(img.src)).blob());
            await new Promise((done) => { reader.onload = done; });
            return reader.result;
        }"""
        return base64.b64decode(self.pad.locator("img").evaluate(read).partition(",")[2])

    def handle(self, label: str) -> Locator:
        """The handle of a slider, by the name that a screen reader says."""
        return self.root.get_by_role("slider", name=label, exact=True)

    def wait_for(self, words: str) -> None:
        """Until the words that stand for the picture hold these."""
        self.pad.locator(f'img[alt*="{words}"]').wait_for(timeout=1000 * STARTS)


@pytest.fixture
def open_notebook(lab, chromium, kept_outputs, tmp_path):
    """A function that opens a copy of a notebook, or a new one with the given cells, and waits for its kernel."""
    contexts = []

    def open_(what: Path | list[str]) -> Notebook:
        name = f"{tmp_path.name}_{len(contexts)}"  # no test meets the kernel of another
        path = lab.folder / f"{name}.ipynb"
        if isinstance(what, Path):
            shutil.copy(what, path)
        else:
            cells = [nbformat.v4.new_code_cell(source) for source in what]
            nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), path)
        context = chromium.new_context(viewport={"width": 1500, "height": 1000})
        contexts.append(context)
        page, asked = context.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{lab.url}/lab/workspaces/{name}/tree/{path.name}?token={lab.token}", timeout=1000 * STARTS)
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=1000 * STARTS)
        # The indicator beside the kernel's name is idle before there is a kernel; the status bar is not. A cell that is
        # run too early never runs.
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=1000 * STARTS)
        pictures = kept_outputs / "browser"
        pictures.mkdir(parents=True, exist_ok=True)
        return Notebook(page, path, asked, pictures)

    yield open_
    for context in contexts:
        context.close()
