"""Convert weights to and from diffusers' `SD3Transformer2DModel`, which computes the same function.

`renamed` pairs the names of the modules; both directions use it.

What differs besides names:
- query, key and value: three square matrices in diffusers, one fused matrix here;
- modulation: always [shift | scale] here, but [scale | shift] in diffusers for the last norm of the image and the
  condition's norm in the last block;
- patch embedding: a convolution in diffusers, a linear layer here;
- last block: diffusers has projections for the condition's queries and discards the output. This library does not have
  them: `from_diffusers` drops their weights and `to_diffusers` writes zeros.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gen_affect_lib.errors import UserError
from gen_affect_lib.model.mmdit import MMDiT

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

SHARED_SIZES = (
    "sample_size",
    "patch_size",
    "in_channels",
    "num_layers",
    "attention_head_dim",
    "num_attention_heads",
    "joint_attention_dim",
    "pooled_projection_dim",
    "pos_embed_max_size",
    "qk_norm",
    "dual_attention_layers",
    "out_channels",
)


def renamed(config: Mapping) -> Iterator[tuple[str, list[str]]]:
    """Each of our modules with weights, and the modules of diffusers whose rows it consists of, in order."""
    yield "patch_embed.proj", ["pos_embed.proj"]
    for here, there in (("time", "timestep_embedder"), ("pooled", "text_embedder")):
        yield f"conditioning.{here}.0", [f"time_text_embed.{there}.linear_1"]
        yield f"conditioning.{here}.2", [f"time_text_embed.{there}.linear_2"]
    yield "condition_embed", ["context_embedder"]
    yield "norm_out.linear", ["norm_out.linear"]
    yield "proj_out", ["proj_out"]
    for layer in range(config["num_layers"]):
        last = layer == config["num_layers"] - 1
        for here, there in block_names(last, layer in config["dual_attention_layers"], config["qk_norm"] is not None):
            yield f"blocks.{layer}.{here}", [f"transformer_blocks.{layer}.{name}" for name in there]


def block_names(last: bool, dual_attention: bool, qk_norm: bool) -> Iterator[tuple[str, list[str]]]:
    """The same as `renamed`, for one block."""
    yield "image.modulator.linear", ["norm1.linear"]
    yield "image.attention.to_qkv", ["attn.to_q", "attn.to_k", "attn.to_v"]
    yield "image.attention.to_out", ["attn.to_out.0"]
    yield "image.mlp.widen", ["ff.net.0.proj"]
    yield "image.mlp.narrow", ["ff.net.2"]
    if qk_norm:
        yield "image.attention.norm_q", ["attn.norm_q"]
        yield "image.attention.norm_k", ["attn.norm_k"]
        yield "condition.attention.norm_k", ["attn.norm_added_k"]

    if dual_attention:
        yield "image.self_attention.to_qkv", ["attn2.to_q", "attn2.to_k", "attn2.to_v"]
        yield "image.self_attention.to_out", ["attn2.to_out.0"]
        if qk_norm:
            yield "image.self_attention.norm_q", ["attn2.norm_q"]
            yield "image.self_attention.norm_k", ["attn2.norm_k"]

    if last:
        yield "condition.norm.linear", ["norm1_context.linear"]
        yield "condition.attention.to_kv", ["attn.add_k_proj", "attn.add_v_proj"]
        return
    yield "condition.modulator.linear", ["norm1_context.linear"]
    yield "condition.attention.to_qkv", ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"]
    yield "condition.attention.to_out", ["attn.to_add_out"]
    yield "condition.mlp.widen", ["ff_context.net.0.proj"]
    yield "condition.mlp.narrow", ["ff_context.net.2"]
    if qk_norm:
        yield "condition.attention.norm_q", ["attn.norm_added_q"]


def scale_comes_first(module: str) -> bool:
    """Whether diffusers has [scale | shift] where our module has [shift | scale]: its `AdaLayerNormContinuous`."""
    return module.endswith(("norm_out.linear", "condition.norm.linear"))


def from_their_rows(module: str, rows: Tensor) -> Tensor:
    """Weights or biases of diffusers in the order and shape of our `module`; `to_their_rows` is the inverse."""
    if scale_comes_first(module):
        return torch.cat(rows.chunk(2)[::-1])
    if rows.ndim == 4:
        return rows.permute(0, 2, 3, 1).flatten(1)  # convolution (C, K, p, p) -> linear (C, p·p·K)
    return rows


def to_their_rows(module: str, rows: Tensor, patch_size: int) -> Tensor:
    if scale_comes_first(module):
        return torch.cat(rows.chunk(2)[::-1])
    if module == "patch_embed.proj" and rows.ndim == 2:
        p = patch_size
        return rows.unflatten(1, (p, p, -1)).permute(0, 3, 1, 2)  # linear (C, p·p·K) -> convolution (C, K, p, p)
    return rows


def unused_modules(config: Mapping) -> list[str]:
    """The modules of diffusers' last block for queries of the condition, whose outputs are discarded."""
    attention = f"transformer_blocks.{config['num_layers'] - 1}.attn"
    return [f"{attention}.add_q_proj"] + ([f"{attention}.norm_added_q"] if config["qk_norm"] else [])


def from_diffusers(sd3_transformer: "SD3Transformer2DModel") -> MMDiT:
    """An MMDiT with the weights of diffusers' model: equal outputs, same dtype, device and mode.

    Raises UserError for sizes that an MMDiT does not support, and for weights that it does not have.
    """
    config = sd3_transformer.config
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    if config["caption_projection_dim"] != dim:
        raise UserError(
            f"caption_projection_dim {config['caption_projection_dim']} is not the width {dim} of the blocks: "
            f"such a model does not run in diffusers either, give both the same width"
        )
    if config["pos_embed_max_size"] is None:
        raise UserError(
            "pos_embed_max_size is None, so no table of positions is saved: give the diffusers model a number"
        )
    model = MMDiT(**{size: config[size] for size in SHARED_SIZES})
    nn.Module.to(model, device=sd3_transformer.device, dtype=sd3_transformer.dtype)

    there, ours = dict(renamed(config)), {}
    theirs = sd3_transformer.state_dict()
    table = theirs.pop("pos_embed.pos_embed")  # (1, M², C)
    ours["patch_embed.positions"] = table.unflatten(1, (config["pos_embed_max_size"], -1))[0]  # (M, M, C)
    for module, kind in (name.rsplit(".", 1) for name, _ in model.named_parameters()):
        rows = torch.cat([theirs.pop(f"{name}.{kind}") for name in there[module]])
        ours[f"{module}.{kind}"] = from_their_rows(module, rows)
    unknown = [name for name in theirs if not name.startswith(tuple(unused_modules(config)))]
    if unknown:
        raise UserError(f"an MMDiT does not have the weights {unknown[:3]}: unload adapters before converting")
    model.load_state_dict(ours, strict=True)
    return model.train(sd3_transformer.training)


def to_diffusers(model: MMDiT) -> "SD3Transformer2DModel":
    """diffusers' model with the weights of an MMDiT: equal outputs, same dtype, device and mode."""
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    config = model.config
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    sd3_transformer = SD3Transformer2DModel(**{size: config[size] for size in SHARED_SIZES}, caption_projection_dim=dim)
    nn.Module.to(sd3_transformer, device=model.device, dtype=model.dtype)  # that of ModelMixin warns at every cast

    there = dict(renamed(config))
    theirs = {"pos_embed.pos_embed": model.patch_embed.positions.flatten(0, 1)[None]}  # (M, M, C) -> (1, M², C)
    for module, kind, rows in ((*name.rsplit(".", 1), rows) for name, rows in model.named_parameters()):
        parts = to_their_rows(module, rows.detach(), config["patch_size"]).chunk(len(there[module]))
        theirs |= {f"{name}.{kind}": part for name, part in zip(there[module], parts, strict=True)}
    for name, rows in sd3_transformer.state_dict().items():
        if name.startswith(tuple(unused_modules(config))):
            theirs[name] = torch.zeros_like(rows)
    sd3_transformer.load_state_dict(theirs, strict=True)
    return sd3_transformer.train(model.training)
