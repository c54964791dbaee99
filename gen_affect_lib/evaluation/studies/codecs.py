"""Comparison of autoencoders, trained equally long from random weights: errors of pixels and of expressions.

python -m gen_affect_lib compare codecs --minutes 3 --seeds 2
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gen_affect_lib.avatars.pairs import PairCache
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.device import on_device, seed_everything
from gen_affect_lib.evaluation.figures import Judgements, expression_figures
from gen_affect_lib.evaluation.judges.networks import both_judges
from gen_affect_lib.evaluation.metrics.bootstrap import ratio
from gen_affect_lib.evaluation.quality import restore
from gen_affect_lib.evaluation.report import heading, intervals, read_rows, write_rows
from gen_affect_lib.evaluation.rivals.kl_codec import KLCodec, fit_kl_codec
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.profiles import Profile
from gen_affect_lib.training.codec import CODEC_RECIPE, fit_codec
from gen_affect_lib.training.perceptual import PerceptualLoss


def autoencoder_kl(widths: tuple[int, ...] = (32, 56, 80, 104, 136), latent_channels: int = 16) -> KLCodec:
    """diffusers' `AutoencoderKL` with the interface of `codec.py`: convolutions at 1, 1/2, …, 1/16 of the side."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    vae = AutoencoderKL(  # its annotations allow one block only
        down_block_types=("DownEncoderBlock2D",) * len(widths),  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * len(widths),  # pyright: ignore[reportArgumentType]
        block_out_channels=widths,  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=latent_channels,
    )
    assert vae.quant_conv is not None and vae.post_quant_conv is not None
    codec = KLCodec(latent_channels)
    codec.start_narrow(vae.quant_conv)
    codec.encoder = nn.Sequential(vae.encoder, vae.quant_conv)
    codec.decoder = nn.Sequential(vae.post_quant_conv, vae.decoder)
    codec.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (not among torch's overloads)
    return codec


CODECS = {
    "ours": ("unit variance, noise on the latents", LatentCodec, fit_codec),
    "kl": ("ours with a KL term instead of noise", KLCodec, fit_kl_codec),
    "autoencoder_kl": ("diffusers' AutoencoderKL, as many parameters", autoencoder_kl, fit_kl_codec),
    "8_channels": ("ours with 8 latent channels", lambda: LatentCodec(latent_channels=8), fit_codec),
}


def compare_codecs(
    profile: Profile, plan: Plan, minutes: float | None, steps: int | None, seeds: int, names: list[str], path: Path
) -> dict:
    """Train each autoencoder with each seed for `minutes` or `steps`, and score its reconstructions of true drawings.

    Returns the rows that it writes to `path`. They have the "mse" of pixels in [-1, 1] and the judge's
    "expression_error" of the reconstructions.
    """
    profile = profile.retrained()
    pictures, judges = PairCache.open(profile.pairs).flat_images, both_judges()
    true = plan.true_drawings()
    about = heading(profile, plan, minutes, steps)
    rows = read_rows(path, about)

    def keep(row: dict, restored: np.ndarray) -> None:
        rows.append(row | scored(restored, true, plan, judges))
        write_rows(path, rows, about)

    if not any(row["name"] == "drawings" for row in rows):
        keep({"name": "drawings", "about": "the true drawings themselves", "seed": 0}, true)
    for seed in range(seeds):
        for name in names:
            if any((row["name"], row["seed"]) == (name, seed) for row in rows):
                continue
            phrase, make, fit = CODECS[name]
            seed_everything(seed)
            codec, begin = on_device(make()), time.monotonic()
            recipe = replace(CODEC_RECIPE, steps=steps, minutes=minutes, seed=seed)
            taken = len(fit(codec, pictures, recipe, PerceptualLoss(codec.device)))
            row = {
                "name": name,
                "about": phrase,
                "seed": seed,
                "steps": taken,
                "parameters": sum(p.numel() for p in codec.parameters()),
                "images_per_second": round(recipe.batch_size * taken / (time.monotonic() - begin), 1),
            }
            keep(row, restore(codec, true))
    return write_rows(path, rows, about)


def scored(restored: np.ndarray, true: np.ndarray, plan: Plan, judges) -> dict:
    """Mean squared error and the judge's figures of restored pictures (N, S, W, P, P, 3)."""
    words, vectors = plan.targets()
    figures = expression_figures(Judgements(judges, restored), words, vectors)
    figures["mse"] = ratio(((restored / 127.5 - true / 127.5) ** 2).mean(axis=(2, 3, 4, 5)))
    names = ("mse", "expression_error", "expression_top1_25")
    return {"figures": intervals({name: figures[name] for name in names}, plan.people, digits=5)}
