"""The pipeline and `sample` notice a photograph, as a reference and as an expression, and say so."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from gen_affect_lib import GenAffectPipeline
from gen_affect_lib.avatars import EMOTIONS, Appearance, Avatar, Expression, Identity
from gen_affect_lib.cli import main
from gen_affect_lib.paths import SHIPPED
from gen_affect_lib.photo.landmarker import FaceLandmarker
from gen_affect_lib.photo.reading import is_photograph, read_photo
from tests.photo.pictures import ASTRONAUT, HOPPER


@pytest.fixture(scope="module")
def pipeline():
    pipeline = GenAffectPipeline.from_pretrained(SHIPPED)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.landmarker = FaceLandmarker.load()
    return pipeline


def test_the_identity_of_a_photograph_is_that_of_its_avatar(pipeline):
    with pytest.warns(UserWarning, match="the reference is a photograph: an avatar was drawn from it"):
        of_photo = pipeline.read_identity(HOPPER)
    avatar = read_photo(HOPPER, landmarker=pipeline.landmarker).neutral.render(256)
    assert np.array_equal(of_photo, pipeline.read_identity(avatar))


def test_a_drawing_is_no_photograph_and_nothing_is_said(pipeline):
    drawing = Avatar(Identity.sample(1_010_001), Expression.neutral(), Appearance.sample(1)).render(256)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(pipeline.read_identity(drawing), pipeline.read_identity(drawing, as_drawn=True))


def test_as_drawn_takes_the_photograph_itself(pipeline):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        itself = pipeline.read_identity(HOPPER, as_drawn=True)
    assert np.array_equal(itself, pipeline.face_pack.one(HOPPER, "largest").tokens)


def test_a_photograph_gives_an_expression(pipeline):
    (of_photo,) = pipeline.read_expressions([ASTRONAUT])
    reading = read_photo(ASTRONAUT, landmarker=pipeline.landmarker)
    assert np.array_equal(of_photo, reading.meaning.representation[0])
    (joy,) = pipeline.read_expressions(["joy"])
    (fear,) = pipeline.read_expressions(["fear"])
    assert np.linalg.norm(of_photo - joy) < np.linalg.norm(of_photo - fear)


def test_generated_pictures_are_no_photographs(pipeline):
    reference = Avatar(Identity.sample(1_010_002), Expression.neutral(), Appearance.sample(2)).render(256)
    generator = torch.Generator().manual_seed(0)
    images = pipeline(reference, list(EMOTIONS[::17]), generator=generator, num_inference_steps=4).images
    assert not any(is_photograph(image, pipeline.landmarker) for image in images)


def test_sample_says_that_it_drew_an_avatar_unless_told_not_to(tmp_path, capsys):
    out = tmp_path / "sample.png"
    arguments = ["sample", "--reference", str(HOPPER), "--emotions", "joy", "--steps", "1", "--out", str(out)]
    assert main(arguments) == 0
    assert "note: the reference is a photograph: an avatar was drawn from it" in capsys.readouterr().err
    assert Image.open(out).size[0] > 100
    assert main([*arguments, "--as-drawn"]) == 0
    assert "avatar was drawn" not in capsys.readouterr().err
