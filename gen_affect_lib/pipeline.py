"""The pipeline, as in diffusers: a picture of a person and a list of expressions in, one picture per expression out.

`GenAffectPipeline` holds the networks and the settings of the sampler. `save_pretrained` and `from_pretrained` write
and read them as diffusers does, in a local folder; nothing is downloaded.

Letters: N expressions, G conditions that guidance compares, S side of a result in pixels, C channels and s side of the
codec's latents, V views of the reference with E numbers each, L condition tokens of D channels, P channels of the
pooled condition.
"""

import copy
import importlib
import json
import math
import numbers
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TypeVar, cast

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from tqdm.auto import tqdm

from gen_affect_lib.avatars.regions import TYPICAL_BOTTOM, TYPICAL_TOP, is_portrait
from gen_affect_lib.codec import CODEC
from gen_affect_lib.encoders.affect import EXPRESSION_MEANING
from gen_affect_lib.encoders.expression import is_picture, read_expression
from gen_affect_lib.encoders.pack import FACE_READING, FacePack
from gen_affect_lib.encoders.protocols import ExpressionEncoder, IdentityEncoder
from gen_affect_lib.encoders.reading import ExpressionReading
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import is_whole, seal, together
from gen_affect_lib.flow import SAMPLER, RectifiedFlow, sample, schedule, timestep
from gen_affect_lib.keys import Producer, digest
from gen_affect_lib.model.attention import JointAttention
from gen_affect_lib.model.consistent import CONSISTENT_ATTENTION, AnchorBank, Consistency, as_consistency
from gen_affect_lib.photo.landmarker import FaceLandmarker, is_installed
from gen_affect_lib.photo.reading import PhotoReading, read_if_photograph
from gen_affect_lib.pictures import open_picture
from gen_affect_lib.tensors import require_finite, to_images

T = TypeVar("T")

CHECKSUMS = "weights.sha256"  # of all weights in a folder; `sha256sum -c` reads it

# Conditioning, guidance and the networks' forward passes.
PIPELINE = Producer("pipeline", 1, uses=(SAMPLER, CONSISTENT_ATTENTION, CODEC, FACE_READING, EXPRESSION_MEANING))


@dataclass
class GenAffectOutput(BaseOutput):
    """Result of a `GenAffectPipeline`.

    Attributes:
        images: RGB PIL images, one per expression, in the order of the request.
        bank: keys and values of the set's anchors, with which a later call adds images to the set; None if nothing
            was shared.
    """

    images: list[Image.Image]
    bank: AnchorBank | None = None


class GenAffectPipeline(DiffusionPipeline):
    """Pictures of one person with any number of expressions.

    Args:
        transformer: the MM-DiT, (B, C, s, s), tokens (B, L, D), pooled (B, P), timestep (B,) -> (B, C, s, s).
        condition_encoder: the fusion, identity (B, V, E), expression (B, 48), keep_identity (B,), keep_expression (B,)
            -> tokens (B, L, D), pooled (B, P).
        codec: `PixelCodec` or `LatentCodec`, between images and the latents of the transformer.
        refiner: adds small things to the pictures that a `LatentCodec` decodes, features, identity, expression ->
            (B, 3, S, S); None: they stay as they are decoded.
        recognizer: `FacePack.mark` of the recognizer that the fusion was trained with; None accepts any.
        prediction, sigma_floor: arguments of `RectifiedFlow`, as in training.
        shift: of the sampling schedule; above 1 puts more of the steps near the noise.
        num_inference_steps, identity_scale, expression_scale: default arguments of a call.
        image_size: S.

    Attributes:
        face_pack: reads references; None: the shipped `FacePack`, loaded when it is first needed.
        expression_encoder: reads expressions from pictures; None: the shipped `ExpressionEncoder`.
        landmarker: reads photographs; None: that of the optional package, loaded when it is first needed.
    """

    _optional_components = ["refiner"]  # diffusers' name

    def __init__(
        self,
        transformer: nn.Module,
        condition_encoder: nn.Module,
        codec: nn.Module,
        refiner: nn.Module | None = None,
        recognizer: str | None = None,
        prediction: str = "v",
        sigma_floor: float = 0.05,
        shift: float = 1.0,
        num_inference_steps: int = 8,
        identity_scale: float = 1.0,
        expression_scale: float = 1.0,
        image_size: int = 128,
    ):
        super().__init__()
        self.register_modules(
            transformer=transformer, condition_encoder=condition_encoder, codec=codec, refiner=refiner
        )
        self.register_to_config(
            recognizer=recognizer,
            prediction=prediction,
            sigma_floor=sigma_floor,
            shift=shift,
            num_inference_steps=num_inference_steps,
            identity_scale=identity_scale,
            expression_scale=expression_scale,
            image_size=image_size,
        )
        self.flow = RectifiedFlow(prediction, sigma_floor)
        self.face_pack: IdentityEncoder | None = None
        self.expression_encoder: ExpressionEncoder | None = None
        self.landmarker: FaceLandmarker | None = None

    @torch.no_grad()
    def __call__(
        self,
        reference: Image.Image | np.ndarray | str | Path,
        expressions: Sequence,
        num_inference_steps: int | None = None,
        identity_scale: float | None = None,
        expression_scale: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        which: int | str = "largest",
        consistency: float | Consistency = 1.0,
        bank: AnchorBank | None = None,
        attention: JointAttention | None = None,
        as_drawn: bool = False,
    ) -> GenAffectOutput:
        """Draw the person of the reference, once with each expression.

        Args:
            reference: a PIL image, an RGB array (H, W, 3) uint8 or a path, of any size, that shows a face; or the
                result of `read_identity`. Of a photograph of a person an avatar is drawn first, with a warning that
                says so, see `photo.reading`.
            expressions: any mix of words ("glee", or "neutral"), points (valence, arousal), `Expression`s, vectors
                (21,) and pictures of other people's faces; see `encoders.expression.read_expression`.
            num_inference_steps: sampling steps; each costs one evaluation of the network, or two if anchors must be
                sampled before the other images.
            identity_scale, expression_scale: guidance scales. 0 ignores the condition, 1 follows it, above 1
                exaggerates it. Scales other than 1 need two or three conditions in each evaluation, which costs more.
            generator: of the initial noise; the same seed gives the same pictures. A list has one for each expression.
            which: which face of the reference, if it has several: "largest", or an index from left to right.
            consistency: fraction of eligible tokens that are shared, in [0, 1], with the other settings as chosen in
                notebook 09; 0 samples each image independently. Or a `Consistency`.
            bank: from an earlier call's output. The images are added to that set, as if they had been part of that
                call. Or a new one, as `AnchorBank(Consistency(), on_cpu=True)`, whose `Consistency` is then used.
            attention: replaces joint attention for the whole batch of G·N images, the N images under one condition side
                by side; `consistency` and `bank` are then ignored.
            as_drawn: take photographs as they are, for a pipeline that was trained on photographs.

        Raises UserError for a reference without a face, an entry of `expressions` that is no expression, or a bank of
        another person or model, or with other steps, scales or types.
        """
        steps, shift = self._setting("num_inference_steps", num_inference_steps), self.config["shift"]
        identity_scale = _finite("identity_scale", self._setting("identity_scale", identity_scale))
        expression_scale = _finite("expression_scale", self._setting("expression_scale", expression_scale))
        sigmas, sharing = schedule(steps, shift), as_consistency(consistency)
        if not isinstance(bank, (AnchorBank, NoneType)):
            raise UserError(f"bank is a {type(bank).__name__}: give the bank of an earlier output")
        _require_generators(generator)
        shown = self.read_expressions(expressions, as_drawn)
        identity = self.read_identity(reference, which, as_drawn)
        if isinstance(generator, list) and len(generator) != len(shown):
            raise UserError(
                f"{len(generator)} generators for {len(shown)} expressions: give one per expression, or one"
            )

        for network in self.networks.values():
            network.eval()
        device, dtype = self.transformer.device, self.transformer.dtype
        identity, shown = torch.from_numpy(identity)[None].to(device, dtype), torch.from_numpy(shown).to(device, dtype)
        side = self.codec.latent_size(self.config["image_size"])
        shape = (len(shown), self.codec.latent_channels, side, side)
        noise = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)

        if attention is None and (bank is not None or sharing is not None):
            made_with = self._made_with(int(steps), identity_scale, expression_scale, identity)
            if bank is not None:
                bank.require_same(made_with)
            elif sharing is not None:
                bank = AnchorBank(sharing, made_with)
        passes: Sequence[tuple[slice, JointAttention | None]] = [(slice(None), attention)]
        if attention is None and bank is not None:
            noise, passes = bank.noise(noise), bank.passes(len(shown))
        noise, latents = noise.to(dtype), []
        progress_bar = cast(Callable[..., tqdm], self.progress_bar)  # its decorator has the wrong type
        with progress_bar(total=steps * len(passes)) as bar:
            for images, joint in passes:
                velocity = self.guided_velocity(identity, shown[images], identity_scale, expression_scale, joint)
                latents.append(sample(velocity, noise[images], sigmas, callback=lambda *_: bar.update()))
        decoded = self.decode(torch.cat(latents), identity, shown, identity_scale, expression_scale)
        if not decoded.isfinite().all():
            raise UserError(
                f"the pictures are not finite in {dtype}: load the pipeline with dtype=torch.float32, or train it again"
            )
        images = to_images(decoded)  # (N, S, S, 3) uint8
        return GenAffectOutput(images=[Image.fromarray(image) for image in images], bank=bank)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that the pipeline has, by their names; without a refiner three of them."""
        return {name: network for name, network in self.components.items() if network is not None}

    def decode(
        self, latents: Tensor, identity: Tensor, expressions: Tensor, identity_scale: float, expression_scale: float
    ) -> Tensor:
        """Latents (N, C, s, s) of one person (1, V, E), or of N people, with N expressions (N, 48) to pictures.

        Returns (N, 3, S, S), about in [-1, 1]. A picture whose generation ignored a condition, since its guidance scale
        is 0, is not refined: the refiner reads both.
        """
        latents = latents.to(self.codec.dtype)
        if self.refiner is None or identity_scale == 0 or expression_scale == 0:
            return self.codec.decode(latents)
        decoded, features = self.codec.decode_with_features(latents)
        return decoded + self.refiner(features, identity.expand(len(latents), -1, -1), expressions)

    def _made_with(self, steps: int, identity_scale: float, expression_scale: float, identity: Tensor) -> dict:
        """What a bank depends on, by name; `identity` (1, V, E) are the tokens of the person."""
        weights = [*self.transformer.parameters(), *self.condition_encoder.parameters()]
        some = [weight.detach().flatten()[:: max(1, weight.numel() // 64)] for weight in weights]  # about (64,) of each
        return {
            "steps": steps,
            "shift": self.config["shift"],
            "identity_scale": identity_scale,
            "expression_scale": expression_scale,
            "the device": str(identity.device),
            "the type": str(identity.dtype),
            "the weights": digest(torch.cat(some).float().cpu().numpy().tobytes()),
            "the person": digest(identity.float().cpu().numpy().tobytes()),
        }

    def read_identity(self, reference, which: int | str = "largest", as_drawn: bool = False) -> np.ndarray:
        """The identity embeddings of a picture, float32 (V, E), see `FaceReading.tokens`.

        A floating-point array of that shape is taken as embeddings, for example the mean of two identities. For
        `as_drawn` see `__call__`.

        Raises UserError if there is no face, or if the recognizer is not the one of training.
        """
        if isinstance(reference, np.ndarray) and reference.ndim == 2 and np.issubdtype(reference.dtype, np.floating):
            sizes = self.condition_encoder.config
            expected = sizes.get("identity_views", reference.shape[0]), sizes.get("identity_dim", reference.shape[1])
            if reference.shape != expected:
                raise UserError(
                    f"an identity has shape {reference.shape}: give what read_identity gave, {expected}, or a picture"
                )
            return reference.astype(np.float32)
        self.face_pack = self.face_pack or FacePack()
        self.require_recognizer(self.face_pack)
        photo = None if as_drawn else self._read_photo(reference, which, "the reference")
        if photo is not None:
            warnings.warn(
                "the reference is a photograph: an avatar was drawn from it (read_photo shows how it was read; "
                "as_drawn=True takes the photograph itself)",
                stacklevel=3,
            )
            reference, which = photo.neutral.render(256), "largest"
        return self.face_pack.one(reference, which, name="the reference").tokens

    def require_recognizer(self, faces: IdentityEncoder) -> None:
        """Raise UserError if the recognizer of a face pack is not the one that the pipeline was trained with."""
        recognizer = self.config["recognizer"]
        if recognizer not in (None, faces.mark):
            raise UserError(
                f"this pipeline was trained with recognizer {recognizer}, but the face pack has {faces.mark}: restore "
                "that recognizer, or train the pipeline anew"
            )

    def read_expressions(self, expressions: Sequence, as_drawn: bool = False) -> np.ndarray:
        """The expressions to be drawn: float32 (N, 48), see `ExpressionReading.representation`.

        For `as_drawn` see `__call__`.

        Raises UserError if `expressions` is not a list or is empty, or if an entry is no expression.
        """
        if isinstance(expressions, str) or not isinstance(expressions, (Sequence, np.ndarray, Tensor)):
            raise UserError(f'expressions is {expressions!r:.60}: give a list, such as ["glee"]')
        if len(expressions) == 0:
            raise UserError('expressions is empty: give at least one, such as ["glee"]')
        return np.concatenate([self._read_expression(one, as_drawn).representation for one in expressions])

    def _read_expression(self, source, as_drawn: bool) -> ExpressionReading:
        if self.expression_encoder is None and is_picture(source):
            name = str(source) if isinstance(source, (str, Path)) else "a picture of an expression"
            source = open_picture(source)
            photo = None if as_drawn else self._read_photo(source, "largest", name)
            if photo is not None:
                return photo.meaning
            self._require_portrait(source, name)  # the shipped encoder crops a fixed box, with or without a face in it
        return read_expression(source, self.expression_encoder)

    def _read_photo(self, source, which: int | str, name: str) -> PhotoReading | None:
        """The reading of a photograph; None for a drawing, and if the landmarker is not installed."""
        if self.landmarker is None and not is_installed():
            return None
        self.landmarker = self.landmarker or FaceLandmarker.load()
        return read_if_photograph(source, which, self.landmarker, name)  # whoever reads it next refuses what is none

    def _require_portrait(self, picture: Image.Image, name: str) -> None:
        """Raise UserError unless the head in a picture is placed and sized as in a portrait, see `is_portrait`."""
        self.face_pack = self.face_pack or FacePack()
        box = self.face_pack.one(picture, "largest", name=name).box
        width, height = picture.size
        side = min(width, height)  # the encoder reads the centred square
        top, bottom = (box[1::2] - (height - side) / 2) / side
        if not is_portrait(top, bottom):
            raise UserError(
                f"the face in {name} reaches from {top:.0%} to {bottom:.0%} of its height: crop it so that the head "
                f"reaches from {100 * TYPICAL_TOP:.0f} % to {100 * TYPICAL_BOTTOM:.0f} %, as in a portrait"
            )

    def guided_velocity(
        self,
        identity: Tensor,
        expressions: Tensor,
        identity_scale: float,
        expression_scale: float,
        attention: JointAttention | None = None,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The guided velocity of one person (1, V, E), or of N people (N, V, E), with N expressions (N, 48), as a
        function for `flow.sample`: x (N, C, s, s), sigma (N,) -> (N, C, s, s).

        This is `flow.guide` as a weighted sum, u + i (v_i - u) + e (v - v_i) = (1 - i) u + (i - e) v_i + e v, with the
        scales i and e and the velocities u (no condition), v_i (identity) and v (both). Terms of weight 0 are not
        computed, so scales of 1 cost one plain evaluation. The other conditions form one batch: N entries under the
        first, N under the second, and so on. They are the same at every step, so they are fused once.
        """
        count = len(expressions)
        weights = {  # (keep identity, keep expression): weight
            (False, False): 1 - identity_scale,
            (True, False): identity_scale - expression_scale,
            (True, True): expression_scale,
        }
        kept = [keep for keep, weight in weights.items() if weight != 0]
        weight = torch.tensor([weights[keep] for keep in kept], device=expressions.device)
        keep = torch.tensor(kept, device=expressions.device).repeat_interleave(count, 0)  # (G, 2) -> (G * N, 2)
        groups = len(kept)
        tokens, pooled = self.condition_encoder(
            identity.expand(count, -1, -1).repeat(groups, 1, 1),  # (1 or N, V, E) -> (G * N, V, E)
            expressions.repeat(groups, 1),  # (N, 48) -> (G * N, 48)
            keep_identity=keep[:, 0],
            keep_expression=keep[:, 1],
        )

        def velocity(x, sigma):
            options = {} if attention is None else {"attention": attention}
            x, sigma = x.repeat(groups, 1, 1, 1), sigma.repeat(groups)  # (N, ...) -> (G * N, ...)
            output = self.transformer(x, tokens, pooled, timestep(sigma), **options)
            velocities = self.flow.velocity_from(output, x, sigma)
            velocities = velocities.unflatten(0, (groups, count))  # (G * N, ...) -> (G, N, ...)
            return (weight.to(velocities)[:, None, None, None, None] * velocities).sum(0)

        return velocity

    def _setting(self, name: str, value: T | None) -> T:
        return self.config[name] if value is None else value

    def save_pretrained(self, save_directory: str | Path, dtype: torch.dtype | None = None, **kwargs) -> None:
        """Write a folder for `from_pretrained`, completely or not at all, with the checksums of its weights.

        dtype: of the weights; None: half precision, which makes no visible difference, or float32 if a weight is too
        large for it. Raises UserError for weights that are not finite, and if the folder cannot be written.
        """
        if dtype is None:
            weights = [weight for network in self.networks.values() for weight in network.state_dict().values()]
            fit = all((weight.abs() <= torch.finfo(torch.float16).max).all() for weight in weights)
            dtype = torch.float16 if fit else torch.float32
        # nn.Module.to, since diffusers' own `to` warns about casts, which are harmless on a copy.
        networks = {name: nn.Module.to(copy.deepcopy(network), dtype) for name, network in self.networks.items()}
        for name, network in networks.items():
            require_finite(network, f"{save_directory} was not written: {name}")
            # No local path in a published file.
            cast(ConfigMixin, network).register_to_config(_name_or_path="")
        settings = {name: self.config[name] for name in self._get_signature_keys(type(self))[1] if name in self.config}
        try:
            with together(save_directory) as partial:
                DiffusionPipeline.save_pretrained(type(self)(**networks, **settings), partial, **kwargs)
                seal(partial / CHECKSUMS, partial.rglob("*.safetensors"))
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{save_directory} could not be written ({error!s:.200}): what was there is kept; free some disk space"
            ) from error

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32, **kwargs) -> "GenAffectPipeline":
        """Load a folder of `save_pretrained`, with weights in `dtype`. Nothing is downloaded.

        `torch_dtype`, diffusers' former name of `dtype`, is accepted too. Raises UserError if the folder or a part of
        it is missing or damaged.
        """
        dtype = _float_type(kwargs.pop("torch_dtype", dtype))
        folder = Path(folder)
        if not (folder / "model_index.json").is_file():
            what = "has no model_index.json in it" if folder.is_dir() else "is no folder on this machine"
            raise UserError(f"{folder} {what}: give a trained pipeline's folder, such as data/checkpoints/gen_affect")
        try:
            index = json.loads((folder / "model_index.json").read_text())
            parts = {name: value for name, value in index.items() if isinstance(value, list) and value[0] is not None}
            for library, _ in parts.values():
                # diffusers takes classes only from modules that are imported already, so that a folder of weights
                # cannot run code. Modules of this library are safe to import.
                if library.split(".")[0] == "gen_affect_lib":
                    importlib.import_module(library)
            if (folder / CHECKSUMS).is_file() and not is_whole(folder / CHECKSUMS):
                raise UserError(f"{folder} is damaged ({CHECKSUMS} does not fit): copy or train it again")
            pipeline = super().from_pretrained(folder, dtype=dtype, local_files_only=True, **kwargs)
            for name in parts:
                _check_weights(folder / name, getattr(pipeline, name))
                require_finite(getattr(pipeline, name), str(folder / name))
        except UserError:
            raise
        except Exception as error:  # a damaged file can raise anything
            reason = " ".join(str(error).split())
            raise UserError(f"{folder} is not a whole pipeline ({reason:.200}): copy or train it again") from error
        return pipeline


def _float_type(dtype) -> torch.dtype:
    """A floating-point type, also from its name ("float16")."""
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UserError(f"dtype is {dtype!r:.60}: give torch.float32, torch.float16 or torch.bfloat16")
    return found


def _finite(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise UserError(f"{name} is {value!r:.60}: give a number, such as 1.0, which follows the condition as it is")
    return float(value)


def _require_generators(generator) -> None:
    for one in generator if isinstance(generator, (list, tuple)) else [generator]:
        if not isinstance(one, (torch.Generator, NoneType)):
            raise UserError(f"generator is {one!r:.60}: give torch.Generator().manual_seed(0)")


def _check_weights(folder: Path, network: nn.Module) -> None:
    """Raise UserError for a missing or unknown tensor; diffusers only warns, and missing ones stay random."""
    stored = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            stored |= set(file.keys())
    expected = set(network.state_dict())
    if stored != expected:
        odd = sorted(stored ^ expected)
        raise UserError(
            f"{folder} does not hold the weights of {type(network).__name__} ({odd[0]} is "
            f"{'missing' if odd[0] in expected else 'unknown'}): copy or train it again"
        )
