"""Training of an adapter on prepared photographs, with the kit's trainer: flow loss, moving average, checkpoints.

Only the adapter, and a LoRA if there is one, is trained and written to checkpoints; the base is frozen. With one GPU:

    python -m gen_affect_lib fullscale train --base FOLDER --data PREPARED

With several, on one machine or on machines that share a disk:

    accelerate launch --num_processes 4 --mixed_precision bf16 -m gen_affect_lib fullscale train --base FOLDER …

The loss is that of rectified flow alone. A loss on the identity of the predicted picture would need a recognizer with
gradients: insightface's are ONNX files without any, and the kit's own knows drawings.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from gen_affect_lib.device import has_bfloat16, on_device, pick_device, processes, seed_stage
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import seal, together, write_json
from gen_affect_lib.flow import RectifiedFlow, timestep
from gen_affect_lib.fullscale.adapter import Adapter, add_lora, freeze, load_lora, lora_weights
from gen_affect_lib.fullscale.prepare import FacePairs, Prepared
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.recipe import TrainingConfig
from gen_affect_lib.tensors import require_finite
from gen_affect_lib.training.generator import Data, Networks
from gen_affect_lib.training.trainer import Trainer

ADAPTER, LORA, ABOUT, SEAL = "adapter", "lora.safetensors", "about.json", "weights.sha256"
PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16}


class AdaptedNetworks(Networks):
    """A frozen base ("model") with an adapter ("condition_encoder") as one module, for the trainer.

    Batches have `text` (B, L, T) and `pooled` (B, P) in addition, see `prepare.FacePairs`.
    """

    def forward(self, noisy, sigma, batch, keep_identity, keep_expression):
        base, adapter = self["model"], self["condition_encoder"]
        condition = adapter(
            batch["identity"], batch["expression"], batch["text"], batch["pooled"], keep_identity, keep_expression
        )
        noisy, text, pooled = (x.to(base.dtype) for x in (noisy, condition.text, condition.pooled))
        # The attention to a face does not depend on sigma, so the noise levels of a batch may differ.
        return base(noisy, text, pooled, timestep(sigma), attention=condition.attention(), sigma=0.0)


@dataclass(frozen=True)
class AdapterSizes:
    """What is trained over a base.

    Attributes:
        way: how faces reach the base, see `adapter.WAYS`.
        width: of the fusion, a multiple of 8.
        rank: of the LoRA; 0: none.
    """

    way: str = "both"
    width: int = 1024
    rank: int = 0


def precision(name: str | None = None) -> torch.dtype:
    """The type that the base computes in.

    Args:
        name: "no" (float32) or "bf16"; None: as `accelerate launch --mixed_precision` or `accelerate config` says;
            without them bf16 on a GPU that computes in it, else float32.

    Raises UserError for fp16, whose gradients would need loss scaling, and other names.
    """
    name = name or os.environ.get("ACCELERATE_MIXED_PRECISION")
    if name is None:
        device = pick_device()
        name = "bf16" if device.type == "cuda" and has_bfloat16(device) else "no"
    if name not in PRECISIONS:
        raise UserError(f"mixed precision {name!r} is not supported for training: give bf16 or no")
    return PRECISIONS[name]


def make_adapter(base: MMDiT, sizes: AdapterSizes, identity_views: int = 1, identity_dim: int = 512) -> Adapter:
    """An adapter with random weights, and the base's LoRA if there is one; freezes the base."""
    freeze(base)
    if sizes.width < 8 or sizes.width % 8:
        raise UserError(f"a width of {sizes.width}: give a multiple of 8, such as 1024")
    heads = max(1, sizes.width // 64)
    adapter = Adapter.for_base(
        base,
        way=sizes.way,
        dim=sizes.width,
        fusion_heads=heads if sizes.width % heads == 0 else 1,
        identity_views=identity_views,
        identity_dim=identity_dim,
        identity_tokens=4 * identity_views,
    )
    if sizes.rank:
        add_lora(base, sizes.rank)
        for name, parameter in base.named_parameters():
            if ".lora_" in name:  # trained weights and their averages need more digits than a base has
                parameter.data = parameter.data.float()
    return on_device(adapter)


def make_trainer(
    base: MMDiT,
    adapter: Adapter,
    data: Data,
    config: TrainingConfig,
    out_dir: Path,
    marks: dict[str, str],
) -> Trainer:
    """A trainer of an adapter over a frozen base, which is on the device and in the type that it computes in.

    marks: of base and data, which must be equal when a run is resumed.
    """
    trainer = Trainer(config, base, adapter, RectifiedFlow(), data, out_dir, marks=marks, networks=AdaptedNetworks)
    trainer.objective.bfloat16 = base.dtype == torch.bfloat16
    return trainer


def train_adapter(
    base: MMDiT,
    base_mark: str,
    prepared: Prepared,
    config: TrainingConfig,
    sizes: AdapterSizes,
    out_dir: Path,
    resume: bool = False,
    about: dict | None = None,
) -> Path:
    """Train an adapter on prepared photographs, and save it with averaged weights in `out_dir/adapter`.

    Args:
        base: on the device and in the type that it computes in; it is frozen.
        base_mark: the fingerprint of the base.
        about: what else is saved with the adapter.

    Returns the folder of the adapter. Raises UserError if data, base or settings differ from those of a resumed run.
    """
    channels = prepared.latent_shape[0]
    if channels != base.config["in_channels"]:
        raise UserError(
            f"the photographs were prepared with {channels} channels, and the base has {base.config['in_channels']}: "
            "prepare them with this base"
        )
    seed_stage(config.seed, "adapter")
    views, numbers = prepared.identity(0).shape
    adapter = make_adapter(base, sizes, views, numbers)
    pairs = FacePairs(prepared, config.seed)
    if pairs.alone:
        processes().print(
            f"{pairs.alone} people have one picture only: reference and target are then the same picture, and a model "
            "tends to copy pose and light; give more pictures of each person"
        )
    marks = {"base": base_mark, "data": prepared.mark, "way": sizes.way, "rank": str(sizes.rank)}
    trainer = make_trainer(base, adapter, pairs, config, out_dir, marks)
    trainer.fit(resume=resume)
    if processes().is_main_process:
        with trainer.averaged_weights():
            settings = {
                "base": base_mark,
                "recognizer": prepared.index["recognizer"],
                "size": prepared.index["size"],
                "landmarks": prepared.landmarks().round(4).tolist(),
                "steps": trainer.step,
                "people": len(pairs.of_person),
                "pictures": len(prepared),
            }
            save_adapter(adapter, base, out_dir / ADAPTER, (about or {}) | settings)
    return out_dir / ADAPTER


def save_adapter(adapter: Adapter, base: nn.Module, folder: Path, about: dict) -> None:
    """Write an adapter, the LoRA of its base if there is one, and `about`; completely or not at all."""
    require_finite(adapter, f"{folder} was not written")
    with together(folder) as partial:
        adapter.save_pretrained(partial)
        lora = {name: tensor.detach().cpu().contiguous() for name, tensor in lora_weights(base).items()}
        if lora:
            safetensors.torch.save_file(lora, partial / LORA)
        write_json(partial / ABOUT, about)
        seal(partial / SEAL, partial.glob("*.safetensors"))


def load_adapter(folder: str | Path, base: MMDiT) -> tuple[Adapter, dict]:
    """An adapter and what was saved about it; its LoRA is added to the base. On the base's device.

    Raises UserError if the folder holds none, or if the base has other sizes.
    """
    import json

    folder = Path(folder)
    try:
        about = json.loads((folder / ABOUT).read_text())
        adapter = Adapter.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # diffusers raises all kinds of errors for missing and damaged files
        reason = " ".join(str(error).split())
        raise UserError(
            f"{folder} holds no adapter ({reason:.120}): give the folder that `fullscale train` wrote, such as "
            "outputs/fullscale/adapter"
        ) from error
    adapter.require_base(base)
    freeze(base)
    if (folder / LORA).is_file():
        load_lora(base, safetensors.torch.load_file(folder / LORA))
    nn.Module.to(adapter, device=base.device)  # that of ModelMixin has other types
    return adapter.eval(), about


def parameters_of(adapter: Adapter, base: nn.Module) -> int:
    """How many numbers are trained."""
    parts: list[Tensor] = [p for module in (adapter, base) for p in module.parameters() if p.requires_grad]
    return sum(p.numel() for p in parts)
