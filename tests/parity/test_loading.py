"""Folders of diffusers: read in every layout, in little memory, and refused in one line where that is not possible."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn

from gen_affect_lib import parity
from gen_affect_lib.errors import UserError
from gen_affect_lib.fullscale import tiny_sd3
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.parity import from_diffusers, load_diffusers, to_diffusers

FILE = "diffusion_pytorch_model.safetensors"
INDEX = FILE + ".index.json"


@pytest.fixture(scope="module")
def theirs():
    return tiny_sd3.transformer()


@pytest.fixture(scope="module")
def stored(theirs, tmp_path_factory) -> dict[str, Path]:
    """The same model in every layout that diffusers writes, and in folders above."""
    folder = tmp_path_factory.mktemp("sd3")
    theirs.save_pretrained(folder / "plain")
    theirs.save_pretrained(folder / "sharded", max_shard_size="200KB")
    theirs.save_pretrained(folder / "variant", variant="fp16")
    theirs.save_pretrained(folder / "sharded_variant", variant="fp16", max_shard_size="200KB")
    theirs.save_pretrained(folder / "pipeline" / "transformer")
    (folder / "pipeline" / "model_index.json").write_text('{"_class_name": "StableDiffusion3Pipeline"}')
    assert len(list((folder / "sharded").glob("*.safetensors"))) > 2
    return {path.name: path for path in folder.iterdir()}


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("layout", ["plain", "sharded", "variant", "sharded_variant", "pipeline"])
def test_every_layout_gives_the_same_network(theirs, stored, layout):
    loaded = load_diffusers(stored[layout])
    assert equal(loaded, from_diffusers(theirs)) and not loaded.training
    assert not any(tensor.is_meta for tensor in loaded.state_dict().values())
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_the_dtype_is_the_one_of_the_files_or_the_given_one(stored, theirs, tmp_path):
    half = copied(stored["plain"], tmp_path / "half")
    save_file({name: rows.half() for name, rows in load_file(half / FILE).items()}, half / FILE)
    assert load_diffusers(half).dtype == torch.float16
    loaded = load_diffusers(half, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.bfloat16}


def test_a_variant_is_found_by_name_and_by_being_the_only_one(stored, tmp_path):
    both = copied(stored["variant"], tmp_path / "both")
    (both / "diffusion_pytorch_model.ema.safetensors").write_bytes(
        (both / "diffusion_pytorch_model.fp16.safetensors").read_bytes()
    )
    assert equal(load_diffusers(both, variant="ema"), load_diffusers(stored["variant"]))
    with pytest.raises(UserError, match=r"without a variant: there are the variants \['ema', 'fp16'\]"):
        load_diffusers(both)
    with pytest.raises(UserError, match="of the variant fp8"):
        load_diffusers(both, variant="fp8")


def test_what_is_loaded_is_not_tied_to_the_file(stored, tmp_path):
    folder = copied(stored["plain"], tmp_path / "mine")
    loaded = load_diffusers(folder)
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    (folder / FILE).write_bytes(bytes((folder / FILE).stat().st_size))
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.state_dict().items())


# --- memory ----------------------------------------------------------------------------------------------------------

LARGE = dict(num_layers=2, attention_head_dim=64, num_attention_heads=16, caption_projection_dim=1024)
MEASURE = """
import sys, psutil, torch
from gen_affect_lib.parity import from_diffusers, load_diffusers
from diffusers import SD3Transformer2DModel

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

def now():
    return psutil.Process().memory_info().rss

def copies(make):
    # The peak above what is there before, in sizes of the result.
    before = now()
    open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
    model = make()
    size = sum(rows.nbytes for rows in model.state_dict().values())
    assert size > 2.5e8
    return (peak() - before) / size

print(copies(lambda: load_diffusers(sys.argv[1])))
source = SD3Transformer2DModel.from_pretrained(sys.argv[1])
sum(rows.sum() for rows in source.parameters())  # the whole source is in memory
print(copies(lambda: from_diffusers(source)))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A model of 300 MB in two files."""
    folder = tmp_path_factory.mktemp("large")
    with torch.device("meta"):
        model = tiny_sd3.SD3Transformer2DModel(**(tiny_sd3.TRANSFORMER | LARGE))
    model.save_config(folder)
    weights = {name: torch.rand(rows.shape) for name, rows in model.state_dict().items()}
    names = sorted(weights)
    files = [f"diffusion_pytorch_model-0000{n + 1}-of-00002.safetensors" for n in range(2)]
    for n, file in enumerate(files):
        save_file({name: weights[name] for name in names[n::2]}, folder / file)
    where = {name: files[n % 2] for n, name in enumerate(names)}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read as on Linux")
def test_the_peak_of_memory_is_little_above_the_result(large):
    run = subprocess.run([sys.executable, "-c", MEASURE, large], capture_output=True, text=True, check=True)
    assert all(0.9 < float(copies) < 1.1 for copies in run.stdout.split()[-2:]), run.stdout


def test_nothing_is_initialized_in_vain(theirs, stored, monkeypatch):
    calls = []
    xavier = nn.init.xavier_uniform_
    monkeypatch.setattr(nn.init, "xavier_uniform_", lambda rows: calls.append(rows.is_meta) or xavier(rows))
    for make in (lambda: load_diffusers(stored["plain"]), lambda: from_diffusers(theirs)):
        make()
        assert all(calls)


def test_too_little_memory_is_said_before_anything_is_read(stored, monkeypatch):
    monkeypatch.setattr(parity, "free_memory", lambda device: 500_000)
    monkeypatch.setattr(parity, "_assemble", lambda *_: pytest.fail("it was read"))
    with pytest.raises(
        UserError, match=r"needs 0\.0 GB in float32 on cpu, where 0\.0 GB are free: give dtype=torch.bfloat16"
    ):
        load_diffusers(stored["plain"])
    monkeypatch.setattr(parity, "_require_memory", lambda *_: None)
    with pytest.raises(pytest.fail.Exception):
        load_diffusers(stored["plain"])


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no folder on this machine: download one"):
        load_diffusers(tmp_path / "nothing")
    (tmp_path / "sd3.5_medium.safetensors").touch()
    with pytest.raises(UserError, match="is a single file: give a folder in diffusers' layout"):
        load_diffusers(tmp_path / "sd3.5_medium.safetensors")
    with pytest.raises(UserError, match="has neither model_index.json nor config.json"):
        load_diffusers(tmp_path)


def test_another_architecture_is_refused_by_name(tmp_path):
    flux = FluxTransformer2DModel(num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
                                  joint_attention_dim=8, pooled_projection_dim=8, in_channels=4,
                                  axes_dims_rope=(4, 4, 8))  # fmt: skip
    flux.save_pretrained(tmp_path / "flux" / "transformer")
    (tmp_path / "flux" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(UserError, match="holds a FluxTransformer2DModel; expected an SD3Transformer2DModel"):
        load_diffusers(tmp_path / "flux")
    UNet2DConditionModel(
        block_out_channels=(8,), norm_num_groups=4, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",)
    ).save_pretrained(tmp_path / "sdxl" / "unet")
    (tmp_path / "sdxl" / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    with pytest.raises(UserError, match="holds a StableDiffusionXLPipeline without a transformer"):
        load_diffusers(tmp_path / "sdxl")
    with pytest.raises(UserError, match="holds a UNet2DConditionModel; expected"):
        load_diffusers(tmp_path / "sdxl" / "unet")


def test_an_mmdit_of_this_library_is_no_folder_of_diffusers_nor_the_reverse(stored, tmp_path):
    MMDiT(num_layers=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="load it by MMDiT.from_pretrained"):
        load_diffusers(tmp_path)
    with pytest.raises(UserError, match="is in diffusers' format: load it by gen_affect_lib.parity.load_diffusers"):
        MMDiT.from_pretrained(stored["plain"])
    with pytest.raises(UserError, match="is in diffusers' format"):
        MMDiT.from_pretrained(stored["pipeline"], subfolder="transformer")


@pytest.mark.parametrize("layout", ["sharded", "sharded_variant"])
def test_a_missing_part_is_named(stored, layout, tmp_path):
    folder = copied(stored[layout], tmp_path / "cut")
    lost = sorted(folder.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(UserError, match=f"{lost.name} is missing, a part of the weights: download it again"):
        load_diffusers(folder)
    next(folder.glob("*.index*.json")).unlink()
    with pytest.raises(UserError, match="index.*json is missing, without which the parts of the weights are unknown"):
        load_diffusers(folder)


def test_a_damaged_file_is_named(stored, tmp_path):
    folder = copied(stored["plain"], tmp_path / "cut")
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:100_000])
    with pytest.raises(UserError, match=f"{FILE} is damaged .*: download it again"):
        load_diffusers(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json is damaged .*: download it again"):
        load_diffusers(folder)


def test_files_to_be_unpickled_are_not_read(stored, tmp_path):
    folder = copied(stored["plain"], tmp_path / "old")
    (folder / FILE).rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="files to be unpickled are not read"):
        load_diffusers(folder)


def changed(stored, tmp_path, change) -> Path:
    folder = copied(stored["plain"], tmp_path / "changed")
    weights = load_file(folder / FILE)
    change(weights)
    save_file(weights, folder / FILE)
    return folder


def test_missing_unknown_and_wrong_weights_are_named(stored, tmp_path):
    lost = "transformer_blocks.1.attn.to_v.bias"
    with pytest.raises(UserError, match=f"lacks 1 weights of its configuration, such as {lost}"):
        load_diffusers(changed(stored, tmp_path / "a", lambda weights: weights.pop(lost)))
    with pytest.raises(UserError, match=r"does not have the weights \['image_proj.weight'\]"):
        load_diffusers(changed(stored, tmp_path / "b", lambda w: w.update({"image_proj.weight": torch.ones(2)})))
    with pytest.raises(UserError, match=rf"{lost} is \(7,\) and not \(32,\)"):
        load_diffusers(changed(stored, tmp_path / "c", lambda w: w.update({lost: torch.ones(7)})))


@pytest.fixture(autouse=True)
def folders(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()


def with_lora(model: nn.Module) -> nn.Module:
    """What peft makes of a layer: the layer itself as base_layer, and two small matrices beside it."""
    attention = model.transformer_blocks[0].attn
    wrapped = nn.Module()
    wrapped.base_layer = attention.to_q
    wrapped.lora_A, wrapped.lora_B = (nn.ModuleDict({"default": nn.Linear(32, 32, bias=False)}) for _ in range(2))
    attention.to_q = wrapped
    return model


def test_lora_layers_are_refused_with_how_to_merge_them(tmp_path):
    model = with_lora(tiny_sd3.transformer())
    message = r"has LoRA layers \(transformer_blocks.0.attn.to_q.base_layer.*\): merge them first, by fuse_lora"
    with pytest.raises(UserError, match=message):
        from_diffusers(model)
    model.save_pretrained(tmp_path / "lora")
    with pytest.raises(UserError, match=message):
        load_diffusers(tmp_path / "lora")


def test_quantised_weights_are_refused(stored, tmp_path):
    some = "transformer_blocks.1.ff.net.2.weight"

    def eight_bits(weights):
        weights[some] = weights[some].to(torch.float8_e4m3fn)

    with pytest.raises(UserError, match=rf"is quantised \({some} in F8_E4M3\): give the model in float16"):
        load_diffusers(changed(stored, tmp_path / "a", eight_bits))
    model = tiny_sd3.transformer()
    model.proj_out.weight = nn.Parameter(model.proj_out.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(UserError, match=r"is quantised \(proj_out.weight in torch.int8\)"):
        from_diffusers(model)
    folder = copied(stored["plain"], tmp_path / "configured")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(UserError, match="is quantised: give the model in float16"):
        load_diffusers(folder)


def test_an_offloaded_model_is_refused():
    model = tiny_sd3.transformer()
    model.transformer_blocks[0].to("meta")
    with pytest.raises(UserError, match="has transformer_blocks.0.* on the device meta, as if offloaded"):
        from_diffusers(model)


# --- back ------------------------------------------------------------------------------------------------------------


def test_what_is_converted_back_can_be_saved_and_loaded_by_diffusers(theirs, stored, tmp_path):
    to_diffusers(load_diffusers(stored["sharded"])).save_pretrained(tmp_path / "back")
    back = tiny_sd3.SD3Transformer2DModel.from_pretrained(tmp_path / "back")
    unused = tuple(parity.unused_modules(theirs.config))
    for name, rows in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], rows) or name.startswith(unused), name
