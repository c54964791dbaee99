"""Checks for answers that are one word or one number: predictions and readings of a plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from gen_affect_lib.course.checks.answer import Wrong
from gen_affect_lib.course.checks.wording import describe


def check_choice(answer: Callable[[], object], right: str, wrong: Mapping[str, str]) -> None:
    """Raise Wrong unless `answer()` is the right one of a few letters or words; case and spaces around it do not count.

    wrong: {other choice: message for the student}.
    """
    choice = answer()
    if isinstance(choice, str):
        if choice.strip().lower() == right.lower():
            return
        for other, message in wrong.items():
            if choice.strip().lower() == other.lower():
                raise Wrong(message)
    choices = ", ".join(sorted(repr(one) for one in (right, *wrong)))
    raise Wrong(f"return one of {choices}; {describe(choice)} came back.")


def check_number(
    answer: Callable[[], object], right: float, within: float = 0.0, wrong: Sequence[tuple[float, str]] = ()
) -> None:
    """Raise Wrong unless `answer()` is a number that differs from `right` by at most `within`.

    wrong: (number, message for the student) of each likely mistake. Another number is refused without its direction:
    "too small" and "too large" would find every number in a few guesses.
    """
    number = answer()
    if isinstance(number, torch.Tensor) and number.numel() == 1:
        number = number.item()
    if isinstance(number, bool) or not isinstance(number, (int, float, np.number)):
        raise Wrong(f"return a number; {describe(number)} came back.")
    number = float(number)  # a subclass of float can compare as it likes
    if abs(number - right) <= within:
        return
    for mistaken, message in wrong:
        # At most 15 % off: with a coarse `within`, two small numbers must not count as the same mistake.
        if abs(number - mistaken) <= min(within, 0.15 * abs(mistaken) or within):
            raise Wrong(message)
    raise Wrong(f"{number:g} is not the answer. Derive it on paper before you try another number.")
