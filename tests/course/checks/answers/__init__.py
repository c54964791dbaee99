"""Answers to every exercise, right ones written differently and wrong ones that students give, one module a notebook."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass
class Answers:
    """right: answers that must be accepted. wrong: answers that must be refused, each with words of the hint that fits it."""

    right: Sequence[Callable]
    wrong: Sequence[tuple[Callable, str]]
