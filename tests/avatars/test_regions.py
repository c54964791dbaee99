import pytest
import torch

from gen_affect_lib.avatars.regions import face_tokens


@pytest.mark.parametrize("side", [4, 8, 16])
def test_the_face_is_in_the_middle_and_the_corners_are_not_of_it(side):
    face = face_tokens(side)
    assert face.shape == (side, side) and torch.equal(face, face.flip(1))
    assert not face[0].any() and not face[:, 0].any() and not face[-side // 4 :, : side // 4].any()
    assert face[side // 2 - 1 : side // 2 + 1, side // 2 - 1 : side // 2 + 1].all()  # between the eyes and the mouth
