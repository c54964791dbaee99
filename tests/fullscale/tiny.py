"""A tiny base, an adapter for it, and a folder of drawn faces that counts as photographs."""

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.folder import write_folder
from gen_affect_lib.encoders.pack import FOLDER
from gen_affect_lib.fullscale.adapter import Adapter, freeze
from gen_affect_lib.fullscale.faces import meaning_by, open_faces
from gen_affect_lib.fullscale.prepare import Prepared, Settings, prepare
from gen_affect_lib.fullscale.train import AdapterSizes, make_adapter, make_trainer
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.recipe import TrainingConfig

WORDS = ("neutral", "joy", "anger")
SIZES = dict(
    sample_size=8,
    patch_size=2,
    in_channels=4,
    num_layers=3,
    attention_head_dim=8,
    num_attention_heads=2,
    joint_attention_dim=20,
    pooled_projection_dim=12,
    pos_embed_max_size=12,
    dual_attention_layers=(0,),
)


def tiny_base(std: float = 0.1, **sizes) -> MMDiT:
    """A base in which no weight is zero, frozen."""
    torch.manual_seed(0)
    base = MMDiT(**SIZES | sizes)
    for name, parameter in base.named_parameters():
        if "norm_" in name and parameter.ndim == 1 and "linear" not in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=std)
    freeze(base)
    return base.eval()


def tiny_adapter(base: MMDiT, way: str = "both", **sizes) -> Adapter:
    torch.manual_seed(1)
    return Adapter.for_base(base, way=way, dim=16, fusion_heads=2, identity_dim=512, **sizes)


def opened(adapter: nn.Module, std: float = 0.2) -> nn.Module:
    """The adapter with no weight at zero, as after a training."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(std * torch.randn_like(parameter))
    return adapter


def inputs(base: MMDiT, count: int = 2, tokens: int = 24) -> dict[str, torch.Tensor]:
    """What a base and an adapter take, under the names of `Adapter.forward` and of the batches."""
    c, generator = base.config, torch.Generator().manual_seed(3)
    shapes = {
        "target": (c["in_channels"], c["sample_size"], c["sample_size"]),
        "identity": (1, 512),
        "expression": (48,),
        "text": (tokens, c["joint_attention_dim"]),
        "pooled": (c["pooled_projection_dim"],),
    }
    return {name: torch.randn(count, *shape, generator=generator) for name, shape in shapes.items()}


class TinyBase:
    """The interface of `fullscale.base.Base`: averages pixels, and writes the letters of a prompt as numbers."""

    def __init__(self, transformer: MMDiT | None = None, factor: int = 8):
        self.transformer, self.factor = transformer, factor
        self.encoded, self.prompts = 0, []

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        self.encoded += len(pictures)
        small = nn.functional.avg_pool2d(pictures, self.factor)
        return torch.cat([small, small.mean(dim=1, keepdim=True)], dim=1)  # (B, 4, h, w)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(latents[:, :3], scale_factor=self.factor)

    def encode_prompts(self, prompts: list[str]) -> SimpleNamespace:
        self.prompts += prompts
        rows = [[ord(letter) / 100 for letter in prompt.ljust(24)[:24]] for prompt in prompts]
        tokens = torch.tensor(rows)[:, :, None] * torch.linspace(-1, 1, SIZES["joint_attention_dim"])
        return SimpleNamespace(tokens=tokens, pooled=tokens.mean(dim=1)[:, : SIZES["pooled_projection_dim"]])


def write_faces(folder: Path, people: int = 3, size: int = 96) -> Path:
    avatars = [
        (f"person{n}", word, Avatar(Identity.sample(n), Expression.named(word), Appearance.sample(10 * n + k)))
        for n in range(people)
        for k, word in enumerate(WORDS)
    ]
    return write_folder(avatars, folder, size)


def prepared(folder: Path, people: int = 3, base: TinyBase | None = None, **options) -> Prepared:
    """Drawn faces of 64 pixels, prepared by a tiny base: latents of 4 x 8 x 8."""
    data = folder / "faces"
    if not data.is_dir():
        write_faces(data, people)
    faces = open_faces(FOLDER, accepted=False)
    settings = Settings((64, 64))
    return prepare(base or TinyBase(), "tiny", data, faces, meaning_by(None), folder / "prepared", settings, **options)


class RandomPairs:
    """Batches of random numbers, which depend on the step only: `training.generator.Data`."""

    def __init__(self, base: MMDiT):
        self.base = base

    def batch(self, step: int, batch_size: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(step)
        return {n: torch.randn(x.shape, generator=generator) for n, x in inputs(self.base, batch_size).items()}

    def validation(self, size: int) -> dict[str, torch.Tensor]:
        return self.batch(10**6, size)


def tiny_trainer(folder: Path, way: str = "both", rank: int = 0, data=None, **config):
    """A trainer that is the same each time."""
    base = tiny_base()
    torch.manual_seed(1)
    adapter = make_adapter(base, AdapterSizes(way, width=16, rank=rank))
    settings = dict(batch_size=4, warmup_steps=2, learning_rate=1e-2, log_every=2, validate_every=4, validation_size=4)
    settings |= dict(preview_every=1000, checkpoint_every=3)
    config = TrainingConfig(**settings | config)
    return make_trainer(base, adapter, data or RandomPairs(base), config, folder, {"base": "tiny"})
