"""Without the optional package with the face landmarker nothing of a photograph can be read."""

import pytest

from gen_affect_lib.photo.landmarker import INSTALL, is_installed


def pytest_collection_modifyitems(items):
    if not is_installed():
        for item in items:
            if "/photo/" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason=INSTALL))
