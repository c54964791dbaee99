"""Avatars: drawn faces with known factors."""

from gen_affect_lib.avatars.drawing import Avatar
from gen_affect_lib.avatars.emotions import EMOTIONS
from gen_affect_lib.avatars.factors import ACTION_UNITS, Appearance, Expression, Identity

__all__ = ["ACTION_UNITS", "EMOTIONS", "Appearance", "Avatar", "Expression", "Identity"]
