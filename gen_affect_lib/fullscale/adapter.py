"""An identity-expression adapter for a frozen MM-DiT of Stable Diffusion 3.5.

The kit's fusion turns identity and expression into face features. They reach the base in one or both of two ways:

- *tokens*: `FaceTokens` maps the features to the width of the text and adds them to the last text tokens, which are
  padding in all but the longest prompts; it also adds to the pooled text. The base is not changed and no sequence
  becomes longer, so the result can be given to diffusers as prompt embeddings.
- *decoupled*: `Decoupled` has keys and values for the features in each block. The image tokens attend to them in a
  second softmax, whose output is added to that of joint attention (IP-Adapter, Ye et al. 2023, arXiv 2308.06721). It is
  a `JointAttention` around another one, so it works together with consistent attention.

All maps that end in the base start at zero, so at the start the base's output is unchanged to the bit. `add_lora` is
optional and lets the base's own attention change as well.

Letters: B images, V views of E numbers, N face features of D channels, M text tokens of T channels, P channels of the
pooled text, L image tokens, H heads, C channels of the base's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from gen_affect_lib.errors import UserError
from gen_affect_lib.model.attention import QKV, JointAttention, attend, head_norm, joint_attention
from gen_affect_lib.model.fusion import IdentityExpressionFusion
from gen_affect_lib.model.mmdit import MMDiT

WAYS = {"tokens": ("tokens",), "decoupled": ("decoupled",), "both": ("tokens", "decoupled")}


class Condition(NamedTuple):
    """What the base gets: text tokens (B, M, T), pooled text (B, P), and the faces for its blocks, or None."""

    text: Tensor
    pooled: Tensor
    faces: Faces | None

    def attention(self, attention: JointAttention | None = None) -> JointAttention | None:
        """`Faces.around` an attention (None: `joint_attention`); without faces, the attention itself."""
        return attention if self.faces is None else self.faces.around(attention or joint_attention)


class FaceTokens(nn.Module):
    """Face features (B, N, D) and their pooled vector (B, D), added to text tokens and pooled text. Starts at zero.

    The widths of text and pooled text differ: 4096 and 2048 in SD3.5. Two linear maps from D to them take a twelfth of
    the parameters of a fusion that is 4096 wide throughout.
    """

    def __init__(self, dim: int, text_dim: int, pooled_dim: int):
        super().__init__()
        self.to_text, self.to_pooled = nn.Linear(dim, text_dim), nn.Linear(dim, pooled_dim)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, vector: Tensor, text: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Text tokens (B, M, T) and pooled text (B, P) with the face added. Raises UserError if M is below N."""
        count, room = features.shape[1], text.shape[1]
        if room < count:
            raise UserError(
                f"{room} text tokens have no room for {count} face tokens: give a prompt of {count} or more"
            )
        faces = self.to_text(features).to(text.dtype)  # (B, N, T)
        text = torch.cat([text[:, : room - count], text[:, room - count :] + faces], dim=1)
        return text, pooled + self.to_pooled(vector).to(pooled.dtype)


class FaceKeyValues(nn.Module):
    """Face features (B, N, D) to keys and values (B, N, H, C / H) of one block. The values start at zero."""

    def __init__(self, dim: int, block_dim: int, num_heads: int, qk_norm: str | None):
        super().__init__()
        self.num_heads = num_heads
        self.to_k, self.to_v = nn.Linear(dim, block_dim), nn.Linear(dim, block_dim)
        self.norm_k = head_norm(block_dim // num_heads, qk_norm)
        nn.init.xavier_uniform_(self.to_k.weight)
        for parameter in (self.to_k.bias, *self.to_v.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        key, value = (
            projection(features).unflatten(2, (self.num_heads, -1)) for projection in (self.to_k, self.to_v)
        )  # (B, N, C) -> (B, N, H, C / H)
        return self.norm_k(key), value


@dataclass(frozen=True)
class Faces:
    """Keys and values (B, N, H, C / H) of B images' face features, for each block of the base."""

    blocks: list[tuple[Tensor, Tensor]]

    def around(self, attention: JointAttention, rows: Tensor | slice = slice(None)) -> JointAttention:
        """`attention`, plus the image's attention to its face, for a batch of these rows of the B images.

        Each image attends with its own queries to its own face, also where consistent attention replaces its queries in
        `attention`.
        """

        def with_faces(image: QKV, condition: QKV | None, *, block: int, sigma: float) -> tuple[Tensor, Tensor | None]:
            of_image, of_condition = attention(image, condition, block=block, sigma=sigma)
            if condition is None:  # the second attention of a dual block; the face is attended to once in each block
                return of_image, of_condition
            assert image.query is not None
            key, value = (x[rows].to(image.query.dtype) for x in self.blocks[block])
            return of_image + attend(image.query, key, value), of_condition

        return with_faces


class Decoupled(nn.Module):
    """Face features (B, N, D) to `Faces`: keys and values for a second attention of the image tokens in each block."""

    def __init__(self, dim: int, num_layers: int, block_dim: int, num_heads: int, qk_norm: str | None):
        super().__init__()
        self.blocks = nn.ModuleList(FaceKeyValues(dim, block_dim, num_heads, qk_norm) for _ in range(num_layers))

    def forward(self, features: Tensor) -> Faces:
        return Faces([keys_values(features) for keys_values in self.blocks])


class Adapter(ModelMixin, ConfigMixin):
    """Fusion, and the ways in which its features reach the base; `for_base` takes the base's sizes.

    Args:
        way: a key of `WAYS`.
        text_dim, pooled_dim: T and P.
        num_layers, block_dim, num_heads, qk_norm: of the base's blocks.
        identity_views, identity_dim: V and E. A recognizer trained on aligned faces has one view.
        expression_dim, dim, identity_tokens, expression_tokens, condition_tokens, fusion_layers, fusion_heads, fusion:
            sizes of `IdentityExpressionFusion`; `dim` is D.

    Raises UserError for an unknown way, and for sizes that do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        way: str = "both",
        text_dim: int = 4096,
        pooled_dim: int = 2048,
        num_layers: int = 24,
        block_dim: int = 1536,
        num_heads: int = 24,
        qk_norm: str | None = "rms_norm",
        identity_views: int = 1,
        identity_dim: int = 512,
        expression_dim: int = 48,
        dim: int = 1024,
        identity_tokens: int = 4,
        expression_tokens: int = 4,
        condition_tokens: int = 8,
        fusion_layers: int = 2,
        fusion_heads: int = 16,
        fusion: str = "fused_and_exact",
    ):
        super().__init__()
        if way not in WAYS:
            raise UserError(f"way {way!r} is not known: give one of {', '.join(WAYS)}")
        self.faces = IdentityExpressionFusion(
            identity_views=identity_views,
            identity_dim=identity_dim,
            expression_dim=expression_dim,
            dim=dim,
            identity_tokens=identity_tokens,
            expression_tokens=expression_tokens,
            condition_tokens=condition_tokens,
            num_layers=fusion_layers,
            num_heads=fusion_heads,
            fusion=fusion,
        )
        self.tokens = FaceTokens(dim, text_dim, pooled_dim) if "tokens" in WAYS[way] else None
        self.decoupled = Decoupled(dim, num_layers, block_dim, num_heads, qk_norm) if "decoupled" in WAYS[way] else None
        if (
            self.tokens is None
        ):  # only the tokens use the pooled vector; several processes expect a gradient of the rest
            self.faces.pool.requires_grad_(False)

    @classmethod
    def for_base(cls, base: MMDiT, **sizes) -> Adapter:
        """An adapter with random weights for a base; `sizes` are further arguments of the class."""
        return cls(**sizes_of(base) | sizes)

    def forward(
        self,
        identity: Tensor,
        expression: Tensor,
        text: Tensor,
        pooled: Tensor,
        keep_identity: Tensor | None = None,
        keep_expression: Tensor | None = None,
    ) -> Condition:
        """The condition of the base for faces and prompts, the same for all steps of a sampler.

        Args:
            identity, expression, keep_identity, keep_expression: as of `IdentityExpressionFusion`.
            text, pooled: of the prompts, (B, M, T) and (B, P).
        """
        identity, expression = identity.to(self.dtype), expression.to(self.dtype)
        features, vector = self.faces(identity, expression, keep_identity, keep_expression)
        if self.tokens is not None:
            text, pooled = self.tokens(features, vector, text, pooled)
        return Condition(text, pooled, None if self.decoupled is None else self.decoupled(features))

    def require_base(self, base: MMDiT) -> None:
        """Raise UserError, with the first difference, unless the base has the sizes that the adapter was made for."""
        for name, size in sizes_of(base).items():
            if self.config[name] != size:
                raise UserError(
                    f"this adapter is for a base with {name} {self.config[name]}, and this base has {size}: give the "
                    "base that it was trained on"
                )


def sizes_of(base: MMDiT) -> dict[str, Any]:
    """The sizes of a base that its adapter must have, named as the arguments of `Adapter`."""
    c = base.config
    return {
        "text_dim": c["joint_attention_dim"],
        "pooled_dim": c["pooled_projection_dim"],
        "num_layers": c["num_layers"],
        "block_dim": c["num_attention_heads"] * c["attention_head_dim"],
        "num_heads": c["num_attention_heads"],
        "qk_norm": c["qk_norm"],
    }


def freeze(base: MMDiT) -> None:
    """No parameter of the base is trained. Parameters that `add_lora` adds afterwards are."""
    base.requires_grad_(False)


# Low-rank updates of the base (Hu et al. 2021, arXiv 2106.09685), by the package peft

LORA_TARGETS = r".*\.attention\.(to_qkv|to_kv|to_out)"  # the projections of joint attention, in both streams


def add_lora(base: MMDiT, rank: int) -> None:
    """Give each projection W of joint attention, in place, a trained update W + B·A of this rank. B starts at zero.

    The query, key and value of a stream are one matrix here, so they share A. Raises UserError for a rank below 1, and
    if peft is not installed.
    """
    if rank < 1:
        raise UserError(f"a LoRA of rank {rank} changes nothing: give a rank of 1 or more, such as 16")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("LoRA needs the package peft: python -m pip install -c constraints.txt peft") from error
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_TARGETS), base)


def lora_weights(base: nn.Module) -> dict[str, Tensor]:
    """The weights that `add_lora` added, by name; empty without a LoRA."""
    return {name: tensor for name, tensor in base.state_dict().items() if ".lora_" in name}


def load_lora(base: MMDiT, weights: Mapping[str, Tensor]) -> None:
    """Add a LoRA with these weights of `lora_weights` to a base. Raises UserError if they do not fit."""
    ranks = {tensor.shape[0] for name, tensor in weights.items() if ".lora_A." in name}
    if len(ranks) != 1:
        raise UserError("these are no weights of a LoRA: give the folder of an adapter as it was written")
    add_lora(base, ranks.pop())
    if {name: t.shape for name, t in lora_weights(base).items()} != {name: t.shape for name, t in weights.items()}:
        raise UserError("the LoRA of this adapter was trained on another base: give that base")
    base.load_state_dict(dict(weights), strict=False)


@torch.no_grad()
def merge_lora(base: MMDiT) -> MMDiT:
    """Add each B·A to its W, in place, and remove the LoRA. Afterwards `parity.to_diffusers` can export the base."""
    layers = {name: module for name, module in base.named_modules() if hasattr(module, "base_layer")}
    for name, layer in layers.items():
        layer.merge()
        owner, _, attribute = name.rpartition(".")
        setattr(base.get_submodule(owner), attribute, layer.base_layer)
    return base
