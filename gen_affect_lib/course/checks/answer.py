"""An answer, here or in another process, and what its check may find out about it.

In a notebook an answer is an object of the student's. When a submission is graded, the check runs in a process that the
submission never enters, and the answer is `Elsewhere`: plain data goes to it, and plain data comes back. A check
therefore uses an answer in two ways only: it calls it with plain data, or it calls a probe of it. A probe does with
the answer what plain data cannot express, such as a gradient, next to the answer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

PROBES: dict[str, Callable] = {}


class Wrong(Exception):
    """An answer is not right. Its message is for the student: what came, what was expected, the likely mistake.

    share: which part of the exercise is right, from 0 to 1.
    """

    def __init__(self, message: str, share: float = 0.0):
        super().__init__(message)
        self.share = share


class Failed(Exception):
    """An error of an answer that is elsewhere. kind: the name of its class. line: the student's line, or empty."""

    def __init__(self, kind: str, message: str, line: str = ""):
        super().__init__(message)
        self.kind, self.line = kind, line


class Unknown:
    """A result that is no plain data. `words` describe it."""

    def __init__(self, words: str):
        self.words = words


class Elsewhere:
    """An answer in another process. is_class: whether it is a class.

    Calling it raises Wrong, NotImplementedError or Failed.
    """

    __name__: str
    is_class: bool

    def __call__(self, *arguments: object, **keywords: object) -> object:
        raise NotImplementedError

    def through(self, probe: str) -> Callable:
        """The function that `PROBES[probe]` makes of the answer there."""
        raise NotImplementedError


def probe(function: Callable[[Callable], Callable]) -> Callable[[Callable], Callable]:
    """Register a function that makes a function of an answer: where the answer is, of plain data to plain data."""
    PROBES[function.__name__] = function

    @functools.wraps(function)
    def there(answer: Callable) -> Callable:
        return answer.through(function.__name__) if isinstance(answer, Elsewhere) else function(answer)

    return there


def is_class(answer: Callable) -> bool:
    return answer.is_class if isinstance(answer, Elsewhere) else isinstance(answer, type)
