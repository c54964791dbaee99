"""Checkpoints of a run. At least one stays complete if the process is killed at any moment.

A folder holds at most two, `last.safetensors` and `previous.safetensors`. A new one is written under a third name,
flushed to the disk and then renamed, because renaming is atomic. Tensors and JSON state are in one safetensors file,
because two files could belong to different steps. A digest over both detects a damaged file. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gen_affect_lib.errors import UserError

LAST, PREVIOUS, DAMAGED, UNFINISHED = (f"{name}.safetensors" for name in ("last", "previous", "damaged", "unfinished"))


def write_checkpoint(folder: Path, tensors: dict[str, Tensor], state: dict) -> None:
    """Write tensors (any device, any shape) and a JSON-serialisable state as the folder's last checkpoint.

    The former last checkpoint becomes the previous one. Raises UserError if writing fails, for example because the disk
    is full; the existing checkpoints are then unchanged.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(state)
    content = safetensors.torch.save(tensors, metadata={"state": text, "sha256": _digest(tensors, text)})
    last, unfinished = folder / LAST, folder / UNFINISHED
    try:
        _write_to_disk(unfinished, content)
        if last.exists():
            os.replace(last, folder / PREVIOUS)
        os.replace(unfinished, last)
        _sync_folder(folder)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise UserError(
            f"could not write a checkpoint of {len(content) / 1e6:.0f} MB to {folder} ({error.strerror or error}): "
            "earlier checkpoints are intact; free some disk space and resume"
        ) from error


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors (on the CPU) and the state of one file. Raises UserError if it is missing or damaged."""
    try:
        content = Path(path).read_bytes()
        tensors = safetensors.torch.load(content)
        header_size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + header_size])["__metadata__"]  # safetensors stores the state here
        if metadata["sha256"] != _digest(tensors, metadata["state"]):
            raise ValueError("its digest does not match its content")
        return tensors, json.loads(metadata["state"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a complete checkpoint ({error}): delete it, or start a new run") from error


def read_last_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict] | None:
    """The newest complete checkpoint of a folder, or None without any. Raises UserError if all of them are damaged."""
    found = [folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()]
    problems = []
    for path in found:
        try:
            checkpoint = read_checkpoint(path)
        except UserError as error:
            problems.append(str(error))
            continue
        if problems:
            # Otherwise the next write would replace the only complete file by the damaged one.
            os.replace(folder / LAST, folder / DAMAGED)
            warnings.warn(f"{problems[0]}; resuming from {path.name}, the damaged file is now {DAMAGED}", stacklevel=2)
        return checkpoint
    if problems:
        raise UserError("; ".join(problems))
    return None


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint, complete or damaged."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS, DAMAGED))


def require_same(folder: Path, then: dict, now: dict) -> None:
    """Raise UserError with the first three differences if settings or shapes of a run have changed."""
    changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    if changed:
        differences = ", ".join(
            f"{name} was {then.get(name, 'not there')} and is now {now.get(name, 'not there')}" for name in changed[:3]
        )
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(f"cannot resume {folder}: {differences}{more}; use the old values, or another folder")


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a folder, oldest first, so that a kill in between leaves the newest."""
    for name in (UNFINISHED, DAMAGED, PREVIOUS, LAST):
        (folder / name).unlink(missing_ok=True)


# The contents of a training checkpoint


def learned(networks: nn.Module) -> dict[str, Tensor]:
    """The part of a state dict that training changes: no frozen parameters, and no buffers of modules that are frozen.

    A frozen base of gigabytes is then not written with every checkpoint.
    """
    frozen = {name for name, parameter in networks.named_parameters() if not parameter.requires_grad}
    still = tuple(
        f"{name}."
        for name, module in networks.named_modules()
        if name and {p.requires_grad for p in module.parameters()} == {False}
    )
    return {n: t for n, t in networks.state_dict().items() if n not in frozen and not n.startswith(still)}


def training_tensors(
    networks: nn.Module,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizers: list[torch.optim.Optimizer],
) -> dict[str, Tensor]:
    """All tensors that the next step depends on and that training changes: weights and buffers, see `learned`, average,
    optimizer state, global random state."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in parameters.items()}
    tensors = learned(networks)
    tensors |= {f"average.{name}": tensor for name, tensor in average.items()}
    for optimizer in optimizers:
        for parameter, moments in optimizer.state.items():
            tensors |= {f"optimizer.{names[parameter]}.{key}": tensor for key, tensor in moments.items()}
    tensors["random.cpu"] = torch.get_rng_state()  # for dropout, which draws from the global generator
    device = next(iter(parameters.values())).device
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    return tensors


def load_training_tensors(
    tensors: dict[str, Tensor],
    networks: nn.Module,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizers: list[torch.optim.Optimizer],
) -> None:
    """Restore the tensors of `training_tensors` in place."""
    networks.load_state_dict({name: tensors[name] for name in learned(networks)}, strict=False)
    owner = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in parameters.items():
        average[name].copy_(tensors[f"average.{name}"])
        moments = {n.rpartition(".")[2]: t for n, t in tensors.items() if n.startswith(f"optimizer.{name}.")}
        if moments:  # a parameter that never had a gradient has none
            owner[parameter].state[parameter] = {key: moment.to(parameter.device) for key, moment in moments.items()}
    torch.set_rng_state(tensors["random.cpu"])
    device = next(iter(parameters.values())).device
    if device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], device)


# Files


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)  # any shape -> (bytes,), without a copy
    return digest.hexdigest()


def _write_to_disk(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # the content must be on the disk before the file is renamed


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # Windows cannot open a folder; NTFS journals renames
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
