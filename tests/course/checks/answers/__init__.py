"""Answers to every exercise, one module per notebook: right ones written differently, and wrong ones of students."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass
class Answers:
    """right: answers that must be accepted. wrong: answers that must be refused, each with a part of the message."""

    right: Sequence[Callable]
    wrong: Sequence[tuple[Callable, str]]
