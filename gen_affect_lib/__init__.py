"""Gen-AFFECT from scratch: one person, many fine-grained expressions, in code that is written to be read.

Public names are loaded on first use. `import gen_affect_lib` therefore loads neither torch nor diffusers, and code that
only draws avatars never does.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers; tests/test_setup.py compares these names with those below
    from gen_affect_lib import avatars as avatars
    from gen_affect_lib import codec as codec
    from gen_affect_lib import course as course
    from gen_affect_lib import device as device
    from gen_affect_lib import display as display
    from gen_affect_lib import doctor as doctor
    from gen_affect_lib import errors as errors
    from gen_affect_lib import flow as flow
    from gen_affect_lib import model as model
    from gen_affect_lib import parity as parity
    from gen_affect_lib import paths as paths
    from gen_affect_lib import photo as photo
    from gen_affect_lib import pipeline as pipeline
    from gen_affect_lib import profiles as profiles
    from gen_affect_lib import training as training
    from gen_affect_lib import widgets as widgets
    from gen_affect_lib.avatars import EMOTIONS as EMOTIONS
    from gen_affect_lib.avatars import Appearance as Appearance
    from gen_affect_lib.avatars import Avatar as Avatar
    from gen_affect_lib.avatars import Expression as Expression
    from gen_affect_lib.avatars import Identity as Identity
    from gen_affect_lib.codec import LatentCodec as LatentCodec
    from gen_affect_lib.codec import PixelCodec as PixelCodec
    from gen_affect_lib.device import pick_device as pick_device
    from gen_affect_lib.device import seed_everything as seed_everything
    from gen_affect_lib.display import grid as grid
    from gen_affect_lib.display import show as show
    from gen_affect_lib.errors import UserError as UserError
    from gen_affect_lib.flow import RectifiedFlow as RectifiedFlow
    from gen_affect_lib.model.mmdit import MMDiT as MMDiT
    from gen_affect_lib.photo.reading import PhotoReading as PhotoReading
    from gen_affect_lib.photo.reading import read_photo as read_photo
    from gen_affect_lib.pipeline import GenAffectPipeline as GenAffectPipeline
    from gen_affect_lib.profiles import get_profile as get_profile
    from gen_affect_lib.recipe import TrainingConfig as TrainingConfig
    from gen_affect_lib.training.trainer import Trainer as Trainer

__version__ = "0.2.0.dev0"  # the only place that says it: pyproject.toml reads it from here

# Public name: the module that defines it.
_NAMES = {
    "Appearance": "avatars",
    "Avatar": "avatars",
    "EMOTIONS": "avatars",
    "Expression": "avatars",
    "Identity": "avatars",
    "LatentCodec": "codec",
    "PixelCodec": "codec",
    "RectifiedFlow": "flow",
    "MMDiT": "model.mmdit",
    "GenAffectPipeline": "pipeline",
    "PhotoReading": "photo.reading",
    "read_photo": "photo.reading",
    "Trainer": "training.trainer",
    "TrainingConfig": "recipe",
    "UserError": "errors",
    "pick_device": "device",
    "seed_everything": "device",
    "get_profile": "profiles",
    "grid": "display",
    "show": "display",
}
# Modules that are public as attributes, as in `gen_affect_lib.parity.from_diffusers`.
_MODULES = {
    "avatars",
    "codec",
    "course",
    "device",
    "display",
    "doctor",
    "errors",
    "flow",
    "model",
    "parity",
    "paths",
    "photo",
    "pipeline",
    "profiles",
    "training",
    "widgets",
}

__all__ = sorted(_NAMES)  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # a type checker then reports a misspelt name

    def __getattr__(name: str):
        if name in _NAMES:
            value = getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
            globals()[name] = value  # the next access finds it here
            return value
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES})
