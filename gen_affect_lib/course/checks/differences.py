"""How a value differs from the expected one, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from gen_affect_lib.course.checks.wording import describe


def difference(got: object, want: object, tolerance: float = 1e-5) -> str:
    """What is different about `got`, in words; an empty string if it equals `want`.

    Takes tensors, arrays, numbers, strings, None, and tuples, lists and dicts of these. Tensors must have the same
    shape, and both must be floating or neither. tolerance: absolute, and relative to the largest expected number if
    that exceeds 1.
    """
    if got is None and want is not None:
        return "nothing came back: is there a `return`?"
    if isinstance(want, Mapping):
        if not isinstance(got, Mapping) or set(got) != set(want):
            return f"a dict with {', '.join(map(repr, want))} was expected, and {describe(got)} came back."
        return _first(((f"under {key!r}", got[key], want[key]) for key in want), tolerance)
    if isinstance(want, (tuple, list)):
        return _sequence_difference(got, want, tolerance)
    if isinstance(want, (torch.Tensor, np.ndarray)):
        return _array_difference(got, want, tolerance)
    if isinstance(want, (bool, np.bool_, str)) or want is None:
        same = got is want or (type(got) in (type(want), bool, np.bool_) and got == want)
        return "" if same else f"{describe(got)} came back, and should be {want!r}."
    if isinstance(want, (int, float, np.number)):
        return _number_difference(got, float(want), tolerance)
    return "" if got == want else f"{describe(got)} came back, and should be {describe(want)}."


def _first(parts: Iterable[tuple[str, object, object]], tolerance: float) -> str:
    """The first difference among (place, got, want), with its place."""
    for place, got, want in parts:
        if problem := difference(got, want, tolerance):
            return f"{place}, {problem}"
    return ""


def _sequence_difference(got: object, want: tuple | list, tolerance: float) -> str:
    fields = getattr(want, "_fields", None)  # of a named tuple
    if fields:
        if not isinstance(got, tuple) or getattr(got, "_fields", None) != fields:
            return f"a `{type(want).__name__}({', '.join(fields)})` was expected, and {describe(got)} came back."
        return _first(((f"in `{name}`", *pair) for name, *pair in zip(fields, got, want)), tolerance)
    if not isinstance(got, (tuple, list)) or len(got) != len(want):
        return f"{len(want)} results were expected, and {describe(got)} came back."
    return _first(((f"in result {k}", *pair) for k, pair in enumerate(zip(got, want), 1)), tolerance)


def _array_difference(got: object, want: torch.Tensor | np.ndarray, tolerance: float) -> str:
    if isinstance(got, (tuple, list)):
        remedy = "a tensor, `torch.stack(…)` or `torch.tensor(…)`"
        if isinstance(want, np.ndarray):
            remedy = "an array, `np.array(…)`"
        kind = type(got).__name__
        return f"{describe(want)} was expected, and a {kind} of {len(got)} came back: make it {remedy}."
    if not isinstance(got, (torch.Tensor, np.ndarray)) or not isinstance(got, type(want)):
        return f"{describe(want)} was expected, and {describe(got)} came back."
    if tuple(got.shape) != tuple(want.shape):
        return f"the shape is {tuple(got.shape)}, and should be {tuple(want.shape)}."
    if _is_floating(got) != _is_floating(want):
        return f"the numbers are of type {got.dtype}, and should be {want.dtype}."
    have, need = _as_float64(got), _as_float64(want)
    if np.isnan(have).any() and not np.isnan(need).any():
        return "some of the numbers are NaN: is something divided by 0, or is 0 multiplied by infinity?"
    same = (have == need) | (np.isnan(have) & np.isnan(need))  # inf - inf would be NaN
    error = np.abs(np.subtract(have, need, out=np.zeros_like(have), where=~same))
    largest = float(np.abs(need[np.isfinite(need)]).max(initial=0.0))
    if not error.size or error.max() <= tolerance * max(1.0, largest):
        return ""
    place = tuple(int(k) for k in np.unravel_index(error.argmax(), error.shape))
    digits = next((d for d in (4, 6, 9, 12) if f"{have[place]:.{d}g}" != f"{need[place]:.{d}g}"), 17)
    numbers = f"{have[place]:.{digits}g}, and should be {need[place]:.{digits}g}."
    if not place:
        return f"the result is {numbers}"
    return (
        f"the shape {need.shape} is right, but {(error > tolerance).mean():.0%} of the numbers are not: "
        f"at {place} it is {numbers}"
    )


def _number_difference(got: object, want: float, tolerance: float) -> str:
    if isinstance(got, torch.Tensor) and got.numel() == 1:
        got = got.item()
    if isinstance(got, bool) or not isinstance(got, (int, float, np.number)):
        return f"a number was expected, and {describe(got)} came back."
    got = float(got)  # a subclass of float can compare as it likes
    if got != got or want != want:
        same = got != got and want != want  # NaN where NaN is expected
    else:
        same = abs(got - want) <= tolerance * max(1.0, abs(want))
    return "" if same else f"{got:.6g} came back, and should be {want:.6g}."


def _as_float64(numbers: torch.Tensor | np.ndarray) -> np.ndarray:
    return np.asarray(numbers.detach() if isinstance(numbers, torch.Tensor) else numbers, dtype=np.float64)


def _is_floating(numbers: torch.Tensor | np.ndarray) -> bool:
    return numbers.dtype.is_floating_point if isinstance(numbers, torch.Tensor) else numbers.dtype.kind == "f"
