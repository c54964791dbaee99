"""Pictures of one person with many expressions, drawn by a base with an adapter.

Letters: N expressions, V views of E numbers, G conditions that guidance compares: without a face, and with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gen_affect_lib.errors import UserError
from gen_affect_lib.fullscale.adapter import Adapter, Condition
from gen_affect_lib.fullscale.base import GUIDANCE_SCALE, STEPS, Base, Prompts, SkipLayerGuidance
from gen_affect_lib.fullscale.faces import face_mask
from gen_affect_lib.model.consistent import Consistency
from gen_affect_lib.tensors import to_images


def condition_of(
    adapter: Adapter, identity: Tensor, expressions: Tensor, prompts: Prompts, negative: Prompts | None
) -> Condition:
    """The conditions of N pictures, and before them, if `negative` is given, the same without a face: G·N rows.

    identity: (N, V, E). expressions: (N, 48). prompts, negative: of N pictures.
    """
    count = len(expressions)
    if negative is None:
        return adapter(identity, expressions, prompts.tokens, prompts.pooled)
    keep = torch.arange(2 * count, device=expressions.device) >= count
    return adapter(
        identity.repeat(2, 1, 1),  # (N, V, E) -> (G·N, V, E)
        expressions.repeat(2, 1),
        torch.cat([negative.tokens, prompts.tokens]),
        torch.cat([negative.pooled, prompts.pooled]),
        keep_identity=keep,
        keep_expression=keep,
    )


@torch.no_grad()
def for_diffusers(
    adapter: Adapter, identity: Tensor, expressions: Tensor, prompts: Prompts, negative: Prompts
) -> dict[str, Tensor]:
    """Faces as arguments of diffusers' `StableDiffusion3Pipeline`, for an adapter that is trained with tokens alone.

    The base's own transformer draws with them. If the adapter has a LoRA, give the pipeline
    `parity.to_diffusers(adapter.merge_lora(transformer))`. Arguments as of `condition_of`.

    Raises UserError for an adapter with decoupled attention, which diffusers' transformer does not have.
    """
    if adapter.decoupled is not None:
        raise UserError("decoupled attention has no place in diffusers: train an adapter with --way tokens")
    condition, count = condition_of(adapter, identity, expressions, prompts, negative), len(expressions)
    return {
        "prompt_embeds": condition.text[count:],
        "pooled_prompt_embeds": condition.pooled[count:],
        "negative_prompt_embeds": condition.text[:count],
        "negative_pooled_prompt_embeds": condition.pooled[:count],
    }


@torch.no_grad()
def draw_latents(
    base: Base,
    adapter: Adapter,
    identity: Tensor,
    expressions: Tensor,
    prompts: Prompts,
    noise: Tensor,
    negative: Prompts | None = None,
    steps: int = STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
    **options,
) -> Tensor:
    """Latents (N, K, h, w) of N pictures, each with its own identity (N, V, E), expression (N, 48) and prompt.

    Guidance leads away from pictures without prompt and face. `options` are those of `Base.sample`.
    """
    if guidance_scale == 1:
        negative = None
    elif negative is None:
        negative = base.encode_prompts([""]).repeated(len(noise))
    condition = condition_of(adapter, identity, expressions, prompts, negative)
    split = 0 if negative is None else len(noise)
    without, own = (
        Prompts(condition.text[rows], condition.pooled[rows]) for rows in (slice(split), slice(split, None))
    )
    around = None if condition.faces is None else condition.faces.around
    return base.sample(
        own,
        noise,
        None if negative is None else without,
        steps,
        guidance_scale,
        around=around,
        **options,
    )


def draw_person(
    base: Base,
    adapter: Adapter,
    identity: np.ndarray,
    expressions: np.ndarray,
    prompts: Prompts,
    size: tuple[int, int],
    steps: int = STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
    skip: SkipLayerGuidance | None = None,
    consistency: float | Consistency = 1.0,
    landmarks: np.ndarray | None = None,
    seed: int = 0,
    images_at_once: int | None = None,
) -> list[Image.Image]:
    """One person with N expressions as RGB pictures.

    Args:
        identity: identity tokens float32 (V, E) of the person.
        expressions: representations float32 (N, 48).
        prompts: the negative prompt and the prompt of all pictures, as from `encode_prompts(["", "a person"])`.
        size: width and height in pixels.
        consistency: of the set, as of `GenAffectPipeline`; 0 draws each picture alone.
        landmarks: float (M, 5, 2) as fractions, of pictures framed like these, which give the tokens of eyes and mouth.
            None: those of a drawn portrait.
        seed: of the initial noise.

    Raises UserError for an identity of another recognizer's size, or a size that the base cannot draw.
    """
    expected = adapter.config["identity_views"], adapter.config["identity_dim"]
    if identity.shape != expected:
        raise UserError(
            f"the identity has shape {identity.shape}: give {expected}, from the recognizer of the training"
        )
    width, height = size
    noise = base.noise(len(expressions), height, width, torch.Generator().manual_seed(seed))
    patch = base.config["patch_size"]
    face = None
    if landmarks is not None:
        face = face_mask(landmarks, (noise.shape[2] // patch, noise.shape[3] // patch))
    negative, own = (Prompts(prompts.tokens[n : n + 1], prompts.pooled[n : n + 1]) for n in range(2))
    count, device = len(expressions), noise.device
    latents = draw_latents(
        base,
        adapter,
        torch.from_numpy(identity).to(device).expand(count, -1, -1),
        torch.from_numpy(expressions).to(device),
        own.repeated(count),
        noise,
        negative.repeated(count),
        steps,
        guidance_scale,
        skip=skip,
        consistency=consistency,
        face=face,
        images_at_once=images_at_once,
    )
    return decoded(base, latents)


def decoded(base: Base, latents: Tensor) -> list[Image.Image]:
    """Latents (N, K, h, w) to RGB pictures, decoded one at a time. Raises UserError if they are not finite."""
    pictures: list[Image.Image] = []
    for latent in latents:
        picture = base.decode(latent[None])[0]
        if not picture.isfinite().all():
            raise UserError(f"the pictures are not finite in {base.dtype}: draw with --precision no")
        pictures.append(Image.fromarray(to_images(picture)))
    return pictures


def words_of(entries: Sequence[str]) -> list[str]:
    """What stands under the pictures of words or files."""
    return [entry.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0] for entry in entries]
