"""The expression encoder: one representation from four sources, and the shipped weights reach their figures."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageClassification

from gen_affect_lib.avatars import EMOTIONS, Appearance, Avatar, Expression, Identity
from gen_affect_lib.encoders.affect import affect_of, posterior, vector_of_point, word_affect
from gen_affect_lib.encoders.expression import (
    LABELS,
    SHIPPED,
    ExpressionEncoder,
    ExpressionReading,
    crop_faces,
    make_vit,
    read_expression,
    split_outputs,
)
from gen_affect_lib.errors import UserError

TINY = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)


@pytest.fixture(scope="module")
def shipped():
    return ExpressionEncoder.from_pretrained()


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return ExpressionEncoder(make_vit(**TINY))


def face(word="joy", seed=1_000_003, size=64):
    return Avatar(Identity.sample(seed), Expression.named(word), Appearance.sample(seed)).render(size)


# --- one representation ----------------------------------------------------------------------------------------------


def test_a_word_its_expression_and_its_vector_are_the_same():
    by_word = read_expression("glee").representation
    assert by_word.shape == (1, ExpressionReading.SIZE) and by_word.dtype == np.float32
    glee = Expression.named("glee")
    for source in (glee, glee.to_vector(), list(glee.to_vector())):
        assert read_expression(source).representation == pytest.approx(by_word, abs=1e-6)


def test_a_point_is_the_same_as_its_vector_and_comes_back_as_a_point():
    reading = read_expression((0.85, 0.65))
    by_vector = ExpressionReading.of_vectors(vector_of_point(0.85, 0.65)[None])
    assert (reading.representation == by_vector.representation).all()
    assert reading.affect[0] == pytest.approx((0.85, 0.65), abs=0.15)


def test_the_representation_names_vector_affect_and_groups():
    row = read_expression("glee").representation[0]
    assert row[:21] == pytest.approx(Expression.named("glee").to_vector())
    assert row[21:23] == pytest.approx(word_affect()[EMOTIONS.index("glee")], abs=0.05)
    assert row[23:].min() >= 0 and row[23:].sum() == pytest.approx(1, abs=0.02)
    assert read_expression("neutral").representation[0, 23:].sum() < 0.2  # the rest is that of the neutral face


def test_a_picture_of_a_word_reads_as_that_word(shipped):
    words = EMOTIONS[::9]
    told = np.concatenate([read_expression(word).representation for word in words])
    seen = np.concatenate([read_expression(face(word), shipped).representation for word in words])
    distances = np.linalg.norm(seen[:, None] - told[None], axis=2)  # (seen, told)
    assert (distances.argmin(axis=1) == np.arange(len(words))).mean() >= 0.8


def test_probabilities_and_words_follow_from_the_scores():
    reading = ExpressionReading.of_vectors(np.stack([Expression.named("joy").to_vector(), np.zeros(21)]))
    assert reading.words[1] == "neutral"
    assert reading.probabilities() == pytest.approx(posterior(reading.vectors)[:, :-1], abs=1e-5)
    for classes in (6, 25, 135):
        assert reading.probabilities(classes).sum(axis=1) == pytest.approx(reading.probabilities().sum(axis=1))
        assert (reading.top(classes) == reading.probabilities(classes).argmax(axis=1)).all()
    assert isinstance(reading.expressions[0], Expression)


@pytest.mark.parametrize("source", (7, None, [0.1] * 20, "hapiness", (2, 0), np.zeros((3, 21))), ids=str)
def test_what_is_no_expression_gets_one_clear_line(source, tiny):
    with pytest.raises(UserError) as error:
        read_expression(source, tiny)
    assert "\n" not in str(error.value)


# --- pictures --------------------------------------------------------------------------------------------------------


def test_pictures_of_any_size_and_mode_are_read(tiny):
    picture = Image.fromarray(face(size=256))
    readings = tiny.read([
        picture, picture.convert("L"), picture.convert("RGBA"), picture.convert("P"), picture.resize((3, 3)),
        picture.resize((3000, 2000)), np.asarray(picture),
    ])  # fmt: skip
    assert len(readings) == 7 and np.isfinite(readings.representation).all()
    assert readings.vectors[0] == pytest.approx(readings.vectors[6])
    assert (readings.vectors[:, :17] >= 0).all() and (np.abs(readings.vectors) <= 1).all()


def test_missing_corrupt_and_empty_pictures_get_one_clear_line(tiny, tmp_path):
    (tmp_path / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n but then nothing of the kind")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for source, words in (
        (tmp_path / "none.png", "is no file"), (tmp_path / "corrupt.png", "no picture"),
        (tmp_path / "empty.jpg", "no picture"),
        (np.zeros((8, 8), np.uint16), "uint8"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            tiny.read([source])
    for nothing in ([], "face.png"):
        with pytest.raises(UserError, match="at least one picture"):
            tiny.read(nothing)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(UserError, match="config.json"):
        ExpressionEncoder.from_pretrained(tmp_path)


def test_the_network_sees_the_face_and_not_the_corners(tiny):
    image = face()[None]
    changed = image.copy()
    changed[:, :12] = changed[:, :, :10] = 0
    assert (crop_faces(image, tiny.vit.config) == crop_faces(changed, tiny.vit.config)).all()


# --- saving ----------------------------------------------------------------------------------------------------------


def test_it_is_saved_in_half_precision_as_transformers_saves_an_image_classifier(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    assert next(tiny.vit.parameters()).dtype == torch.float32  # saving leaves the network as it is
    images = np.stack([face(word) for word in ("joy", "fear")])
    again = ExpressionEncoder.from_pretrained(tmp_path)
    assert again.read_arrays(images).representation == pytest.approx(tiny.read_arrays(images).representation, abs=5e-3)
    plain = AutoModelForImageClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        outputs = plain(crop_faces(images, plain.config)).logits
    assert tuple(plain.config.id2label.values()) == LABELS
    assert split_outputs(outputs)[2].numpy() == pytest.approx(again.read_arrays(images).word_logits, abs=1e-5)


def test_the_shipped_folder_is_small_and_complete():
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 2.75e6
    assert {"README.md", "config.json", "model.safetensors"} <= {path.name for path in SHIPPED.iterdir()}


def test_the_reading_of_a_picture_agrees_with_what_its_vector_means(shipped):
    """The predicted affect agrees with the closed form applied to the predicted vector."""
    images = np.stack([face(word, 1_000_100 + n) for n, word in enumerate(EMOTIONS)])
    reading = shipped.read_arrays(images)
    assert np.abs(reading.affect - affect_of(reading.vectors)).mean() < 0.2
