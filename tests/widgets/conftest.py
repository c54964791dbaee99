"""What the tests of the panels share."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.paths import SHIPPED
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.widgets import panel


@pytest.fixture
def shown(monkeypatch):
    """The still pictures and the words under which they went to the page."""
    pictures = []
    monkeypatch.setattr(panel, "show", lambda picture, alt: pictures.append((picture, alt)))
    return pictures


@pytest.fixture
def appeared(monkeypatch):
    """Somebody is there: what they see beside still pictures."""
    widgets = []
    monkeypatch.setattr(panel, "someone_there", lambda: True)
    monkeypatch.setattr("IPython.display.display", widgets.append)
    return widgets


@pytest.fixture(scope="session")
def drawn():
    """The picture of a panel as it is now, uint8 (H, W, 3)."""
    return lambda one: np.asarray(Image.open(io.BytesIO(one.picture.png)))


@pytest.fixture(scope="session")
def press():
    """Do to a panel's pad what the browser does: press a place, or an arrow key."""
    return lambda one, **message: one.picture._handle_custom_msg({k: list(v) for k, v in message.items()}, [])


@pytest.fixture(scope="session")
def shipped():
    pipeline = GenAffectPipeline.from_pretrained(SHIPPED)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def person():
    return lambda seed: Avatar(Identity.sample(1_000_000 + seed), Expression.sample(seed), Appearance.sample(seed))


@pytest.fixture(scope="session")
def fastest():
    """CPU seconds of the fastest of several runs: a machine that is busy with other things takes as many."""

    def measure(run, times: int = 6) -> float:
        seconds = []
        for _ in range(times):
            start = time.thread_time()
            run()
            seconds.append(time.thread_time() - start)
        return min(seconds)

    return measure
