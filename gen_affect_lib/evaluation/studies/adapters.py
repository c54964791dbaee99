"""Comparison of ways in which an adapter brings identity and expression into a frozen base that knows neither.

    python -m gen_affect_lib compare adapters --minutes 30

The full-scale path, small: the base is the kit's own MM-DiT, trained to draw avatars without any condition, as long as
an adapter, and saved as a Stable Diffusion 3.5 is, with the kit's codec as its VAE. Adapters are trained over it on the
drawn world and draw people whom neither has seen. Every picture is sampled by `fullscale.base.Base` from that
folder.

- "right": the expression judge's likeliest of the 25 groups is that of the target word.
- "found": among 1,000 people the identity judge finds the person, see `study.Scoring`.

The row "base" is the base without an adapter, which is chance. The guidance scale of each adapter is the one with the
highest right + found on validation people; "right" and "found" are those on the people of the plan. Beside the figures
lies a picture of the first of them.

Letters: N people, W words, M text tokens.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gen_affect_lib.avatars.pairs import PairCache
from gen_affect_lib.avatars.splits import VALIDATION_SEED
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.device import on_device, pick_device, seed_everything
from gen_affect_lib.display import grid
from gen_affect_lib.encoders.expression import read_expression
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.evaluation.metrics.bootstrap import estimate
from gen_affect_lib.evaluation.quality import restore
from gen_affect_lib.evaluation.report import Rows, heading
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.evaluation.studies.study import Scoring, train
from gen_affect_lib.files import write_json
from gen_affect_lib.flow import RectifiedFlow, timestep
from gen_affect_lib.fullscale.adapter import Adapter, add_lora, freeze
from gen_affect_lib.fullscale.base import Base, Prompts
from gen_affect_lib.fullscale.sample import draw_latents
from gen_affect_lib.fullscale.train import AdaptedNetworks
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.parity import to_diffusers
from gen_affect_lib.paths import SHIPPED
from gen_affect_lib.profiles import Profile
from gen_affect_lib.tensors import to_images
from gen_affect_lib.training.generator import Networks
from gen_affect_lib.training.latent_pairs import LatentPairs, Split, cache_split
from gen_affect_lib.training.trainer import Trainer

GUIDANCE = (1.0, 1.5, 2.0, 3.0)
TEXT_TOKENS, TEXT_DIM, POOLED_DIM = 8, 128, 64  # of the base's empty text
FACE_TOKENS = {"condition_tokens": 2, "identity_tokens": 4, "expression_tokens": 2}  # are added to those of the text
STEPS = 12  # of the sampler
SHOWN = 2  # people in the picture


@dataclass(frozen=True)
class Way:
    """An adapter of the comparison: how faces reach the base, and the rank of the base's LoRA."""

    about: str
    way: str
    rank: int = 0


ADAPTERS = {
    "tokens": Way("face tokens in the text", "tokens"),
    "decoupled": Way("a second attention in each block", "decoupled"),
    "both": Way("tokens and a second attention", "both"),
    "lora": Way("tokens, and a LoRA of rank 16 of the base's attention", "tokens", 16),
}


class Unconditional(Networks):
    """The base with an empty text, for the trainer."""

    def forward(self, noisy, sigma, batch, keep_identity, keep_expression):
        return self["model"](noisy, *empty_text(len(noisy), noisy.device), timestep(sigma))


class DrawnPairs(LatentPairs):
    """The drawn pairs with an empty text, as an adapter's batches have one."""

    def batch(self, step: int, batch_size: int) -> dict[str, Tensor]:
        return self._with_text(super().batch(step, batch_size))

    def validation(self, size: int) -> dict[str, Tensor]:
        return self._with_text(super().validation(size))

    @staticmethod
    def _with_text(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        text, pooled = empty_text(len(batch["target"]))
        return batch | {"text": text, "pooled": pooled}


def empty_text(count: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """The text tokens and the pooled text of no text, as `Base.encode_prompts` gives them without text encoders."""
    return torch.zeros(count, TEXT_TOKENS, TEXT_DIM, device=device), torch.zeros(count, POOLED_DIM, device=device)


def compare_adapters(
    profile: Profile,
    plan: Plan,
    minutes: float | None,
    steps: int | None,
    seeds: int,
    names: list[str],
    path: Path,
    folder: Path,
) -> dict:
    """Train the base once, and over it each adapter with each seed; score all. An interrupted call can be resumed.

    Returns the rows that it writes to `path`. A row has "steps", "parameters" (trained ones), "guidance", and "right"
    and "found": counts for each person.
    """
    profile = profile.retrained()
    rows = Rows(path, heading(profile, plan, minutes, steps))
    faces, codec = FacePack(), on_device(LatentCodec.from_pretrained(SHIPPED / "codec"))
    splits = [
        cache_split(PairCache.open(config), codec, faces, profile.references)
        for config in (profile.pairs, profile.validation)
    ]
    base_folder = folder / "base"
    train_base(profile, codec, splits, minutes, steps, folder / "base-run", base_folder)
    score = Scoring(plan)
    if "drawings" not in rows:
        true = plan.true_drawings(size=profile.pairs.size)[:, 0]
        rows.add({"name": "drawings", "about": "the true drawings"} | score(true))
        rows.add({"name": "reconstructed", "about": "what the codec makes of them"} | score(restore(codec, true)))
    if "base" not in rows:
        images = generate(Base(base_folder, torch.float32, pick_device()), None, faces, plan, 1.0)
        np.save(folder / "base.npy", images[:SHOWN])
        rows.add({"name": "base", "about": "the base without an adapter"} | score(images))
    chosen_on = dataclasses.replace(plan, first_person=VALIDATION_SEED)
    try_score: Scoring | None = None
    for seed, name in rows.missing(names, seeds):
        base = Base(base_folder, torch.float32, pick_device())
        adapter, row = train_adapter(
            profile, base.transformer, splits, ADAPTERS[name], seed, minutes, steps, folder / f"{name}-{seed}"
        )
        try_score = try_score or Scoring(chosen_on)
        tried = {scale: _total(try_score(generate(base, adapter, faces, chosen_on, scale))) for scale in GUIDANCE}
        guidance = max(tried, key=lambda scale: tried[scale])
        images = generate(base, adapter, faces, plan, guidance)
        if seed == 0:
            np.save(folder / f"{name}.npy", images[:SHOWN])
        about = {"name": name, "about": ADAPTERS[name].about, "seed": seed, "guidance": guidance}
        rows.add(about | row | {"tried": {str(scale): total for scale, total in tried.items()}} | score(images))
    shown = {name: folder / f"{name}.npy" for name in ("base", *ADAPTERS)}
    pictures = {name: np.load(file) for name, file in shown.items() if file.is_file()}
    if pictures:  # none, if the rows come from another folder
        sheet(plan, pictures).save(path.with_suffix(".jpg"), quality=85)
    return rows.save()


def sheet(plan: Plan, pictures: dict[str, np.ndarray]) -> Image.Image:
    """The first people: each way's pictures, from (N, W, S, S, 3), in a row, and the reference beside the first row."""
    tiles, names = [], []
    for person in range(min(map(len, pictures.values()))):
        for number, (name, images) in enumerate(pictures.items()):
            tiles += [None if number else plan.references[person], *images[person]]
            names.append(name)
    titles, side = ["reference", *plan.target_words], next(iter(pictures.values())).shape[2]
    return grid(tiles, titles, columns=len(titles), row_titles=names, tile=side)


def _total(scored: dict[str, list[int]]) -> int:
    return sum(scored["right"]) + sum(scored["found"])


def train_base(
    profile: Profile,
    codec: LatentCodec,
    splits: list[Split],
    minutes: float | None,
    steps: int | None,
    run: Path,
    folder: Path,
) -> None:
    """Train a base that draws without a condition, and save it; nothing is done if it is there."""
    if (folder / "model_index.json").is_file():
        return
    seed_everything(0)
    base = MMDiT(
        sample_size=codec.latent_size(profile.pairs.size),
        in_channels=codec.latent_channels,
        joint_attention_dim=TEXT_DIM,
        pooled_projection_dim=POOLED_DIM,
        **vars(profile.transformer),
    )
    config = dataclasses.replace(profile.training, seed=0, preview_every=10**6, steps=None, minutes=None)
    pairs = LatentPairs(splits[0], splits[1], 0)
    trainer = Trainer(
        config, on_device(base), nn.Identity(), RectifiedFlow(), pairs, run, marks={"codec": codec.mark},
        networks=Unconditional,
    )  # fmt: skip
    train(trainer, steps, minutes)
    save_base(base, codec, folder)


def save_base(base: MMDiT, codec: LatentCodec, folder: Path) -> None:
    """Write a base in the layout of Stable Diffusion 3.5, without text encoders and with the kit's codec as its VAE."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    to_diffusers(base).save_pretrained(folder / "transformer")
    codec.save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=1.0).save_pretrained(folder / "scheduler")
    nothing = {f"{kind}{number}": [None, None] for kind in ("text_encoder", "tokenizer") for number in ("", "_2", "_3")}
    index = {
        "_class_name": "StableDiffusion3Pipeline",
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": ["gen_affect_lib.codec", "LatentCodec"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_tokens": TEXT_TOKENS,
    }
    write_json(folder / "model_index.json", index | nothing)


def train_adapter(
    profile: Profile,
    base: MMDiT,
    splits: list[Split],
    way: Way,
    seed: int,
    minutes: float | None,
    steps: int | None,
    folder: Path,
) -> tuple[Adapter, dict]:
    """Train an adapter, or resume it in `folder`; returns it with averaged weights, and what a row says of it."""
    seed_everything(seed)
    freeze(base)
    views, numbers = splits[0].identities.shape[1:]
    sizes = dict(vars(profile.fusion), identity_views=views, identity_dim=numbers) | FACE_TOKENS
    sizes |= {"fusion_layers": sizes.pop("num_layers"), "fusion_heads": sizes.pop("num_heads")}
    adapter = Adapter.for_base(base, way=way.way, **sizes)
    if way.rank:
        add_lora(base, way.rank)
    config = dataclasses.replace(profile.training, seed=seed, preview_every=10**6, steps=None, minutes=None)
    trainer = Trainer(
        config, base, on_device(adapter), RectifiedFlow(), DrawnPairs(splits[0], splits[1], seed), folder,
        networks=AdaptedNetworks,
    )  # fmt: skip
    row = train(trainer, steps, minutes)
    return adapter.eval(), row


@torch.inference_mode()
def generate(
    base: Base, adapter: Adapter | None, faces: FacePack, plan: Plan, guidance: float, batch_size: int = 64
) -> np.ndarray:
    """The pictures of a plan, each from its own noise: uint8 (N, W, S, S, 3); the noise depends on the person only."""
    base.transformer.eval()
    tokens = np.stack([faces.one(reference, "largest").tokens for reference in plan.references])
    identities = torch.from_numpy(tokens).float().repeat_interleave(plan.words, 0)  # (N, V, E) -> (N·W, V, E)
    words = np.concatenate([read_expression(word).representation for word in plan.target_words])
    expressions = torch.from_numpy(words).repeat(plan.people, 1)  # (N·W, 48)
    side = base.config["sample_size"]
    shape = (plan.words, base.config["in_channels"], side, side)
    noise = torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in plan.person_seeds])
    parts = []
    for part in torch.arange(len(noise)).split(batch_size):
        identity, shown, start = (x[part].to(base.device) for x in (identities, expressions, noise))
        prompts = Prompts(*empty_text(len(part), base.device))
        if adapter is None:
            latents = base.sample(prompts, start, steps=STEPS, guidance_scale=1)
        else:
            latents = draw_latents(
                base, adapter, identity, shown, prompts, start, prompts, steps=STEPS, guidance_scale=guidance
            )
        parts.append(to_images(base.decode(latents)))
    return np.concatenate(parts).reshape(plan.people, plan.words, *parts[0].shape[1:])  # (N·W, …) -> (N, W, …)


def shares(row: dict, words: int, draws: int = 500) -> dict[str, dict[str, float]]:
    """The shares right and found of a row, with 95 % intervals over people."""
    counts = {name: np.array(row[name]) / words for name in ("right", "found")}
    return {
        name: estimate(lambda people: float(some[people].mean()), len(some), draws) for name, some in counts.items()
    }


def say(result: dict) -> str:
    """The rows as text."""
    lines = []
    for row in result["rows"]:
        figures = shares(row, len(result["words"]))
        said = ", ".join(f"{name} {f['value']:.3f} [{f['low']:.3f}, {f['high']:.3f}]" for name, f in figures.items())
        cost = f", {row['parameters'] / 1e6:.2f} M trained, guidance {row['guidance']:g}" if "guidance" in row else ""
        lines.append(f"{row['name']:14}" + (f" seed {row['seed']}" if "seed" in row else "") + f": {said}{cost}")
    return "\n".join(lines)
