"""From a picture of a person and a list of expressions to pictures: everything before put together, as in diffusers.

`GenAffectPipeline` holds the networks and the few numbers that sampling needs; `save_pretrained` and `from_pretrained`
write and read them as diffusers does, from a folder on this machine and never from the network.

Letters: N expressions asked for, G conditions that guidance compares, S the side of a result, C and s the channels and
the side of the codec's space, V views of the reference with E numbers each, L condition tokens.
"""

import copy
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from gen_affect_lib.avatars.regions import TYPICAL_BOTTOM, TYPICAL_TOP, is_portrait
from gen_affect_lib.codec import CODEC
from gen_affect_lib.encoders.affect import EXPRESSION_MEANING
from gen_affect_lib.encoders.expression import is_picture, read_expression
from gen_affect_lib.encoders.pack import FACE_READING, FacePack
from gen_affect_lib.encoders.protocols import ExpressionEncoder, IdentityEncoder
from gen_affect_lib.errors import UserError
from gen_affect_lib.flow import SAMPLER, RectifiedFlow, sample, schedule, timestep
from gen_affect_lib.keys import Producer
from gen_affect_lib.model.consistent import CONSISTENT_ATTENTION, AnchorBank, Consistency, as_consistency
from gen_affect_lib.pictures import open_picture
from gen_affect_lib.tensors import to_images

# Conditioning, guidance and the networks' forward passes.
PIPELINE = Producer("pipeline", 1, uses=(SAMPLER, CONSISTENT_ATTENTION, CODEC, FACE_READING, EXPRESSION_MEANING))


@dataclass
class GenAffectOutput(BaseOutput):
    """`images`: RGB PIL images, one per expression, in the order asked for. `bank`: what the set's anchors lent, with which
    a later call adds further expressions to it; None where nothing was shared."""

    images: list[Image.Image]
    bank: AnchorBank | None = None


class GenAffectPipeline(DiffusionPipeline):
    """One person, any number of expressions.

    Args:
        transformer: the MM-DiT, (B, C, s, s), tokens (B, L, D), pooled (B, P), timestep (B,) -> (B, C, s, s).
        condition_encoder: the fusion, identity (B, V, E), expression (B, 48), keep_identity (B,), keep_expression (B,)
            -> tokens (B, L, D), pooled (B, P).
        codec: to and from the space that the transformer works in, `PixelCodec` or `LatentCodec`.
        recognizer: `FacePack.mark` of the recognizer that the fusion learned from, which it has to be used with.
        prediction, sigma_floor: of the `RectifiedFlow` that it was trained with.
        shift: of the schedule: above 1 spends more of the steps near the noise.
        num_inference_steps, identity_scale, expression_scale: what a call uses unless told otherwise.
        image_size: S, the side in pixels of the results.
    Attributes:
        face_pack: reads references; the shipped `FacePack`, unless another one is set.
        expression_encoder: reads expressions off faces; the shipped `ExpressionEncoder`, unless another is set.
    """

    def __init__(
        self,
        transformer: nn.Module,
        condition_encoder: nn.Module,
        codec: nn.Module,
        recognizer: str | None = None,
        prediction: str = "v",
        sigma_floor: float = 0.05,
        shift: float = 1.0,
        num_inference_steps: int = 20,
        identity_scale: float = 1.0,
        expression_scale: float = 1.0,
        image_size: int = 64,
    ):
        super().__init__()
        self.register_modules(transformer=transformer, condition_encoder=condition_encoder, codec=codec)
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
        attention: Callable | None = None,
    ) -> GenAffectOutput:
        """Draw the person of the reference, once with each expression.

        Args:
            reference: a PIL image, an RGB array (H, W, 3) uint8 or a path, of any size, with a face in it; or what
                `read_identity` gave of it.
            expressions: words ("glee", or "neutral"), points (valence, arousal), `Expression`s, vectors (21,), or
                pictures of other people's faces, mixed as you like; see `encoders.expression.read_expression`.
            num_inference_steps: each costs one evaluation of the network.
            identity_scale, expression_scale: 1 follows the condition as it was learned, above 1 exaggerates it, 0
                ignores it. Other scales than 1 compare two or three conditions in each evaluation, and so cost more.
            generator: of the noise; the same seed gives the same pictures. A list has one for each expression.
            which: the face of the reference that counts, where it has several: "largest", or a number from the left.
            consistency: how much the images of the set share of what the condition leaves open, see
                `model.consistent.Consistency`: 0 draws each alone, 1 as the study of notebook 09 chose; between them, the
                share of the tokens that lend.
            bank: of an earlier call's output: the images join that set, as if they had been asked for with it.
            attention: a mechanism of your own instead: (sigma, members) -> what stands in the place of joint attention in a
                set of so many images, as `SharedAttention` does.

        Raises UserError for a reference without a face, an unknown word, a vector that is no expression, or a bank made
        with other steps or scales.
        """
        steps, shift = self._or_default("num_inference_steps", num_inference_steps), self.config.shift
        identity_scale = self._or_default("identity_scale", identity_scale)
        expression_scale = self._or_default("expression_scale", expression_scale)
        shown = self.read_expressions(expressions)
        identity = self.read_identity(reference, which)
        if isinstance(generator, list) and len(generator) != len(shown):
            raise UserError(f"{len(generator)} generators for {len(shown)} expressions: give each one, or all one")

        self.transformer.eval(), self.condition_encoder.eval(), self.codec.eval()
        device, dtype = self.transformer.device, self.transformer.dtype
        identity, shown = torch.from_numpy(identity)[None].to(device, dtype), torch.from_numpy(shown).to(device, dtype)
        side = self.codec.latent_size(self.config.image_size)
        shape = (len(shown), self.codec.latent_channels, side, side)
        noise = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)

        made_with, sharing = (steps, shift, identity_scale, expression_scale), as_consistency(consistency)
        if bank is not None and bank.made_with != made_with:
            raise UserError(
                f"the bank was made with steps, shift and scales {bank.made_with}, not {made_with}: give the same"
            )
        if bank is None and sharing is not None and attention is None:
            bank = AnchorBank(sharing, made_with)
        if attention is not None or bank is None:
            parts = [(slice(None), attention and partial(attention, members=len(shown)))]
        else:
            noise, parts = bank.noise(noise), bank.parts(len(shown))
        noise, sigmas, latents = noise.to(dtype), schedule(steps, shift), []
        with self.progress_bar(total=steps * len(parts)) as bar:
            for who, lent in parts:
                velocity = self.guided_velocity(identity, shown[who], identity_scale, expression_scale, lent)
                latents.append(sample(velocity, noise[who], sigmas, callback=lambda *_: bar.update()))
        images = to_images(self.codec.decode(torch.cat(latents).to(self.codec.dtype)))  # (N, S, S, 3) uint8
        return GenAffectOutput(images=[Image.fromarray(image) for image in images], bank=bank)

    def read_identity(self, reference, which: int | str = "largest") -> np.ndarray:
        """Who is on a picture: float32 (V, E), see `FaceReading.tokens`. An array like that is given back as it is, so
        that identities can be mixed before they are drawn.

        Raises UserError where there is no face, and where the recognizer is not the one that the pipeline learned from.
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
        return self.face_pack.one(reference, which, name="the reference").tokens

    def require_recognizer(self, faces: IdentityEncoder) -> None:
        """Raises UserError where a face pack has another recognizer than the one that the pipeline learned from."""
        if self.config.recognizer not in (None, faces.mark):
            raise UserError(
                f"this pipeline learned from recognizer {self.config.recognizer}, and the face pack has {faces.mark}: bring the one it learned from back, or train the pipeline from nothing"
            )

    def read_expressions(self, expressions: Sequence) -> np.ndarray:
        """What faces are to show: float32 (N, 48), see `ExpressionReading.representation`.

        Raises UserError where it is no list, or an entry is no expression.
        """
        if isinstance(expressions, str) or not isinstance(expressions, (Sequence, np.ndarray, Tensor)):
            raise UserError(f'expressions is {expressions!r:.60}: give a list, such as ["glee"]')
        if len(expressions) == 0:
            raise UserError('expressions is empty: give at least one, such as ["glee"]')
        if self.expression_encoder is None:  # our own looks at one place of a picture, whether there is a face or not
            for picture in filter(is_picture, expressions):
                self._require_portrait(picture)
        return np.concatenate([read_expression(one, self.expression_encoder).representation for one in expressions])

    def _require_portrait(self, picture) -> None:
        self.face_pack = self.face_pack or FacePack()
        box = self.face_pack.one(picture, "largest", name="a picture of an expression").box
        width, height = open_picture(picture).size
        side = min(width, height)  # the centred square is what counts
        top, bottom = (box[1::2] - (height - side) / 2) / side
        if not is_portrait(top, bottom):
            raise UserError(
                f"the face in {picture if isinstance(picture, (str, Path)) else 'a picture of an expression'} reaches from "
                f"{top:.0%} to {bottom:.0%} of its height: cut it so that the head reaches from "
                f"{100 * TYPICAL_TOP:.0f} % to {100 * TYPICAL_BOTTOM:.0f} %, as in a portrait"
            )

    def guided_velocity(
        self,
        identity: Tensor,
        expressions: Tensor,
        identity_scale: float,
        expression_scale: float,
        attention: Callable | None = None,
    ):
        """The velocity field of one person (1, V, E) with N expressions (N, 48): a function of x (N, C, s, s) and
        sigma (N,) that returns (N, C, s, s). `attention`: sigma -> what stands in the place of joint attention there.

        `flow.guide` written as a weighted sum, u + i (v_i - u) + e (v - v_i) = (1 - i) u + (i - e) v_i + e v: what has
        no weight need not be computed, so that scales of 1 cost one plain evaluation. The conditions that are left
        stand side by side in one batch, the first N entries under the first, and so on. They do not
        change from step to step, so they are embedded here, once.
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
            identity.expand(groups * count, -1, -1),
            expressions.repeat(groups, 1),  # (N, 48) -> (G * N, 48)
            keep_identity=keep[:, 0],
            keep_expression=keep[:, 1],
        )

        def velocity(x, sigma):
            instead = {} if attention is None else {"attention": attention(sigma[0].item())}
            x, sigma = x.repeat(groups, 1, 1, 1), sigma.repeat(groups)  # (N, ...) -> (G * N, ...)
            output = self.transformer(x, tokens, pooled, timestep(sigma), **instead)
            velocities = self.flow.velocity_from(output, x, sigma)
            velocities = velocities.unflatten(0, (groups, count))  # (G * N, ...) -> (G, N, ...)
            return (weight.to(velocities)[:, None, None, None, None] * velocities).sum(0)

        return velocity

    def _or_default(self, name: str, given):
        return self.config[name] if given is None else given

    def save_pretrained(self, save_directory: str | Path, dtype: torch.dtype = torch.float16, **kwargs) -> None:
        """Write the folder that `from_pretrained` reads; half precision halves it, at no cost that a picture shows."""
        # nn.Module's own `to`: diffusers' warns of casts, which here touch a copy only.
        networks = {name: nn.Module.to(copy.deepcopy(network), dtype) for name, network in self.components.items()}
        for network in networks.values():  # where the weights were read from is nobody's business
            network.register_to_config(_name_or_path="")
        settings = {name: self.config[name] for name in self._get_signature_keys(type(self))[1] if name in self.config}
        DiffusionPipeline.save_pretrained(type(self)(**networks, **settings), save_directory, **kwargs)

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32, **kwargs) -> "GenAffectPipeline":
        """Read a folder that `save_pretrained` wrote, in `dtype` whatever it was saved in. Nothing is downloaded.

        Raises UserError where the folder is missing, or something in it is missing or damaged.
        """
        folder = Path(folder)
        if not (folder / "model_index.json").is_file():
            what = "has no model_index.json in it" if folder.is_dir() else "is no folder on this machine"
            raise UserError(f"{folder} {what}: give a trained pipeline's folder, such as data/checkpoints/gen_affect")
        try:
            index = json.loads((folder / "model_index.json").read_text())
            parts = {name: value for name, value in index.items() if isinstance(value, list)}
            for library, _ in parts.values():
                # diffusers only takes classes from modules that are imported already, and rightly: a folder of weights
                # should not have code run. Our own are safe.
                if library.split(".")[0] == "gen_affect_lib":
                    importlib.import_module(library)
            pipeline = super().from_pretrained(folder, dtype=dtype, local_files_only=True, **kwargs)
            for name in parts:
                _check_weights(folder / name, getattr(pipeline, name))
        except UserError:
            raise
        except Exception as error:  # a damaged file shows in many ways
            reason = " ".join(str(error).split())
            raise UserError(f"{folder} is not a whole pipeline ({reason:.200}): copy or train it again") from error
        return pipeline


def _check_weights(folder: Path, network: nn.Module) -> None:
    """A tensor that is missing would only be warned about, and start at random."""
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
