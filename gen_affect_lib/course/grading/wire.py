"""Messages between the judge and the player: plain data as one line of JSON. Nothing is unpickled.

Numbers, text, tensors, arrays and collections of them go as they are; a subclass of a number or a string becomes the
plain number or string. A few classes of the kit, named in `_CLASSES`, go by their fields, and the functions in
`probes.FUNCTIONS` by their names. Whatever else comes back from an answer arrives as `Unknown`, a description.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import select
from collections import namedtuple
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.course.checks.answer import Unknown
from gen_affect_lib.course.checks.probes import FUNCTIONS
from gen_affect_lib.course.checks.wording import describe
from gen_affect_lib.model.attention import QKV
from gen_affect_lib.model.consistent import Replace
from gen_affect_lib.model.modulation import Modulation

LONGEST = 256 * 2**20  # bytes of one message
_CLASSES: dict[str, Any] = {
    kind.__name__: kind for kind in (Appearance, Avatar, Expression, Identity, QKV, Modulation, Replace)
}
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    )
}
_KINDS = "biufc"  # of NumPy's dtypes


def encode(value: Any) -> Any:
    """Plain data that `json.dumps` takes."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, Enum) and _CLASSES.get(type(value).__name__) is type(value):
        return {"enum": type(value).__name__, "name": value.name}
    if isinstance(value, np.generic) and value.dtype.kind in _KINDS:
        return {"scalar": encode(np.asarray(value))}
    if isinstance(value, int):
        return int.__add__(value, 0)
    if isinstance(value, float):
        return float.__mul__(value, 1.0)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, torch.Tensor):
        return _encode_tensor(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS:
        content = np.ascontiguousarray(value)
        return {"array": content.dtype.str, "shape": list(value.shape), "data": _text(content.tobytes())}
    if dataclasses.is_dataclass(value) and _CLASSES.get(type(value).__name__) is type(value):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return {"made": type(value).__name__, "fields": {name: encode(getattr(value, name)) for name in names}}
    if isinstance(value, tuple):
        fields = getattr(value, "_fields", None)
        if isinstance(fields, tuple):
            values = [encode(one) for one in tuple.__iter__(value)]
            return {"named": type(value).__name__, "fields": [str(name) for name in fields], "values": values}
        return {"tuple": [encode(one) for one in tuple.__iter__(value)]}
    if isinstance(value, list):
        return [encode(one) for one in list.__iter__(value)]
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(one)] for key, one in dict.items(value)]}
    if isinstance(value, (set, frozenset)):
        return {"set": [encode(one) for one in value]}
    if isinstance(value, torch.Generator):
        return {"generator": encode(value.get_state())}
    if isinstance(value, SimpleNamespace):
        return {"space": {str(name): encode(one) for name, one in vars(value).items()}}
    for name, function in FUNCTIONS.items():
        if value is function:
            return {"function": name}
    return {"unknown": describe(value)[:300]}


def _encode_tensor(value: torch.Tensor) -> dict:
    name = str(value.dtype).removeprefix("torch.")
    if value.layout != torch.strided or value.device.type == "meta" or name not in _DTYPES:
        return {"unknown": f"a tensor on {value.device}, {value.layout}, {value.dtype}"}
    plain = value.detach().resolve_conj().resolve_neg().cpu().contiguous()
    content = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return {"tensor": name, "shape": list(plain.shape), "data": _text(content)}


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def decode(message: Any) -> Any:
    """The value of what `encode` made. Raises ValueError, TypeError or KeyError for anything else."""
    if message is None or isinstance(message, (bool, int, float, str)):
        return message
    if isinstance(message, list):
        return [decode(one) for one in message]
    if not isinstance(message, dict):
        raise ValueError("not a message")
    kind = next(iter(message))
    content = message[kind]
    if kind == "tensor":
        return _decode_tensor(message)
    if kind == "array":
        return _decode_array(message)
    if kind == "scalar":
        return _decode_array(content)[()]
    if kind == "tuple":
        return tuple(decode(one) for one in content)
    if kind == "named":
        known = _CLASSES.get(content)
        if known is None or getattr(known, "_fields", None) != tuple(message["fields"]):
            known = namedtuple(str(content), message["fields"])
        return known(*map(decode, message["values"]))
    if kind == "dict":
        return {decode(key): decode(one) for key, one in content}
    if kind == "set":
        return {decode(one) for one in content}
    if kind == "enum":
        return _CLASSES[content][message["name"]]
    if kind == "made":
        return _CLASSES[content](**{name: decode(one) for name, one in message["fields"].items()})
    if kind == "generator":
        generator = torch.Generator()
        generator.set_state(decode(content))
        return generator
    if kind == "space":
        return SimpleNamespace(**{name: decode(one) for name, one in content.items()})
    if kind == "function":
        return FUNCTIONS[content]
    if kind == "unknown":
        return Unknown(str(content))
    raise ValueError(f"no message is a {kind}")


def _decode_tensor(message: dict) -> torch.Tensor:
    dtype, shape = _DTYPES[message["tensor"]], tuple(map(int, message["shape"]))
    content = bytearray(base64.b64decode(message["data"]))
    if len(content) != math.prod(shape) * dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError("a tensor without all of its numbers")
    return torch.frombuffer(content, dtype=dtype).reshape(shape) if content else torch.empty(shape, dtype=dtype)


def _decode_array(message: dict) -> np.ndarray:
    dtype = np.dtype(str(message["array"]))
    if dtype.kind not in _KINDS:
        raise ValueError("an array of something else than numbers")
    content = np.frombuffer(bytearray(base64.b64decode(message["data"])), dtype=dtype)
    return content.reshape(tuple(map(int, message["shape"])))


class Closed(Exception):
    """The other side has ended, or sends what is no message."""


class Channel:
    """Messages over two file descriptors, one line each."""

    def __init__(self, read: int, write: int):
        self.read, self.write, self._rest = read, write, bytearray()

    def send(self, message: dict) -> None:
        """Raises Closed if the other side has ended, or does not read for a minute."""
        content = memoryview(json.dumps(message).encode() + b"\n")
        try:
            while content:
                if os.name == "posix" and not select.select([], [self.write], [], 60)[1]:
                    raise Closed
                content = content[os.write(self.write, content[:4096]) :]  # so much never blocks after `select`
        except (OSError, ValueError) as error:  # ValueError: the descriptor is closed
            raise Closed from error

    def receive(self) -> dict:
        """The next message. Raises Closed."""
        while (end := self._rest.find(b"\n")) < 0:
            try:
                content = os.read(self.read, 2**20)
            except OSError as error:
                raise Closed from error
            if not content or len(self._rest) > LONGEST:
                raise Closed
            self._rest += content
        line, self._rest = bytes(self._rest[:end]), self._rest[end + 1 :]
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Closed from error
        if not isinstance(message, dict):
            raise Closed
        return message
