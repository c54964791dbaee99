"""Stable Diffusion 3.5 from a folder in diffusers' layout, with the kit's MM-DiT in the middle: text in, pictures out.

diffusers and transformers load and run what the course does not build: the text encoders and the VAE. The MM-DiT, the
sampler, guidance and consistent attention are the kit's own. With the same noise, the pictures are those of diffusers'
`StableDiffusion3Pipeline`.

Letters: N images, G conditions that guidance compares, M text tokens of T channels, P channels of the pooled text,
K channels of the latents, h and w their height and width, H and W those of the pictures in pixels, B = G·N.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.errors import UserError
from gen_affect_lib.flow import guide_one, sample, schedule, timestep
from gen_affect_lib.model.attention import JointAttention, joint_attention
from gen_affect_lib.model.consistent import AnchorBank, Consistency, SharedStep, as_consistency
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.parity import load_diffusers, stored_dtype, transformer_config, transformer_folder
from gen_affect_lib.tensors import to_images

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

T5_TOKENS = 256  # diffusers' default length of the third text encoder's prompt; the two CLIPs add 77
GUIDANCE_SCALE, STEPS = 4.5, 28  # recommended by Stability AI for SD3.5 medium and large

# Puts an attention around another one, for the rows (B,) of the batch of all images under all conditions.
Around = Callable[[JointAttention, Tensor], JointAttention]


class Prompts(NamedTuple):
    """Embeddings of N prompts: text tokens (N, M, T) and pooled text (N, P)."""

    tokens: Tensor
    pooled: Tensor

    def repeated(self, count: int) -> Prompts:
        """One prompt for `count` images."""
        return Prompts(self.tokens.expand(count, -1, -1), self.pooled.expand(count, -1))


@dataclass(frozen=True)
class SkipLayerGuidance:
    """Guidance away from the network without some of its blocks; improves anatomy in SD3.5 medium.

    The velocity gets + scale · (c - s), of the conditional velocity c and the same without the layers, s. The defaults
    are those that Stability AI recommends for SD3.5 medium.

    Attributes:
        layers: indices of the blocks that are left out.
        scale: its weight.
        start, stop: it is used in the steps strictly between these fractions of all steps.
    """

    layers: Sequence[int] = (7, 8, 9)
    scale: float = 2.8
    start: float = 0.01
    stop: float = 0.2

    def sigmas(self, sigmas: Tensor) -> set[float]:
        """The sigmas of the steps in which it is used, of a schedule (steps + 1,)."""
        steps = len(sigmas) - 1
        return {sigmas[i].item() for i in range(steps) if steps * self.start < i < steps * self.stop}


class Base:
    """The parts of a Stable Diffusion 3.5, each loaded when it is first used.

    Args:
        folder: a pipeline's folder in diffusers' layout.
        dtype: of the weights; None: as the transformer's are stored.
        device: of transformer and VAE.
        text_device: of the text encoders, which are large (T5 has 4.8 billion parameters) and used once a prompt; None:
            the CPU.
        variant: of the files of weights, as in "fp16"; see `parity.load_diffusers`.

    Raises UserError if the folder holds no Stable Diffusion 3.5.
    """

    def __init__(
        self,
        folder: str | Path,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        text_device: torch.device | str = "cpu",
        variant: str | None = None,
    ):
        self.folder = Path(folder).expanduser()
        place = transformer_folder(self.folder)
        if place.parent != self.folder or not (self.folder / "model_index.json").is_file():
            raise UserError(f"{folder} is only a transformer: give the folder above, with model_index.json and vae/")
        self.config = transformer_config(place)
        if self.config["qk_norm"] is None:
            raise UserError(f"{folder} is a Stable Diffusion 3.0, without norms of queries and keys: give a 3.5")
        self.index: dict[str, Any] = json.loads((self.folder / "model_index.json").read_text())
        self.device, self.text_device = torch.device(device), torch.device(text_device)
        self.dtype, self.variant = dtype or stored_dtype(place, variant), variant

    # The parts

    @cached_property
    def transformer(self) -> MMDiT:
        return load_diffusers(self.folder, self.dtype, self.device, self.variant)

    @cached_property
    def vae(self) -> AutoencoderKL | LatentCodec:
        """diffusers' VAE, or the kit's codec if the folder has one."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        folder = self.folder / "vae"
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} is missing: a base needs its VAE, download it again")
        kind = json.loads((folder / "config.json").read_text()).get("_class_name")
        classes = {"AutoencoderKL": AutoencoderKL, "LatentCodec": LatentCodec}
        if kind not in classes:
            raise UserError(f"{folder} holds a {kind}: give a base with an AutoencoderKL")
        options: dict[str, Any] = {} if self.variant is None else {"variant": self.variant}
        vae: Any = classes[kind].from_pretrained(folder, dtype=self.dtype, local_files_only=True, **options)
        return vae.to(self.device).eval().requires_grad_(False)

    @cached_property
    def text(self):
        """diffusers' pipeline with the text encoders only; None if the base has none."""
        from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline

        if all(self.index.get(name, [None])[0] is None for name in ("text_encoder", "text_encoder_2")):
            return None
        options: dict[str, Any] = {} if self.variant is None else {"variant": self.variant}
        pipeline: Any = StableDiffusion3Pipeline.from_pretrained(
            self.folder, transformer=None, vae=None, dtype=self.dtype, local_files_only=True, **options
        )
        return pipeline.to(self.text_device)

    def drop_text(self) -> None:
        """Free the memory of the text encoders; they are loaded again when they are needed."""
        self.__dict__.pop("text", None)

    def compile(self, **options) -> None:
        """Compile the transformer, each evaluation in one graph; `options` are those of torch.compile.

        Consistent attention, skipped layers and the noise level make several kinds of evaluations: up to 16 graphs, but
        no more with more steps. torch.compile gives up at 8, so its limit is raised.
        """
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 32)
        self.transformer.compile(fullgraph=True, **options)

    @property
    def shift(self) -> float:
        """Of the schedule, as the folder's scheduler says."""
        return self._scheduler.get("shift", 1.0)

    @cached_property
    def _scheduler(self) -> dict:
        path = self.folder / "scheduler" / "scheduler_config.json"
        if not path.is_file():
            raise UserError(f"{path} is missing: download the base again")
        scheduler = json.loads(path.read_text())
        if scheduler.get("use_dynamic_shifting"):
            raise UserError(f"{path} asks for dynamic shifting, which no Stable Diffusion 3.5 has: check the base")
        return scheduler

    @cached_property
    def licence(self) -> str:
        """The licence that the base's README.md names, or that it names none."""
        readme = self.folder / "README.md"
        text = readme.read_text(errors="replace")[:5000] if readme.is_file() else ""
        named = dict(re.findall(r"^(license(?:_name|_link)?): *(\S.*)$", text, re.MULTILINE))
        name = named.get("license_name") or named.get("license")
        if name is None:
            return "no licence is named in the base's README.md: read it where you got the base"
        return f"{name} ({named['license_link']})" if "license_link" in named else name

    @property
    def downscale(self) -> int:
        """Pixels of a picture for each of a latent."""
        if isinstance(self.vae, LatentCodec):
            return 16
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    # Text and pictures to what the transformer reads, and back

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Prompts:
        """Text tokens (N, M, T), M = 77 + 256, and pooled text (N, P), on the transformer's device.

        A base without text encoders gets zeros, M from `text_tokens` in its model_index.json.
        """
        if isinstance(prompts, str):
            raise UserError(f"prompts is the text {prompts!r:.40}: give a list of texts")
        if self.text is None:
            M = self.index.get("text_tokens", 77 + T5_TOKENS)
            tokens = torch.zeros(len(prompts), M, self.config["joint_attention_dim"])
            pooled = torch.zeros(len(prompts), self.config["pooled_projection_dim"])
        else:
            tokens, _, pooled, _ = self.text.encode_prompt(
                list(prompts), "", "", do_classifier_free_guidance=False, max_sequence_length=T5_TOKENS
            )
        return Prompts(tokens.to(self.device, self.dtype), pooled.to(self.device, self.dtype))

    @torch.no_grad()
    def encode(self, pictures: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pictures (N, 3, H, W) in [-1, 1] to latents (N, K, h, w) of about unit variance.

        generator: for a random sample of the VAE's posterior; None: its mean.
        """
        pictures = pictures.to(self.vae.device, self.vae.dtype)
        if isinstance(self.vae, LatentCodec):
            return self.vae.encode(pictures)
        (posterior,) = cast(tuple, self.vae.encode(pictures, return_dict=False))
        latents = posterior.mode() if generator is None else posterior.sample(generator)
        return (latents - self.vae.config["shift_factor"]) * self.vae.config["scaling_factor"]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, K, h, w) to pictures (N, 3, H, W) in about [-1, 1]."""
        latents = latents.to(self.vae.device, self.vae.dtype)
        if isinstance(self.vae, LatentCodec):
            return self.vae.decode(latents)
        latents = latents / self.vae.config["scaling_factor"] + self.vae.config["shift_factor"]
        return cast(Any, self.vae).decode(latents, return_dict=False)[0]

    # Sampling

    def noise(self, count: int, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
        """Initial noise for pictures of height × width pixels: (count, K, h, w).

        Raises UserError for a size that the base cannot draw.
        """
        step = self.downscale * self.config["patch_size"]
        largest = self.config["pos_embed_max_size"] * step
        for name, side in (("height", height), ("width", width)):
            if side % step or not 0 < side <= largest:
                raise UserError(f"{name} {side}: give a multiple of {step} up to {largest}")
        shape = (count, self.config["in_channels"], height // self.downscale, width // self.downscale)
        return randn_tensor(shape, generator=generator, device=self.device, dtype=self.dtype)

    @torch.no_grad()
    def sample(
        self,
        prompts: Prompts,
        noise: Tensor,
        negative: Prompts | None = None,
        steps: int = STEPS,
        guidance_scale: float = GUIDANCE_SCALE,
        skip: SkipLayerGuidance | None = None,
        consistency: float | Consistency = 0.0,
        face: Tensor | None = None,
        around: Around | None = None,
        images_at_once: int | None = None,
        callback: Callable[[int, float, Tensor], object] | None = None,
    ) -> Tensor:
        """Latents (N, K, h, w) of N pictures.

        Args:
            prompts: of the N pictures, as from `encode_prompts`.
            noise: (N, K, h, w), as from `noise`.
            negative: the condition that guidance leads away from; None: the empty text.
            steps, guidance_scale: sampling steps; guidance scale, of which 1 needs no negative prompt.
            skip: skip-layer guidance, which costs a further evaluation in the steps in which it is used.
            consistency: consistent attention of the N pictures, as of `GenAffectPipeline`; 0 draws each alone.
            face: which tokens cover brows, eyes and mouth, bool (h / p, w / p); see `Consistency.tokens`.
            around: called as around(attention, rows) before each evaluation, returns the attention to use instead. Row
                r of the batch is picture r % N under the negative prompt if r < N (and there is one), else under its
                own.
            images_at_once: pictures in one evaluation, which bounds the memory; None: all. Anchors of consistent
                attention are always evaluated together.
            callback: as of `flow.sample`.
        """
        negative = negative or (None if guidance_scale == 1 else self.encode_prompts([""]).repeated(len(noise)))
        sharing, anchors = as_consistency(consistency), 0
        if sharing is not None:
            noise, anchors = AnchorBank(sharing).noise(noise), sharing.anchor_count(len(noise))
        sigmas = schedule(steps, self.shift, spacing="diffusers")
        evaluation = _Evaluation(
            self.transformer,
            prompts,
            None if guidance_scale == 1 else negative,
            sharing,
            face,
            around,
            _parts(len(noise), anchors, images_at_once or len(noise)),
        )
        skipping = set() if skip is None else skip.sigmas(sigmas)

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            at = sigma[0].item()  # the only synchronization with the GPU in a step
            velocities = evaluation(x, sigma, at)
            conditional = velocities[-1]
            result = guide_one(velocities[0], conditional, guidance_scale) if len(velocities) == 2 else conditional
            if skip is not None and at in skipping:
                (without,) = evaluation(x, sigma, at, skip.layers)
                result = result + skip.scale * (conditional - without)
            return result

        return sample(velocity, noise, sigmas, callback=callback)

    def __call__(
        self,
        prompts: Sequence[str],
        height: int = 1024,
        width: int = 1024,
        negative_prompt: str = "",
        generator: torch.Generator | None = None,
        **options,
    ) -> list[Image.Image]:
        """RGB pictures of height × width pixels, one for each prompt; `options` are those of `sample`."""
        noise = self.noise(len(prompts), height, width, generator)
        embedded = self.encode_prompts([negative_prompt, *prompts])
        negative = Prompts(embedded.tokens[:1], embedded.pooled[:1]).repeated(len(prompts))
        latents = self.sample(Prompts(embedded.tokens[1:], embedded.pooled[1:]), noise, negative, **options)
        return [Image.fromarray(picture) for picture in to_images(self.decode(latents))]


def _parts(count: int, anchors: int, at_once: int) -> list[slice]:
    """The pictures of each evaluation: the anchors, if any, and then `at_once` at a time."""
    edges = [0, *range(anchors, count, at_once), count] if anchors else [*range(0, count, at_once), count]
    return [slice(a, b) for a, b in zip(edges, edges[1:]) if a < b]


@dataclass
class _Evaluation:
    """The network's output for a whole set, part after part; the anchors of consistent attention are the first part.

    Anchors and other images are evaluated in the same step, so what anchors share is kept for one step only.
    """

    network: MMDiT
    prompts: Prompts
    negative: Prompts | None
    sharing: Consistency | None
    face: Tensor | None
    around: Around | None
    parts: list[slice]

    def __call__(self, x: Tensor, sigma: Tensor, at: float, skip_layers: Sequence[int] | None = None) -> list[Tensor]:
        """Velocities (N, K, h, w) of each condition; if layers are skipped, of the images' own prompts only."""
        conditions = [c for c in (self.negative, self.prompts) if c is not None]
        first_row = 0
        if skip_layers is not None:
            conditions, first_row = [self.prompts], (len(conditions) - 1) * len(x)
        step = self._step(x, at)
        outputs = []
        for part in self.parts:
            attention = None if step is None else step.record if part.start == 0 else step.read
            if self.around is not None:
                numbers = torch.arange(len(x), device=x.device)[part]
                rows = torch.cat([first_row + g * len(x) + numbers for g in range(len(conditions))])
                attention = self.around(attention or joint_attention, rows)
            images, G = x[part], len(conditions)
            output = self.network(
                images.repeat(G, 1, 1, 1),  # (n, K, h, w) -> (G·n, K, h, w)
                torch.cat([condition.tokens[part] for condition in conditions]),
                torch.cat([condition.pooled[part] for condition in conditions]),
                timestep(sigma[part]).repeat(G),
                attention=attention,
                sigma=at,
                skip_layers=skip_layers,
            )
            outputs.append(output.unflatten(0, (G, -1)))  # (G·n, K, h, w) -> (G, n, K, h, w)
        return list(torch.cat(outputs, dim=1))

    def _step(self, x: Tensor, at: float) -> SharedStep | None:
        if self.sharing is None:
            return None
        p = self.network.config["patch_size"]
        grid, anchors = (x.shape[2] // p, x.shape[3] // p), self.parts[0].stop
        return self.sharing.step(grid, at, anchors, x.device, self.face)
