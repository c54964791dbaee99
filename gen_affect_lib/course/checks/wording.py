"""Values, calls and errors as text for the messages of the checks."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Sequence

import numpy as np
import torch

from gen_affect_lib.course.checks.answer import Failed, Unknown
from gen_affect_lib.paths import ROOT

_NOT_THE_STUDENTS = (str(ROOT / "gen_affect_lib"), sys.base_prefix)


def sentence(text: str) -> str:
    """`text` with a capital letter at its start and a full stop at its end, unless it ends in other punctuation."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!", "…", "`")) else text + "."


def name_of(function: object) -> str:
    """The name of a function or class; for another object the name of its class."""
    return getattr(function, "__name__", None) or type(function).__name__


def describe(value: object) -> str:
    """A value in a few words; tensors and arrays by their shapes."""
    if isinstance(value, Unknown):
        return value.words
    if isinstance(value, torch.Tensor):
        return f"a tensor {tuple(value.shape)}" if value.ndim else f"the tensor {value.item():.4g}"
    if isinstance(value, np.ndarray):
        return f"an array {value.shape}"
    names = getattr(value, "_fields", None)
    if names and isinstance(value, tuple):
        fields = ", ".join(f"{name}={describe(part)}" for name, part in zip(names, value))
        return f"{type(value).__name__}({fields})"
    if isinstance(value, (tuple, list)):
        kind = "a tuple" if isinstance(value, tuple) else "a list"
        return f"{kind} ({', '.join(map(describe, value[:4]))}{', …' if len(value) > 4 else ''})"
    if callable(value):
        return f"`{name_of(value)}`"
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:50]}…"


def describe_call(function: Callable, arguments: Sequence) -> str:
    """The arguments of a call, with the names of the parameters if `function` has a signature."""
    try:
        known = list(inspect.signature(getattr(function, "forward", function)).parameters.values())
    except (TypeError, ValueError):
        known = []
    parts = [describe(value) for value in arguments]
    if len(known) >= len(parts) and all(one.kind is one.POSITIONAL_OR_KEYWORD for one in known):
        parts = [f"{one.name}={part}" for one, part in zip(known, parts)]
    return ", ".join(parts) or "no arguments"


def describe_error(name: str, error: Exception) -> str:
    """One sentence: which error stopped the answer `name`, and in which line of the student's code."""
    kind, line = (error.kind, error.line) if isinstance(error, Failed) else (type(error).__name__, line_of(error))
    where = f" in the line `{line}`" if line else ""
    lines = str(error).strip().splitlines()
    text = f"`{name}` stopped with {kind}{where}" + (f": {lines[0][:300]}" if lines else "")
    return text if text.endswith((".", "?", "!")) else text + "."


def line_of(error: BaseException) -> str:
    """The last line of the student's code in an error's traceback; empty if there is none."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_NOT_THE_STUDENTS) and "site-packages" not in frame.filename
    ]
    return (own[-1].line or "") if own else ""
