"""Where on a picture the parts of the face are."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from gen_affect_lib.avatars.drawing import Avatar
from gen_affect_lib.avatars.emotions import EMOTIONS
from gen_affect_lib.avatars.factors import Appearance, Expression, Identity
from gen_affect_lib.avatars.landmarks import landmarks


@cache
def face_tokens(side: int) -> Tensor:
    """Which of side x side tokens hold brows, eyes or mouth, bool (side, side): by the landmarks of a hundred drawn people
    with all kinds of expressions and tilts, which reach from the brow above the eyes to the lip below the mouth."""
    inside = np.zeros((side, side), bool)
    for seed in range(100):
        avatar = Avatar(Identity.sample(seed), Expression.named(EMOTIONS[seed]), Appearance.sample(seed))
        left_eye, right_eye, _, left_mouth, right_mouth = landmarks(avatar)
        for left, right, reach in ((left_eye, right_eye, 0.05), (left_mouth, right_mouth, 0.02)):
            for across in np.linspace(0, 1, 2 * side + 1):
                for down in (-1.5 * reach, 0, reach):
                    x, y = left + across * (right - left) + (0, down)
                    inside[int(y * side), int(x * side)] = True
    return torch.from_numpy(inside | inside[:, ::-1])
