"""The multimodal diffusion transformer (MM-DiT) of Stable Diffusion 3, from scratch.

Two streams of tokens, the noisy image and the condition, pass through layers of the same kind with separate
weights. They meet only in joint attention (Esser et al. 2024, arXiv 2403.03206). Sizes are named as in diffusers, and
`gen_affect_lib.parity` converts weights to and from its `SD3Transformer2DModel`. Only saving and loading
(`save_pretrained`, `from_pretrained`) come from diffusers itself.

Letters: B images, K channels of a picture or latent, L image tokens, M condition tokens, H heads, D channels per head,
C = H·D channels of a token. Taught in notebook 03.
"""

import json
from collections.abc import Callable, Container, Sequence
from functools import partial
from pathlib import Path
from typing import Self, cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from gen_affect_lib.errors import UserError
from gen_affect_lib.model.attention import (
    QKV,
    JointAttention,
    KeyValueProjections,
    Projections,
    joint_attention,
)
from gen_affect_lib.model.modulation import (
    AdaLayerNorm,
    ConditioningVector,
    Modulation,
    Modulator,
    gated_add,
    layer_norm,
    modulate,
)
from gen_affect_lib.model.patches import PatchEmbed, unpatchify


class MLP(nn.Module):
    """C to 4·C channels, GELU (tanh approximation), back to C; applied to each token separately."""

    def __init__(self, dim: int):
        super().__init__()
        self.widen = nn.Linear(dim, 4 * dim)
        self.narrow = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(F.gelu(self.widen(x), approximate="tanh"))


class Stream(nn.Module):
    """The layers of one modality in a block: `before` joint attention and `after` it.

    The image and the condition are two instances of this class.
    """

    def __init__(self, dim: int, num_heads: int, qk_norm: str | None):
        super().__init__()
        self.modulator = Modulator(dim, branches=2)
        self.attention = Projections(dim, num_heads, qk_norm)
        self.mlp = MLP(dim)

    def before(self, x: Tensor, c: Tensor) -> tuple[QKV, tuple[Modulation, ...]]:
        """Tokens (B, L, C) and conditioning vector (B, C) to `QKV` and the modulations that `after` needs."""
        mods = self.modulator(c)
        attention = mods[0]
        return self.attention.qkv(modulate(layer_norm(x), attention.shift, attention.scale)), mods

    def after(self, x: Tensor, attended: Tensor, mods: tuple[Modulation, ...]) -> Tensor:
        """Tokens and attention output, both (B, L, C), to tokens (B, L, C): gated residuals of attention and MLP."""
        attention, mlp = mods[:2]
        x = gated_add(x, attention.gate, self.attention.to_out(attended))
        return gated_add(x, mlp.gate, self.mlp(modulate(layer_norm(x), mlp.shift, mlp.scale)))


class DualStream(Stream):
    """A stream with a second attention over its own tokens only, as the image has in the first blocks of SD3.5-medium.

    The input of both attentions is the input of the block. The MLP follows both.
    """

    def __init__(self, dim: int, num_heads: int, qk_norm: str | None):
        super().__init__(dim, num_heads, qk_norm)
        self.modulator = Modulator(dim, branches=3)
        self.self_attention = Projections(dim, num_heads, qk_norm)

    def before_second(self, x: Tensor, mods: tuple[Modulation, ...]) -> QKV:
        """Tokens (B, L, C) and all modulations to the `QKV` of the second attention."""
        return self.self_attention.qkv(modulate(layer_norm(x), mods[2].shift, mods[2].scale))

    def after_second(self, x: Tensor, attended: Tensor, mods: tuple[Modulation, ...]) -> Tensor:
        """Tokens and output of the second attention, both (B, L, C), to tokens (B, L, C): its gated residual."""
        return gated_add(x, mods[2].gate, self.self_attention.to_out(attended))


class KeyValueStream(nn.Module):
    """The condition in the last block. Its tokens are not used afterwards, so they have no queries and are not updated;
    the image attends to their keys and values."""

    def __init__(self, dim: int, num_heads: int, qk_norm: str | None):
        super().__init__()
        self.norm = AdaLayerNorm(dim)
        self.attention = KeyValueProjections(dim, num_heads, qk_norm)

    def before(self, x: Tensor, c: Tensor) -> tuple[QKV, tuple[Modulation, ...]]:
        return self.attention.qkv(self.norm(x, c)), ()

    def after(self, x: Tensor, attended: Tensor | None, mods: tuple[Modulation, ...]) -> Tensor:
        return x


class MMDiTBlock(nn.Module):
    """One layer of both streams: norm and projections of each, joint attention, residuals of each."""

    def __init__(self, dim: int, num_heads: int, qk_norm: str | None, dual_attention: bool, last: bool):
        super().__init__()
        image_stream = DualStream if dual_attention else Stream
        condition_stream = KeyValueStream if last else Stream
        self.image = image_stream(dim, num_heads, qk_norm)
        self.condition = condition_stream(dim, num_heads, qk_norm)

    def forward(
        self,
        image: Tensor,
        condition: Tensor,
        c: Tensor,
        attention: JointAttention = joint_attention,
        block: int = 0,
        sigma: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Update image tokens (B, L, C) and condition tokens (B, M, C), given the conditioning vector c (B, C).

        `block` (index from 0) and `sigma` (in [0, 1]) are passed to `attention`. For the second attention of a dual
        block it is called again, without a condition.
        """
        image_qkv, image_mods = self.image.before(image, c)
        condition_qkv, condition_mods = self.condition.before(condition, c)
        image_attended, condition_attended = attention(image_qkv, condition_qkv, block=block, sigma=sigma)
        if isinstance(self.image, DualStream):
            second_qkv = self.image.before_second(image, image_mods)
            second_attended, _ = attention(second_qkv, None, block=block, sigma=sigma)
            image = self.image.after_second(image, second_attended, image_mods)
        image = self.image.after(image, image_attended, image_mods)
        condition = self.condition.after(condition, cast(Tensor, condition_attended), condition_mods)
        return image, condition


class MMDiT(ModelMixin, ConfigMixin):
    """The whole network: patch embedding, blocks of two streams, unpatchify.

    Args:
        sample_size: side of the latents (or images) that the network is made for, in latent pixels.
        patch_size: side p of a patch in latent pixels; it must divide the height and width of every input.
        in_channels, out_channels: K of input and output; out_channels None means the same.
        num_layers: number of blocks; in the last one the condition has keys and values only.
        attention_head_dim, num_attention_heads: D and H; 4 must divide C = H·D, for the position embeddings.
        joint_attention_dim: channels of the condition tokens at the input.
        pooled_projection_dim: channels of the pooled condition.
        pos_embed_max_size: side of the table of position embeddings in patches, which bounds the size of an input; None
            means sample_size / patch_size. A larger table is a finer grid of coordinates over the same span, so the
            size cannot be changed after training.
        qk_norm: "rms_norm" or None.
        dual_attention_layers: indices of the blocks whose image stream has a second self-attention (SD3.5-medium).

    Raises UserError if the sizes do not fit together.
    """

    # Names that methods of ModelMixin read
    _repeated_blocks = ["MMDiTBlock"]  # compiled by compile_repeated_blocks()
    _no_split_modules = ["MMDiTBlock"]  # kept on one device by device_map
    _supports_gradient_checkpointing = True  # by enable_gradient_checkpointing()
    _skip_layerwise_casting_patterns = ["patch_embed", "norm"]  # not stored in 8 bits by enable_layerwise_casting()

    @register_to_config
    def __init__(
        self,
        sample_size: int = 8,
        patch_size: int = 2,
        in_channels: int = 16,
        num_layers: int = 6,
        attention_head_dim: int = 64,
        num_attention_heads: int = 3,
        joint_attention_dim: int = 192,
        pooled_projection_dim: int = 192,
        pos_embed_max_size: int | None = None,
        qk_norm: str | None = "rms_norm",
        dual_attention_layers: tuple[int, ...] = (),
        out_channels: int | None = None,
    ):
        super().__init__()
        if sample_size % patch_size:
            raise UserError(f"patch_size {patch_size} does not divide sample_size {sample_size}")
        if not all(0 <= layer < num_layers for layer in dual_attention_layers):
            raise UserError(f"dual_attention_layers {tuple(dual_attention_layers)} must lie in 0 to {num_layers - 1}")
        table_size = pos_embed_max_size or sample_size // patch_size
        self.register_to_config(  # derived values are saved too; JSON turns tuples into lists
            dual_attention_layers=tuple(dual_attention_layers),
            out_channels=out_channels or in_channels,
            pos_embed_max_size=table_size,
        )
        dim = num_attention_heads * attention_head_dim
        self.patch_embed = PatchEmbed(sample_size, patch_size, in_channels, dim, table_size)
        self.conditioning = ConditioningVector(pooled_projection_dim, dim)
        self.condition_embed = nn.Linear(joint_attention_dim, dim)
        self.blocks = nn.ModuleList(
            MMDiTBlock(
                dim,
                num_attention_heads,
                qk_norm,
                dual_attention=layer in dual_attention_layers,
                last=layer == num_layers - 1,
            )
            for layer in range(num_layers)
        )
        self.norm_out = AdaLayerNorm(dim)
        self.proj_out = nn.Linear(dim, patch_size * patch_size * (out_channels or in_channels))
        self.gradient_checkpointing = False  # set by enable_gradient_checkpointing()
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """All initialization in one place (adaLN-Zero, Peebles & Xie 2022, arXiv 2212.09748)."""
        matrices_in = {"to_qkv": 3, "to_kv": 2}  # fused square matrices: each is initialized as if it were separate
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                for matrix in module.weight.chunk(matrices_in.get(name.split(".")[-1], 1)):
                    nn.init.xavier_uniform_(matrix)  # keeps the variance about the same
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, (Modulator, AdaLayerNorm)):  # gates are 0: each block starts as the identity
                nn.init.zeros_(module.linear.weight)
        nn.init.zeros_(self.proj_out.weight)  # the first prediction is 0

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        attention: JointAttention | None = None,
        sigma: float | None = None,
        skip_layers: Container[int] | None = None,
        block_controlnet_hidden_states: Sequence[Tensor] | None = None,
        joint_attention_kwargs: dict | None = None,
        return_dict: bool | None = None,
    ) -> Tensor:
        """One prediction.

        Args:
            hidden_states: noisy latents (B, K, height, width).
            encoder_hidden_states: condition tokens (B, M, joint_attention_dim); M may be 0.
            pooled_projections: pooled condition (B, pooled_projection_dim).
            timestep: (B,) in [0, 1000], fractions allowed: 1000 is pure noise, 0 is data.
            attention: replaces `joint_attention` in every block. None: `joint_attention`.
            sigma: what `attention` gets as its sigma. None: timestep / 1000, and all timesteps must then be equal; to
                compare them costs a synchronization with the GPU, and torch.compile breaks its graph there.
            skip_layers: indices of blocks that are left out, for skip-layer guidance.
            block_controlnet_hidden_states: residuals of a ControlNet, each (B, L, C), added to the image tokens after
                the blocks, except after the last one; each serves num_layers / (number of residuals) blocks.
            joint_attention_kwargs: `attention` by another name, {"attention": …}, for diffusers' pipelines, which pass
                it on under this name.
            return_dict: as in diffusers, for its pipelines: False returns a tuple of one, True an object with the
                attribute `sample`. None: a tensor.

        Returns:
            (B, out_channels, height, width).

        Raises UserError if shapes do not fit, if timesteps differ and `attention` is given without `sigma`, or for
        other entries of `joint_attention_kwargs`.
        """
        self.check_shapes(hidden_states, encoder_hidden_states, pooled_projections, timestep)
        height, width = hidden_states.shape[-2:]
        attention = attention or attention_among(joint_attention_kwargs)
        if attention is not None and sigma is None:
            sigma = common_sigma(timestep)
        c = self.conditioning(timestep, pooled_projections)
        image = self.patch_embed(hidden_states)
        condition = self.condition_embed(encoder_hidden_states)
        residuals = block_controlnet_hidden_states
        checkpointed = self.gradient_checkpointing and torch.is_grad_enabled()
        for number, block in enumerate(self.blocks):
            if skip_layers is None or number not in skip_layers:
                run = partial(cast(Callable, self._gradient_checkpointing_func), block) if checkpointed else block
                shared = () if attention is None else (attention, number, sigma)
                image, condition = run(image, condition, c, *shared)
            if residuals and number < len(self.blocks) - 1:
                image = image + residuals[number * len(residuals) // len(self.blocks)]
        patches = self.proj_out(self.norm_out(image, c))
        latents = unpatchify(patches, height, width, self.config["patch_size"])
        if return_dict is None:
            return latents
        return cast(Tensor, Transformer2DModelOutput(sample=latents) if return_dict else (latents,))

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs) -> Self:
        """Load a folder of `save_pretrained`. Raises UserError for the folder of another class, such as diffusers'."""
        path = Path(folder, kwargs.get("subfolder") or "", "config.json")
        kind = json.loads(path.read_text()).get("_class_name", cls.__name__) if path.is_file() else cls.__name__
        if kind == "SD3Transformer2DModel":
            raise UserError(f"{folder} is in diffusers' format: load it by gen_affect_lib.parity.load_diffusers")
        if kind != cls.__name__:
            raise UserError(f"{folder} holds a {kind}, not an {cls.__name__}: give another folder")
        return super().from_pretrained(folder, **kwargs)

    def check_shapes(self, latents: Tensor, tokens: Tensor, pooled: Tensor, timestep: Tensor) -> None:
        """Raise UserError for an input of the wrong shape; the message has the expected shape and the given one."""
        B, sizes = latents.shape[0], self.config
        for name, tensor, expected, hint in (
            ("hidden_states", latents, (B, sizes["in_channels"], "height", "width"), "encode images with the codec"),
            ("encoder_hidden_states", tokens, (B, "tokens", sizes["joint_attention_dim"]), "give one row per latent"),
            ("pooled_projections", pooled, (B, sizes["pooled_projection_dim"]), "give one row per latent"),
            ("timestep", timestep, (B,), f"try timestep.expand({B})"),
        ):
            came = tuple(tensor.shape)
            if len(came) != len(expected) or any(isinstance(e, int) and e != n for e, n in zip(expected, came)):
                shape = ", ".join(str(size) for size in expected)
                raise UserError(f"{name} of shape ({shape}) expected, got {came}: {hint}")


def common_sigma(timestep: Tensor) -> float:
    """The sigma of a batch (B,) in which all timesteps are equal. Raises UserError if they differ."""
    timestep = timestep.cpu()  # one synchronization; and the division below rounds the same on every device
    if (timestep != timestep[0]).any():
        raise UserError("the timesteps of a batch differ: with `attention`, give the same timestep for all images")
    return (timestep[0] / 1000).item()


def attention_among(options: dict | None) -> JointAttention | None:
    """The attention in the `joint_attention_kwargs` of diffusers' pipelines. Raises UserError for another entry."""
    for name in options or ():
        if name != "attention":
            raise UserError(
                f"joint_attention_kwargs has {name!r}, which an MMDiT does not know: give only 'attention'; merge "
                "a LoRA before from_diffusers"
            )
    return (options or {}).get("attention")
