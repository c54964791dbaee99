"""Gen-AFFECT from scratch: one person, many fine-grained expressions, and every part of the way written to be read.

Names load when they are first asked for, so that `import gen_affect_lib` costs nothing and a lesson that only draws
avatars never waits for torch or diffusers.
"""

from importlib import import_module

__version__ = "0.1.0"

# Where each public name lives.
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
    "Trainer": "training.trainer",
    "TrainingConfig": "training.trainer",
    "UserError": "errors",
    "pick_device": "device",
    "seed_everything": "device",
    "get_profile": "profiles",
    "grid": "display",
    "show": "display",
}
# Modules that are reached as attributes, as in `gen_affect_lib.parity.from_diffusers`.
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
    "pipeline",
    "profiles",
    "training",
    "widgets",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str):
    if name in _NAMES:
        value = getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
        globals()[name] = value  # found once: the next access does not come through here
        return value
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_NAMES, *_MODULES})
