"""Three profiles of data, networks and training: `smoke` (seconds), `laptop` (two CPU cores) and `gpu` (one GPU)."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace

from gen_affect_lib.avatars.pairs import PairsConfig
from gen_affect_lib.errors import UserError
from gen_affect_lib.recipe import TrainingConfig


@dataclass(frozen=True)
class CodecSizes:
    """Sizes of `LatentCodec`: channels of the latents; channels and residual blocks at 1/4 and 1/8 of the side."""

    latent_channels: int
    widths: tuple[int, int]
    blocks: tuple[int, int]


@dataclass(frozen=True)
class TransformerSizes:
    """Sizes of `MMDiT`, with diffusers' names."""

    num_layers: int
    attention_head_dim: int
    num_attention_heads: int


@dataclass(frozen=True)
class FusionSizes:
    """Sizes of `IdentityExpressionFusion`."""

    dim: int
    identity_tokens: int
    expression_tokens: int
    condition_tokens: int
    num_layers: int
    num_heads: int


@dataclass(frozen=True)
class Profile:
    """The sizes of data and networks, and how the generator is trained.

    Attributes:
        pairs, validation: the drawn pairs to train on and to validate on.
        references: number of pictures of each person that can be references; the face pack reads each once.
        codec, transformer, fusion: sizes of the networks.
        codec_steps: steps of the autoencoder's training.
        training: training settings and time limit of the generator.
        sampling_steps: Euler steps of the pipeline.
        identity_scale, expression_scale: guidance scales, chosen on validation people, see the model card.
        from_nothing: None: this profile trains from random weights. Otherwise this profile starts from the shipped
            checkpoint, and `from_nothing` is the profile that trains from random weights.
        study: the profile for comparing variants, whose networks train within minutes; None: `retrained()`.
    """

    name: str
    pairs: PairsConfig
    validation: PairsConfig
    codec: CodecSizes
    transformer: TransformerSizes
    fusion: FusionSizes
    training: TrainingConfig
    references: int = 2
    codec_steps: int = 2200
    sampling_steps: int = 20
    identity_scale: float = 1.5
    expression_scale: float = 2.0
    from_nothing: Profile | None = None
    study: Profile | None = None

    def retrained(self) -> Profile:
        """The profile that trains from random weights, at this picture size."""
        return (self.from_nothing or self).at(self.pairs.size)

    def compared(self) -> Profile:
        """The profile for comparing variants, each trained from random weights, at this picture size."""
        return (self.study or self.retrained()).at(self.pairs.size)

    def at(self, size: int) -> Profile:
        """The same with pictures of `size` pixels a side. Raises UserError if it is below 32 or no multiple of 16."""
        if size < 32 or size % 16:  # the codec divides the side by 8, and the MM-DiT's patches have 2 x 2 latents
            raise UserError(
                f"pictures of {size} pixels cannot be generated: give a multiple of 16 from 32 on, such as 64 or 128"
            )
        return replace(self, pairs=replace(self.pairs, size=size), validation=replace(self.validation, size=size))


_SMOKE = Profile(
    "smoke",
    pairs=PairsConfig("train", identities=16, images=4),
    validation=PairsConfig("validation", identities=8, images=2),
    codec=CodecSizes(latent_channels=16, widths=(16, 32), blocks=(1, 1)),
    codec_steps=30,
    transformer=TransformerSizes(num_layers=2, attention_head_dim=16, num_attention_heads=2),
    fusion=FusionSizes(dim=32, identity_tokens=4, expression_tokens=2, condition_tokens=6, num_layers=1, num_heads=2),
    training=TrainingConfig(
        batch_size=8,
        warmup_steps=5,
        steps=20,
        log_every=5,
        validate_every=20,
        validation_size=8,
        preview_every=20,
        checkpoint_every=20,
    ),
    sampling_steps=4,
)

# The shipped checkpoint has the sizes of this profile.
_LAPTOP_FROM_NOTHING = Profile(
    "laptop",
    pairs=PairsConfig("train", identities=8192, images=16),
    validation=PairsConfig("validation", identities=256, images=8),
    references=4,
    codec=CodecSizes(latent_channels=16, widths=(64, 128), blocks=(1, 3)),
    codec_steps=1600,
    transformer=TransformerSizes(num_layers=5, attention_head_dim=32, num_attention_heads=5),
    fusion=FusionSizes(dim=160, identity_tokens=6, expression_tokens=4, condition_tokens=16, num_layers=2, num_heads=5),
    training=TrainingConfig(batch_size=32, learning_rate=2e-3, warmup_steps=200, face_weight=3.0, minutes=30.0),
)

_LAPTOP = replace(
    _LAPTOP_FROM_NOTHING,
    pairs=PairsConfig("train", identities=1024, images=12),
    references=2,
    # Trained weights need a small learning rate. The run is short, so it is validated often.
    training=TrainingConfig(batch_size=64, learning_rate=3e-4, validate_every=75, minutes=5.0),
    from_nothing=_LAPTOP_FROM_NOTHING,
    study=replace(
        _LAPTOP_FROM_NOTHING,
        transformer=TransformerSizes(num_layers=4, attention_head_dim=32, num_attention_heads=4),
        fusion=FusionSizes(
            dim=128, identity_tokens=6, expression_tokens=4, condition_tokens=10, num_layers=2, num_heads=4
        ),
        training=TrainingConfig(batch_size=32, learning_rate=1e-3, face_weight=3.0),
    ),
)

_GPU = Profile(
    "gpu",
    pairs=PairsConfig("train", identities=16384, images=16),
    validation=PairsConfig("validation", identities=256, images=8),
    references=4,
    codec=CodecSizes(latent_channels=16, widths=(64, 128), blocks=(1, 3)),
    codec_steps=6000,
    transformer=TransformerSizes(num_layers=8, attention_head_dim=64, num_attention_heads=6),
    fusion=FusionSizes(dim=384, identity_tokens=8, expression_tokens=4, condition_tokens=32, num_layers=3, num_heads=6),
    training=TrainingConfig(
        batch_size=256,
        learning_rate=1e-3,
        warmup_steps=500,
        face_weight=3.0,
        minutes=4.0,
        log_every=50,
        validate_every=1000,
        preview_every=2000,
        checkpoint_every=2000,
    ),
)

PROFILES = {profile.name: profile for profile in (_SMOKE, _LAPTOP, _GPU)}


def default_profile() -> str:
    """The name in the environment variable GEN_AFFECT_PROFILE; without it, `gpu` where there is CUDA, else `laptop`."""
    name = os.environ.get("GEN_AFFECT_PROFILE")
    if name:
        return get_profile(name).name
    import torch  # needed only to look for a GPU

    return "gpu" if torch.cuda.is_available() else "laptop"


def get_profile(name: str | None = None) -> Profile:
    """The profile of that name; None means `default_profile()`. Raises UserError for a name that does not exist."""
    name = name or default_profile()
    if name not in PROFILES:
        near = difflib.get_close_matches(name, PROFILES, n=1)
        hint = f"did you mean {near[0]}?" if near else "give one of " + ", ".join(PROFILES)
        raise UserError(f"profile {name!r} does not exist: {hint}")
    return PROFILES[name]
