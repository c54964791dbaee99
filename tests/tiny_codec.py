"""What the tests of codecs share: the sizes of a tiny one, and pictures to train it on."""

import numpy as np

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity

TINY = dict(
    latent_channels=8,
    encoder_widths=(16, 16, 16),
    encoder_blocks=(1, 1, 1),
    decoder_widths=(16, 16, 16, 16),
    decoder_blocks=(1, 1, 1, 1),
)


def drawn(count: int = 48, size: int = 32) -> np.ndarray:
    """One picture of each of `count` people: uint8 (count, size, size, 3)."""
    avatars = [Avatar(Identity.sample(s), Expression.sample(s), Appearance.sample(s)) for s in range(count)]
    return np.stack([avatar.render(size) for avatar in avatars])
