"""Convert weights to and from diffusers' `SD3Transformer2DModel`, which computes the same function.

`renamed` pairs the names of the modules; both directions use it. Weights are converted one tensor at a time into a
network that is built without memory (on PyTorch's device "meta"). So `load_diffusers` needs little more memory than the
weights themselves: published models have billions of them.

What differs besides names:

- query, key and value: three square matrices in diffusers, one fused matrix here;
- modulation: always [shift | scale] here, but [scale | shift] in diffusers for the last norm of the image and the
  condition's norm in the last block;
- patch embedding: a convolution in diffusers, a linear layer here;
- last block: diffusers has projections for the condition's queries and discards the output. This library does not have
  them: `from_diffusers` drops their weights and `to_diffusers` writes zeros.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from gen_affect_lib.errors import UserError
from gen_affect_lib.machine import free_memory
from gen_affect_lib.model.mmdit import MMDiT

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

WEIGHTS = "diffusion_pytorch_model"  # how diffusers' files of weights start
WEIGHT_FILES = re.compile(  # the group is the variant, as in "fp16"; files without one have none
    rf"{WEIGHTS}(?:-\d+-of-\d+)?(?:\.(\w+))?(?:-\d+-of-\d+)?\.safetensors|{WEIGHTS}\.safetensors\.index(?:\.(\w+))?\.json"
)
UNQUANTISED = "give the model in float16, bfloat16 or float32, and quantise the MMDiT afterwards"
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
    """An MMDiT with copies of the weights of diffusers' model: equal outputs, same dtype, device and mode.

    Raises UserError for sizes that an MMDiT does not support, and for weights that it does not have, such as those of
    LoRA layers or of a quantised model.
    """
    config, theirs, where = sd3_transformer.config, sd3_transformer.state_dict(), "the model of diffusers"
    if getattr(sd3_transformer, "hf_quantizer", None) or any(type(rows) is not Tensor for rows in theirs.values()):
        raise UserError(f"{where} is quantised: {UNQUANTISED}")
    sizes = _sizes(config)
    _require_weights(config, theirs, where)
    for name, rows in theirs.items():
        if rows.is_meta:
            raise UserError(
                f"{where} has {name} on the device meta, as if offloaded: read its folder by load_diffusers"
            )
        if not rows.is_floating_point() or rows.dtype.itemsize < 2:
            raise UserError(f"{where} is quantised ({name} in {rows.dtype}): {UNQUANTISED}")
    dtype, device = sd3_transformer.dtype, sd3_transformer.device
    return _assemble(config, sizes, theirs.__getitem__, dtype, device, where).train(sd3_transformer.training)


def load_diffusers(
    folder: str | Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    variant: str | None = None,
) -> MMDiT:
    """An MMDiT with the weights in a folder of diffusers, in evaluation mode.

    One tensor is read at a time, so the peak of memory is less than 1.1 times the size of the result.

    Args:
        folder: of a `SD3Transformer2DModel` in safetensors, in one file or in several; or a pipeline's folder with
            that one as `transformer/`.
        dtype: of the result; None: as stored.
        device: of the result.
        variant: as in "fp16", of the files `diffusion_pytorch_model.fp16.safetensors`; None: the plain files, or the
            only variant.

    Raises UserError if the folder does not hold such a model or not all of it, if the model has another architecture,
    LoRA layers or quantised weights, and, before anything is read, if the memory does not suffice.
    """
    folder = transformer_folder(folder)
    config = transformer_config(folder)
    sizes = _sizes(config)
    files = _files_of_weights(folder, variant)
    _require_weights(config, files, str(folder))
    device = torch.device(device)
    dtype = dtype or stored_dtype(folder, variant)
    _require_memory(sizes, dtype, device, folder)
    return _assemble(config, sizes, lambda name: _read(files, name), dtype, device, str(folder)).eval()


def stored_dtype(folder: Path, variant: str | None = None) -> torch.dtype:
    """The dtype of the weights in a transformer's folder; raises UserError as `load_diffusers`."""
    files = _files_of_weights(folder, variant)
    if "proj_out.weight" not in files:
        raise UserError(f"{folder} lacks proj_out.weight: download it again")
    return _read(files, "proj_out.weight").dtype


def transformer_folder(folder: str | Path) -> Path:
    """The folder of the transformer: `folder` itself, or `transformer/` in a pipeline's folder.

    Raises UserError if there is none.
    """
    folder = Path(folder).expanduser()
    if folder.is_file():
        raise UserError(f"{folder} is a single file: give a folder in diffusers' layout, with transformer/config.json")
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder on this machine: download one, for example by "
            "`hf download stabilityai/stable-diffusion-3.5-medium --local-dir FOLDER` (read its licence first)"
        )
    if (folder / "model_index.json").is_file():
        pipeline = _json(folder / "model_index.json").get("_class_name")
        if not (folder / "transformer" / "config.json").is_file():
            raise UserError(f"{folder} holds a {pipeline} without a transformer: give a folder of Stable Diffusion 3.5")
        return folder / "transformer"
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has neither model_index.json nor config.json: give a folder in diffusers' layout")
    return folder


def transformer_config(folder: Path) -> dict:
    """The configuration of the transformer in a folder, with diffusers' defaults for what it does not say.

    Raises UserError for another architecture, and for a quantised model.
    """
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    stored = _json(folder / "config.json")
    kind = stored.get("_class_name")
    if kind != "SD3Transformer2DModel":
        found = "an MMDiT of this library: load it by MMDiT.from_pretrained" if kind == "MMDiT" else f"a {kind}"
        raise UserError(f"{folder} holds {found}; expected an SD3Transformer2DModel, as in Stable Diffusion 3.5")
    if stored.get("quantization_config"):
        raise UserError(f"{folder} is quantised: {UNQUANTISED}")
    parameters = inspect.signature(SD3Transformer2DModel.__init__).parameters.values()
    config = {p.name: p.default for p in parameters if p.default is not p.empty} | stored
    return config | {"dual_attention_layers": tuple(config["dual_attention_layers"])}


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error!s:.100}): download it again") from error


def _sizes(config: Mapping) -> dict:
    """The arguments of `MMDiT`. Raises UserError if an MMDiT cannot be so."""
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
    return {size: config[size] for size in SHARED_SIZES}


def _files_of_weights(folder: Path, variant: str | None) -> dict[str, Path]:
    """The file of each weight. Raises UserError if files are missing, damaged, or of several variants."""
    variants = {match[1] or match[2] or "" for path in folder.iterdir() if (match := WEIGHT_FILES.fullmatch(path.name))}
    if variant is None and "" not in variants and len(variants) == 1:
        (variant,) = variants
    if (variant or "") not in variants:
        wanted = f"of the variant {variant}" if variant else "without a variant"
        there = f"there are the variants {sorted(variants)}" if variants else "files to be unpickled are not read"
        raise UserError(f"{folder} has no {WEIGHTS}*.safetensors {wanted}: {there}")

    middle = f".{variant}" if variant else ""
    index = folder / f"{WEIGHTS}.safetensors.index{middle}.json"
    if index.is_file():
        files = {name: folder / file for name, file in _json(index)["weight_map"].items()}
    else:
        whole = folder / f"{WEIGHTS}{middle}.safetensors"
        if not whole.is_file():
            raise UserError(
                f"{index} is missing, without which the parts of the weights are unknown: download it again"
            )
        files = dict.fromkeys(_dtypes_in(whole), whole)
    for path in sorted(set(files.values())):
        if not path.is_file():
            raise UserError(f"{path} is missing, a part of the weights: download it again")
        found = _dtypes_in(path)
        if absent := {name for name, file in files.items() if file == path} - set(found):
            raise UserError(f"{path} does not hold {sorted(absent)[0]}: download it again")
        if quantised := {name: dtype for name, dtype in found.items() if dtype not in ("F64", "F32", "F16", "BF16")}:
            name, dtype = min(quantised.items())
            raise UserError(f"{path} is quantised ({name} in {dtype}): {UNQUANTISED}")
    return files


def _dtypes_in(path: Path) -> dict[str, str]:
    """Names of the weights in a file, and their types as safetensors names them."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_slice(name).get_dtype() for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error!s:.100}): download it again") from error


def _read(files: Mapping[str, Path], name: str) -> Tensor:
    """One weight. The file is closed again, since what has been read of an open one stays in memory."""
    with safe_open(files[name], "pt") as file:
        return file.get_tensor(name)


def _require_weights(config: Mapping, names: Iterable[str], where: str) -> None:
    """Raise UserError unless exactly the weights of the configuration are there."""
    names = set(names)
    lora = sorted(name for name in names if "lora_" in name or ".base_layer." in name)
    if lora:
        raise UserError(f"{where} has LoRA layers ({lora[0]}): merge them first, by fuse_lora() and unload_lora()")
    with torch.device("meta"):
        kinds = {name for name, _ in MMDiT(**_sizes(config)).named_parameters()}
    expected = {"pos_embed.pos_embed"}
    for module, sources in renamed(config):
        expected |= {f"{one}.{kind}" for one in sources for kind in ("weight", "bias") if f"{module}.{kind}" in kinds}
    if missing := sorted(expected - names):
        raise UserError(
            f"{where} lacks {len(missing)} weights of its configuration, such as {missing[0]}: get it again"
        )
    unused = tuple(unused_modules(config))
    if unknown := sorted(name for name in names - expected if not name.startswith(unused)):
        raise UserError(f"an MMDiT does not have the weights {unknown[:3]}: unload adapters before converting")


def _require_memory(sizes: Mapping, dtype: torch.dtype, device: torch.device, folder: Path) -> None:
    """Raise UserError unless the weights fit into the memory that is free."""
    with torch.device("meta"):
        numbers = sum(rows.numel() for rows in MMDiT(**sizes).state_dict().values())
    needed, free = numbers * dtype.itemsize, free_memory(device)
    if 1.1 * needed > free:
        less = f"give dtype=torch.bfloat16 ({2 * numbers / 1e9:.1f} GB), " if dtype.itemsize > 2 else ""
        raise UserError(
            f"{folder} needs {1.1 * needed / 1e9:.1f} GB in {str(dtype).removeprefix('torch.')} on {device}, where "
            f"{free / 1e9:.1f} GB are free: {less}free some memory or give another device"
        )


def _assemble(
    config: Mapping,
    sizes: Mapping,
    read: Callable[[str], Tensor],
    dtype: torch.dtype,
    device: torch.device,
    where: str,
) -> MMDiT:
    """An MMDiT of copies of diffusers' weights, each taken by `read(name)` when its turn comes."""
    with torch.device("meta"):  # without memory, and without an initialization that is then overwritten
        model = MMDiT(**sizes)
    there = dict(renamed(config))

    def fill(rows: Tensor, part: Tensor, name: str) -> None:
        if rows.shape != part.shape:
            raise UserError(f"{where}: {name} is {tuple(part.shape)} and not {tuple(rows.shape)} as its sizes say")
        rows.copy_(part)

    with torch.no_grad():
        table = torch.empty(model.patch_embed.positions.shape, dtype=dtype, device=device)
        fill(table.flatten(0, 1)[None], read("pos_embed.pos_embed"), "pos_embed.pos_embed")  # (M, M, C) -> (1, M², C)
        model.patch_embed.positions = table
        for name, empty in list(model.named_parameters()):
            module, kind = name.rsplit(".", 1)
            rows = torch.empty(empty.shape, dtype=dtype, device=device)
            for part, source in zip(rows.chunk(len(there[module])), there[module], strict=True):
                fill(part, from_their_rows(module, read(f"{source}.{kind}")), f"{source}.{kind}")
            setattr(model.get_submodule(module), kind, nn.Parameter(rows))
    return model


def to_diffusers(model: MMDiT) -> "SD3Transformer2DModel":
    """diffusers' model with copies of the weights of an MMDiT: equal outputs, same dtype, device and mode."""
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    config = model.config
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    with torch.device("meta"):
        sd3_transformer = SD3Transformer2DModel(**{s: config[s] for s in SHARED_SIZES}, caption_projection_dim=dim)

    there = dict(renamed(config))
    with torch.no_grad():
        table = model.patch_embed.positions.flatten(0, 1)[None].clone()  # (M, M, C) -> (1, M², C)
        sd3_transformer.pos_embed.register_buffer("pos_embed", table)
        for module, kind, rows in ((*name.rsplit(".", 1), rows) for name, rows in model.named_parameters()):
            parts = to_their_rows(module, rows, config["patch_size"]).chunk(len(there[module]))
            for name, part in zip(there[module], parts, strict=True):
                # A copy that is contiguous even if it is of a permuted matrix.
                copied = nn.Parameter(part.clone(memory_format=torch.contiguous_format))
                setattr(sd3_transformer.get_submodule(name), kind, copied)
        for name, empty in list(sd3_transformer.named_parameters()):
            if name.startswith(tuple(unused_modules(config))):
                module, kind = name.rsplit(".", 1)
                zeros = torch.zeros(empty.shape, dtype=model.dtype, device=model.device)
                setattr(sd3_transformer.get_submodule(module), kind, nn.Parameter(zeros))
    return sd3_transformer.train(model.training)
