"""The folders of the kit, relative to this file, since it runs from its clone. Three can be set by the environment."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("GEN_AFFECT_DATA", ROOT / "data"))
CHECKPOINTS = DATA / "checkpoints"
SHIPPED = CHECKPOINTS / "gen_affect"
REFERENCE = DATA / "reference"
NOTEBOOKS = ROOT / "notebooks"
OUTPUTS = Path(os.environ.get("GEN_AFFECT_OUTPUTS", ROOT / "outputs"))
CACHE = Path(os.environ.get("GEN_AFFECT_CACHE", ROOT / ".cache"))
