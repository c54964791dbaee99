"""The multimodal diffusion transformer (MM-DiT) of Stable Diffusion 3, from scratch.

Two streams of tokens, the noisy image and the condition, run through the same kind of layers with weights of their own
and meet in one place only, joint attention (Esser et al. 2024, arXiv 2403.03206). Names of sizes are diffusers', and
`gen_affect_lib.parity` carries weights to and from its `SD3Transformer2DModel`; from diffusers itself comes nothing but
saving and loading (`save_pretrained`, `from_pretrained`).

Letters: B images, K channels of a picture or latent, L tokens, H heads, D channels per head, C = H·D channels of a
token. Taught in notebook 03.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from gen_affect_lib.errors import UserError
from gen_affect_lib.model.attention import QKV, LentProjections, Projections, attend, joint_attention
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
    """Each token on its own: widen four times, GELU (its tanh form), narrow again."""

    def __init__(self, dim: int):
        super().__init__()
        self.widen = nn.Linear(dim, 4 * dim)
        self.narrow = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(F.gelu(self.widen(x), approximate="tanh"))


class Stream(nn.Module):
    """One modality's way through a block: `before` it meets the other one in joint attention, and `after`.

    The image and the condition are two objects of this one class.
    """

    def __init__(self, dim: int, num_heads: int, qk_norm: str | None):
        super().__init__()
        self.modulator = Modulator(dim, branches=2)
        self.attention = Projections(dim, num_heads, qk_norm)
        self.mlp = MLP(dim)

    def before(self, x: Tensor, c: Tensor) -> tuple[QKV, tuple[Modulation, ...]]:
        """Tokens (B, L, C) and conditioning vector (B, C) to what goes into attention, and what `after` will need."""
        mods = self.modulator(c)
        attention = mods[0]
        return self.attention.qkv(modulate(layer_norm(x), attention.shift, attention.scale)), mods

    def after(self, x: Tensor, seen: Tensor, mods: tuple[Modulation, ...]) -> Tensor:
        """Tokens (B, L, C) and what they saw (B, L, C) to the tokens after two gated residuals: attention and MLP."""
        attention, mlp = mods
        x = gated_add(x, attention.gate, self.attention.to_out(seen))
        return gated_add(x, mlp.gate, self.mlp(modulate(layer_norm(x), mlp.shift, mlp.scale)))


class DualStream(Stream):
    """A stream that also attends to itself alone, as the image does in the first blocks of SD3.5-medium.

    Both attentions read the tokens as they came into the block; the MLP comes after both.
    """

    def __init__(self, dim: int, num_heads: int, qk_norm: str | None):
        super().__init__(dim, num_heads, qk_norm)
        self.modulator = Modulator(dim, branches=3)
        self.self_attention = Projections(dim, num_heads, qk_norm)

    def after(self, x: Tensor, seen: Tensor, mods: tuple[Modulation, ...]) -> Tensor:
        *joint_and_mlp, alone = mods
        own = attend(*self.self_attention.qkv(modulate(layer_norm(x), alone.shift, alone.scale)))
        x = gated_add(x, alone.gate, self.self_attention.to_out(own))
        return super().after(x, seen, joint_and_mlp)


class LentStream(nn.Module):
    """The condition in the last block. Nothing reads its tokens afterwards, so it asks nothing and is not updated:
    it lends keys and values to the image and is done."""

    def __init__(self, dim: int, num_heads: int, qk_norm: str | None):
        super().__init__()
        self.norm = AdaLayerNorm(dim)
        self.attention = LentProjections(dim, num_heads, qk_norm)

    def before(self, x: Tensor, c: Tensor) -> tuple[QKV, None]:
        return self.attention.qkv(self.norm(x, c)), None

    def after(self, x: Tensor, seen: None, mods: None) -> Tensor:
        return x


class MMDiTBlock(nn.Module):
    """Both streams once through: each alone, together, each alone."""

    def __init__(self, dim: int, num_heads: int, qk_norm: str | None, dual_attention: bool, last: bool):
        super().__init__()
        image_stream = DualStream if dual_attention else Stream
        condition_stream = LentStream if last else Stream
        self.image = image_stream(dim, num_heads, qk_norm)
        self.condition = condition_stream(dim, num_heads, qk_norm)

    def forward(self, image: Tensor, condition: Tensor, c: Tensor, attention=joint_attention) -> tuple[Tensor, Tensor]:
        """Image tokens (B, L, C), condition tokens (B, M, C), conditioning vector (B, C) to both kinds of tokens."""
        image_qkv, image_mods = self.image.before(image, c)
        condition_qkv, condition_mods = self.condition.before(condition, c)
        seen_by_image, seen_by_condition = attention(image_qkv, condition_qkv)  # the only place where they meet
        image = self.image.after(image, seen_by_image, image_mods)
        condition = self.condition.after(condition, seen_by_condition, condition_mods)
        return image, condition


class MMDiT(ModelMixin, ConfigMixin):
    """The whole network: patches in, blocks of two streams, patches out. It knows nothing of noise, only of timesteps.

    Args:
        sample_size: side of the latents (or pictures) it is made for, in latent pixels.
        patch_size: side p of a patch in latent pixels; it must divide every height and width that comes.
        in_channels, out_channels: K of what comes and of what goes; out_channels None means the same.
        num_layers: number of blocks; in the last one the condition only lends keys and values.
        attention_head_dim, num_attention_heads: D and H; C = H·D must divide by 4 for the positions.
        joint_attention_dim: channels of the condition tokens as they come.
        pooled_projection_dim: channels of the pooled condition.
        pos_embed_max_size: side of the table of positions in patches, the largest picture it can do; None means just
            `sample_size`. A larger table makes a finer grid of coordinates over the same span, so it belongs to
            the weights and cannot be changed after training.
        qk_norm: "rms_norm" or None.
        dual_attention_layers: numbers of the blocks whose image stream also attends to itself alone (SD3.5-medium).
    """

    _repeated_blocks = ["MMDiTBlock"]  # what compile_repeated_blocks() compiles
    _no_split_modules = ["MMDiTBlock"]  # what device_map keeps on one device

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
        self.register_to_config(  # what is derived is saved too; tuples come back from JSON as lists
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
        self.proj_out = nn.Linear(dim, patch_size * patch_size * self.config.out_channels)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Every choice of the start, in one place (adaLN-Zero, Peebles & Xie 2022, arXiv 2212.09748)."""
        matrices_in = {"to_qkv": 3, "to_kv": 2}  # several square matrices in one: each is drawn as if it stood alone
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                for matrix in module.weight.chunk(matrices_in.get(name.split(".")[-1], 1)):
                    nn.init.xavier_uniform_(matrix)  # about the same variance goes out as came in
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, (Modulator, AdaLayerNorm)):  # gates closed: each block starts as the identity
                nn.init.zeros_(module.linear.weight)
        nn.init.zeros_(self.proj_out.weight)  # the first prediction is zero: nothing is claimed yet

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        attention: Callable | None = None,
    ) -> Tensor:
        """One prediction.

        Args:
            hidden_states: noisy latents (B, K, height, width).
            encoder_hidden_states: condition tokens (B, M, joint_attention_dim); M may be 0.
            pooled_projections: pooled condition (B, pooled_projection_dim).
            timestep: (B,) in [0, 1000], fractions allowed: 1000 is pure noise, 0 is data.
            attention: what stands in the place of `joint_attention`, told the number of the block as well; see
                `consistent.py`.

        Returns:
            (B, out_channels, height, width). Raises ValueError where shapes do not fit.
        """
        self.check_shapes(hidden_states, encoder_hidden_states, pooled_projections, timestep)
        height, width = hidden_states.shape[-2:]
        c = self.conditioning(timestep, pooled_projections)
        image = self.patch_embed(hidden_states)
        condition = self.condition_embed(encoder_hidden_states)
        for number, block in enumerate(self.blocks):
            instead = () if attention is None else (partial(attention, block=number),)
            image, condition = block(image, condition, c, *instead)
        patches = self.proj_out(self.norm_out(image, c))
        return unpatchify(patches, height, width, self.config.patch_size)

    def check_shapes(self, latents: Tensor, tokens: Tensor, pooled: Tensor, timestep: Tensor) -> None:
        """Say in one line what came, what was expected and what to try, before a matrix product says it in three."""
        B, sizes = len(latents), self.config
        for name, tensor, expected, hint in (
            ("hidden_states", latents, (B, sizes.in_channels, "height", "width"), "are they of the codec's space"),
            ("encoder_hidden_states", tokens, (B, "tokens", sizes.joint_attention_dim), "is there one row a latent"),
            ("pooled_projections", pooled, (B, sizes.pooled_projection_dim), "is there one row a latent"),
            ("timestep", timestep, (B,), "try timestep.expand(B)"),
        ):
            came = tuple(tensor.shape)
            if len(came) != len(expected) or any(isinstance(e, int) and e != n for e, n in zip(expected, came)):
                shape = ", ".join(str(size) for size in expected)
                raise UserError(f"{name} of shape ({shape}) expected, got {came}: {hint}")
