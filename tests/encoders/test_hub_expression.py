"""An image classifier of the hub can stand in for the expression encoder."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from gen_affect_lib.avatars import Avatar, Expression
from gen_affect_lib.encoders.affect import vector_of_word
from gen_affect_lib.encoders.expression import ExpressionEncoder, ExpressionReading, make_vit, read_expression
from gen_affect_lib.encoders.hub_expression import HubExpressionEncoder, load_expression_encoder, word_of_label
from gen_affect_lib.errors import UserError

LABELS = ("Angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


def save_tiny_classifier(folder, labels=LABELS):
    """A classifier as the hub keeps them: config, safetensors, preprocessor."""
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        id2label=dict(enumerate(labels)), label2id={name: n for n, name in enumerate(labels)}, initializer_range=0.5,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_classifier(tmp_path_factory.mktemp("hub"))


def test_it_reads_the_mixture_of_its_words(folder):
    encoder = load_expression_encoder(folder)
    assert isinstance(encoder, HubExpressionEncoder)
    assert encoder.words == ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
    picture = Image.fromarray(Avatar().render(90))
    model, processor = ViTForImageClassification.from_pretrained(folder), ViTImageProcessorPil.from_pretrained(folder)
    with torch.no_grad():
        weights = model(**processor(images=[picture], return_tensors="pt")).logits.softmax(1).numpy()[0]
    expected = sum(weight * vector_of_word(word) for weight, word in zip(weights, encoder.words))
    assert encoder.read([picture]).vectors[0] == pytest.approx(expected, abs=1e-5)


def test_its_reading_is_what_the_same_vector_would_mean(folder):
    reading = load_expression_encoder(folder).read([Avatar().render(64), Image.new("L", (40, 70), 90)])
    assert len(reading) == 2
    again = ExpressionReading.of_vectors(reading.vectors)
    assert reading.representation == pytest.approx(again.representation, abs=1e-4)
    assert not np.allclose(reading.vectors[0], reading.vectors[1])


def test_it_stands_where_our_own_encoder_stands(folder):
    face = Avatar(expression=Expression.named("joy")).render(64)
    assert read_expression(face, load_expression_encoder(folder)).representation.shape == (1, ExpressionReading.SIZE)


def test_our_own_encoder_is_known_by_its_labels(tmp_path):
    ExpressionEncoder(make_vit(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(tmp_path)
    assert isinstance(load_expression_encoder(tmp_path), ExpressionEncoder)


def test_labels_without_a_meaning_ask_for_one(tmp_path):
    save_tiny_classifier(tmp_path, ("cat", "happy"))
    with pytest.raises(UserError, match="'cat'.*words="):
        load_expression_encoder(tmp_path)
    assert load_expression_encoder(tmp_path, {"cat": "contentment"}).words == ("contentment", "happiness")
    with pytest.raises(UserError, match="happiness"):  # the meaning itself must be a word
        load_expression_encoder(tmp_path, {"cat": "happyness"})


def test_what_is_no_classifier_gets_one_clear_line(tmp_path):
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match="as an image classifier") as error:
            load_expression_encoder(place)
        assert "\n" not in str(error.value)


def test_known_labels():
    assert word_of_label("Fearful") == "fear" and word_of_label("NEUTRAL") == "neutral" and word_of_label("cat") is None
