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
    """Sizes of `LatentCodec`, with its names. The defaults are those of the shipped checkpoint."""

    latent_channels: int = 16
    encoder_widths: tuple[int, ...] = (64, 96, 128)
    encoder_blocks: tuple[int, ...] = (1, 2, 2)
    decoder_widths: tuple[int, ...] = (176, 128, 96, 48)
    decoder_blocks: tuple[int, ...] = (3, 3, 3, 2)


@dataclass(frozen=True)
class TransformerSizes:
    """Sizes of `MMDiT`, with diffusers' names. The defaults are those of the shipped checkpoint."""

    num_layers: int = 7
    attention_head_dim: int = 32
    num_attention_heads: int = 6
    patch_size: int = 1


@dataclass(frozen=True)
class FusionSizes:
    """Sizes of `IdentityExpressionFusion`. The defaults are those of the shipped checkpoint."""

    dim: int = 192
    identity_tokens: int = 6
    expression_tokens: int = 4
    condition_tokens: int = 10
    num_layers: int = 2
    num_heads: int = 6
    fusion: str = "fused_and_exact"


@dataclass(frozen=True)
class Profile:
    """The sizes of data and networks, and how the generator is trained.

    Attributes:
        pairs, validation: the drawn pairs to train on and to validate on.
        references: number of pictures of each person that can be references; the face pack reads each once.
        codec, transformer, fusion: sizes of the networks.
        codec_steps: steps of the autoencoder's training.
        generated_latents, decoder_steps, decoder_batch: of the decoder's last training, see `training/finishing.py`.
        refiner_pictures, refiner_steps: of the refiner's training, see `training/refiner.py`.
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
    training: TrainingConfig
    codec: CodecSizes = CodecSizes()
    transformer: TransformerSizes = TransformerSizes()
    fusion: FusionSizes = FusionSizes()
    references: int = 2
    codec_steps: int = 2200
    generated_latents: int = 8192
    decoder_steps: int = 800
    decoder_batch: int = 16
    refiner_pictures: int = 8192
    refiner_steps: int = 2600
    sampling_steps: int = 8
    identity_scale: float = 1.5
    expression_scale: float = 1.5
    from_nothing: Profile | None = None
    study: Profile | None = None

    def retrained(self) -> Profile:
        """The profile that trains from random weights, at this picture size."""
        return (self.from_nothing or self).at(self.pairs.size)

    def compared(self) -> Profile:
        """The profile for comparing variants, each trained from random weights."""
        return self.study or self.retrained()

    def at(self, size: int) -> Profile:
        """The same with pictures of `size` pixels a side. Raises UserError if it is below 32 or no multiple of 16."""
        if size < 32 or size % 16:  # the codec divides the side by 16
            raise UserError(
                f"pictures of {size} pixels cannot be generated: give a multiple of 16 from 32 on, such as 64 or 128"
            )
        return replace(self, pairs=replace(self.pairs, size=size), validation=replace(self.validation, size=size))


_SMOKE = Profile(
    "smoke",
    pairs=PairsConfig("train", identities=16, images=4, size=64),
    validation=PairsConfig("validation", identities=8, images=2, size=64),
    codec=CodecSizes(16, (16, 16, 32), (1, 1, 1), (32, 32, 16, 16), (1, 1, 1, 1)),
    codec_steps=10,
    generated_latents=32,
    decoder_steps=20,
    decoder_batch=8,
    refiner_pictures=32,
    refiner_steps=20,
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
    pairs=PairsConfig("train", identities=4096, images=12, size=128),
    validation=PairsConfig("validation", identities=256, images=8, size=128),
    references=2,
    codec_steps=800,
    training=TrainingConfig(batch_size=32, learning_rate=2e-3, warmup_steps=200, face_weight=3.0, minutes=30.0),
)

_LAPTOP = replace(
    _LAPTOP_FROM_NOTHING,
    pairs=PairsConfig("train", identities=1024, images=12, size=128),
    # Trained weights need a small learning rate. The run is short, so it is validated often.
    training=TrainingConfig(batch_size=64, learning_rate=3e-4, validate_every=20, minutes=5.0),
    from_nothing=_LAPTOP_FROM_NOTHING,
    study=Profile(
        "study",
        pairs=PairsConfig("train", identities=4096, images=16, size=64),
        validation=PairsConfig("validation", identities=256, images=8, size=64),
        codec=CodecSizes(16, (48, 64, 96), (1, 2, 2), (128, 96, 64, 32), (2, 2, 2, 1)),
        codec_steps=700,
        transformer=TransformerSizes(num_layers=4, num_attention_heads=3),
        fusion=FusionSizes(dim=96, num_heads=3, condition_tokens=6),
        training=TrainingConfig(batch_size=64, learning_rate=2e-3, face_weight=3.0, ema_decay=0.995),
    ),
)

_GPU = Profile(
    "gpu",
    pairs=PairsConfig("train", identities=16384, images=12, size=128),
    validation=PairsConfig("validation", identities=256, images=8, size=128),
    codec_steps=6000,
    generated_latents=110_592,
    decoder_steps=4600,
    decoder_batch=128,
    transformer=TransformerSizes(num_layers=8, num_attention_heads=8),
    fusion=FusionSizes(dim=256, num_heads=8),
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
