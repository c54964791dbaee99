"""The site in outputs/site, which `make test-site` builds first, behind a server on this machine's loopback."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gen_affect_lib.paths import CHECKPOINTS
from gen_affect_lib.pipeline import GenAffectPipeline


@pytest.fixture(scope="session")
def pipeline():
    pipeline = GenAffectPipeline.from_pretrained(CHECKPOINTS / "gen_affect")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def site(kept_outputs):
    folder = kept_outputs / "site"
    assert (folder / "index.html").is_file(), "the site is not built: run make site"
    return folder


@pytest.fixture(scope="session")
def onnx_files(site):
    return site / "playground" / "model"


@pytest.fixture(scope="session")
def address(site):
    """The address of a server of the site."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def page(chromium, kept_outputs):
    """A page of the browser; the test fails if the page asks another address, or reports an error."""
    (kept_outputs / "site_pictures").mkdir(parents=True, exist_ok=True)
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.pictures = kept_outputs / "site_pictures"
    yield page
    page.close()
    assert not errors
    assert all(url.startswith(("http://127.0.0.1:", "data:", "blob:")) for url in asked), asked
