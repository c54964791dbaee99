"""Interfaces of face encoders. The pipeline and the training accept any encoder with them in place of the kit's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gen_affect_lib.encoders.reading import ExpressionReading


class IdentityReading(Protocol):
    """One face of a picture."""

    @property
    def score(self) -> float:
        """The confidence of the detection, in [0, 1]."""
        ...

    @property
    def box(self) -> np.ndarray:
        """float32 (4,), x0 y0 x1 y1 in pixels."""
        ...

    @property
    def tokens(self) -> np.ndarray:
        """float32 (V, E): V identity tokens of E numbers, each of norm √E. The conditioning of the generator."""
        ...


class IdentityEncoder(Protocol):
    """Reads the identity of the faces in a picture. `pack.FacePack` is one."""

    @property
    def mark(self) -> str:
        """A fingerprint of the recognizer. A generator trained with one recognizer cannot use another."""
        ...

    @property
    def weights(self) -> Sequence[str]:
        """The fingerprints of all networks that `read` uses, and its settings: part of the keys of its readings."""
        ...

    def read(self, picture) -> Sequence[IdentityReading]:
        """All faces of a picture, from left to right. Raises UserError for anything that is not a picture."""
        ...

    def one(self, picture, which: int | str | None = None, name: str = "the picture") -> IdentityReading:
        """The one face of a picture, or the one that `which` names. Raises UserError if there is none."""
        ...


class ExpressionEncoder(Protocol):
    """Reads expressions. `expression.ExpressionEncoder` and `hub_expression.HubExpressionEncoder` are two."""

    def read(self, pictures: Sequence) -> ExpressionReading:
        """The expressions on pictures of any size. Raises UserError for anything that is not a picture."""
        ...
