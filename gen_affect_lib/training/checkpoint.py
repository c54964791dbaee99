"""Checkpoints that survive a kill at any moment: one file each, either whole or not there at all.

A folder holds at most two, `last.safetensors` and `previous.safetensors`. A new one is written under a third name,
forced to the disk, and only then renamed: renaming is the one thing that a file system does all at once. So at every
moment at least one whole checkpoint is there. Tensors and the JSON beside them stand in one safetensors file, because
two files could be of two different steps; nothing is pickled. A digest over both tells a damaged file from a whole one.
"""

import hashlib
import json
import os
import warnings
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from gen_affect_lib.errors import UserError

LAST, PREVIOUS, DAMAGED, UNFINISHED = (f"{name}.safetensors" for name in ("last", "previous", "damaged", "unfinished"))


def write_checkpoint(folder: Path, tensors: dict[str, torch.Tensor], state: dict) -> None:
    """Write tensors (any device, any shape) and a JSON-able state as the folder's last checkpoint.

    The one that was last becomes the previous one. Where writing fails (a full disk, say), both stay as they were.
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
            "the checkpoints written before are intact; make room and resume"
        ) from error


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors (on the CPU) and the state of one file. Raises UserError where it is missing or damaged."""
    try:
        content = Path(path).read_bytes()
        tensors = safetensors.torch.load(content)
        header_size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + header_size])["__metadata__"]  # the format keeps its JSON right here
        if metadata["sha256"] != _digest(tensors, metadata["state"]):
            raise ValueError("its digest is not that of its content")
        return tensors, json.loads(metadata["state"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a whole checkpoint ({error}): delete it, or train anew") from error


def read_last_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict] | None:
    """The newest whole checkpoint of a folder, None where there is none. Raises UserError where none is whole."""
    found = [folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()]
    problems = []
    for path in found:
        try:
            checkpoint = read_checkpoint(path)
        except UserError as error:
            problems.append(str(error))
            continue
        if problems:
            # Out of the way: the next write would rename the damaged file over the only whole one.
            os.replace(folder / LAST, folder / DAMAGED)
            warnings.warn(f"{problems[0]}; going on from {path.name}, and the damaged file is {DAMAGED}", stacklevel=2)
        return checkpoint
    if problems:
        raise UserError("; ".join(problems))
    return None


def require_same(folder: Path, then: dict, now: dict) -> None:
    """Raises UserError, with the first few differences, where a run would not go on as it began."""
    changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    if changed:
        differences = ", ".join(
            f"{name} was {then.get(name, 'not there')} and is now {now.get(name, 'not there')}" for name in changed[:3]
        )
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(f"cannot resume {folder}: {differences}{more}; use the old values, or another folder")


def remove_checkpoints(folder: Path) -> None:
    """Forget the run of a folder, oldest first, so that a kill in between leaves the newest."""
    for name in (UNFINISHED, DAMAGED, PREVIOUS, LAST):
        (folder / name).unlink(missing_ok=True)


def _digest(tensors: dict[str, torch.Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())  # any shape -> (bytes,), without a copy
    return digest.hexdigest()


def _write_to_disk(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # the content must be on the disk before a name points to it


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and renaming is written through
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
