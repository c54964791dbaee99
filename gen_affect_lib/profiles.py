"""Three sizes of everything: `smoke` takes seconds, `laptop` two CPU cores, `gpu` one modern GPU."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field, replace

from gen_affect_lib.avatars.pairs import PairsConfig
from gen_affect_lib.errors import UserError


@dataclass(frozen=True)
class Profile:
    """The sizes of data, networks and training. All sizes of networks are diffusers' names."""

    name: str
    pairs: PairsConfig
    validation: PairsConfig
    codec: dict = field(default_factory=dict)
    codec_steps: int = 2200
    transformer: dict = field(default_factory=dict)
    fusion: dict = field(default_factory=dict)
    references: int = 2  # pictures of each person that serve as references; each has to be read once
    training: dict = field(default_factory=dict)
    steps: int | None = None  # how long a training lasts: in steps, or in minutes
    minutes: float | None = None
    sampling_steps: int = 20
    identity_scale: float = 1.5  # guidance: chosen on validation people, see the model card
    expression_scale: float = 2.0
    from_nothing: dict | None = None  # None: always from nothing. Else from the shipped checkpoint, or with these sizes
    comparing: dict = field(default_factory=dict)  # sizes that learn within minutes, to compare ways to do it

    def retrained(self) -> Profile:
        """The sizes with which the shipped checkpoint was trained: this profile, but from nothing."""
        return replace(self, **(self.from_nothing or {}), from_nothing=None).at(self.pairs.size)

    def compared(self) -> Profile:
        """The sizes with which ways to do it are compared, each from nothing."""
        return replace(self.retrained(), **self.comparing)

    def at(self, size: int) -> Profile:
        """The same with pictures of `size` pixels a side. Raises UserError for a size that the networks cannot draw."""
        if (
            size < 32 or size % 16
        ):  # the codec shrinks pictures eight times, and the MM-DiT's patches are 2 latents wide
            raise UserError(
                f"pictures of {size} pixels cannot be drawn: give a multiple of 16 from 32 on, such as 64 or 128"
            )
        return replace(self, pairs=replace(self.pairs, size=size), validation=replace(self.validation, size=size))


PROFILES = {
    "smoke": Profile(
        "smoke",
        pairs=PairsConfig("train", identities=16, images=4),
        validation=PairsConfig("validation", identities=8, images=2),
        codec=dict(latent_channels=16, widths=(16, 32), blocks=(1, 1)),
        codec_steps=30,
        transformer=dict(num_layers=2, attention_head_dim=16, num_attention_heads=2),
        fusion=dict(dim=32, identity_tokens=4, expression_tokens=2, condition_tokens=6, num_layers=1, num_heads=2),
        training=dict(
            batch_size=8,
            warmup_steps=5,
            log_every=5,
            validate_every=20,
            validation_size=8,
            preview_every=20,
            checkpoint_every=20,
        ),
        steps=20,
        sampling_steps=4,
    ),
    "laptop": Profile(
        "laptop",
        pairs=PairsConfig("train", identities=1024, images=12),
        validation=PairsConfig("validation", identities=256, images=8),
        transformer=dict(num_layers=5, attention_head_dim=32, num_attention_heads=5),
        fusion=dict(dim=160),
        # Trained weights move on with small steps, in a run so short that it has to be looked at often.
        training=dict(batch_size=64, learning_rate=3e-4, validate_every=75),
        minutes=5.0,
        from_nothing=dict(
            pairs=PairsConfig("train", identities=8192, images=16),
            references=4,
            codec_steps=1600,
            training=dict(batch_size=32, learning_rate=2e-3, warmup_steps=200, face_weight=3.0),
            minutes=30.0,
        ),
        comparing=dict(
            transformer=dict(num_layers=4, attention_head_dim=32, num_attention_heads=4),
            fusion=dict(dim=128, num_heads=4, condition_tokens=10),  # one for each source
            training=dict(batch_size=32, learning_rate=1e-3, face_weight=3.0),
        ),
    ),
    "gpu": Profile(
        "gpu",
        pairs=PairsConfig("train", identities=16384, images=16),
        validation=PairsConfig("validation", identities=256, images=8),
        codec_steps=6000,
        transformer=dict(num_layers=8, attention_head_dim=64, num_attention_heads=6),
        fusion=dict(dim=384, identity_tokens=8, condition_tokens=32, num_layers=3, num_heads=6),
        references=4,
        training=dict(
            batch_size=256,
            learning_rate=1e-3,
            warmup_steps=500,
            face_weight=3.0,
            checkpoint_every=2000,
            preview_every=2000,
            validate_every=1000,
            log_every=50,
        ),
        minutes=4.0,
    ),
}


def default_profile() -> str:
    """The name in GEN_AFFECT_PROFILE, or what this machine can do."""
    name = os.environ.get("GEN_AFFECT_PROFILE")
    if name:
        return get_profile(name).name
    import torch  # asking for a GPU is the only reason to load it here

    return "gpu" if torch.cuda.is_available() else "laptop"


def get_profile(name: str | None = None) -> Profile:
    """The profile of that name; None takes `default_profile`. Raises UserError for a name that does not exist."""
    name = name or default_profile()
    if name not in PROFILES:
        near = difflib.get_close_matches(name, PROFILES, n=1)
        hint = f"did you mean {near[0]}?" if near else "give one of " + ", ".join(PROFILES)
        raise UserError(f"profile {name!r} does not exist: {hint}")
    return PROFILES[name]
