"""The photographs that other packages of the kit bring along. Their source and terms: LICENSES/README.md."""

from importlib.util import find_spec
from pathlib import Path

import matplotlib
import skimage

ASTRONAUT = Path(skimage.__file__).parent / "data" / "astronaut.png"
HOPPER = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
GROUP = Path(find_spec("insightface").origin).parent / "data" / "images" / "t1.jpg"  # six people
