"""Training: exact targets, and a network that learns from them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars import EMOTIONS, Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.pairs import PairsConfig
from gen_affect_lib.encoders.affect import affect_of, word_affect
from gen_affect_lib.encoders.expression import LABELS, ExpressionEncoder, make_vit
from gen_affect_lib.profiles import PROFILES
from gen_affect_lib.training import expression as expression_training
from gen_affect_lib.training.expression import (
    CONFIGS,
    RECIPE,
    fit_expression,
    losses,
    settle,
    targets,
    train_expression,
)

TINY = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)


def test_targets_are_the_closed_form():
    vectors = np.stack([Expression.sample(n).to_vector() for n in range(5)])
    own, affect, words = targets(vectors)
    assert (own.numpy() == vectors).all()
    assert affect.numpy() == pytest.approx(affect_of(vectors), abs=1e-6)
    assert words.shape == (5, 136) and words.sum(dim=1).numpy() == pytest.approx(1, abs=1e-5)


def test_a_perfect_answer_has_no_error_of_vector_and_affect():
    vector = Expression.named("glee").to_vector()[None]
    own, affect, words = targets(vector)
    outputs = torch.cat([own, affect, words.clamp_min(1e-9).log()], dim=1)
    assert outputs.shape == (1, len(LABELS))
    errors = [error.item() for error in losses(outputs, own, affect, words)]
    entropy = -(words * words.clamp_min(1e-9).log()).sum().item()
    assert errors == pytest.approx([0, 0, entropy], abs=1e-5)
    worse = outputs + torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0))
    assert all(bad.item() > good for bad, good in zip(losses(worse, own, affect, words), errors))


def test_it_learns_to_tell_a_few_faces_apart():
    words = ("joy", "fear", "disgust", "bliss")
    faces = [Avatar(Identity.sample(n), Expression.named(word), Appearance.sample(n)) for n, word in enumerate(words)]
    images = np.stack([one.render(64) for one in faces])
    vectors = np.stack([one.expression.to_vector() for one in faces])
    torch.manual_seed(0)
    vit = make_vit(**TINY)
    saved = []
    recipe = replace(RECIPE, steps=200, batch_size=8, learning_rate=5e-3)
    history = fit_expression(vit, images, vectors, recipe, save=lambda: saved.append(1), save_every=0.0)
    assert len(history) == 200 == len(saved)
    weighted = [10 * row["vector"] + row["affect"] + 0.2 * row["words"] for row in history]
    assert weighted == pytest.approx([row["loss"] for row in history], rel=1e-4)
    reading = ExpressionEncoder(vit).read_arrays(images)
    assert reading.words == list(words)
    assert np.abs(reading.vectors - vectors).mean() < 0.25 * np.abs(vectors).mean()
    assert reading.affect == pytest.approx(word_affect()[[EMOTIONS.index(word) for word in words]], abs=0.25)


def test_settling_lowers_the_error_of_the_vector_and_leaves_the_rest():
    torch.manual_seed(0)
    encoder = ExpressionEncoder(make_vit(**TINY))
    avatars = [Avatar(Identity.sample(n), Expression.sample(n), Appearance.sample(n)) for n in range(40)]
    images = np.stack([one.render(64) for one in avatars])
    vectors = np.stack([one.expression.to_vector() for one in avatars])
    before = encoder.read_arrays(images)
    settle(encoder.vit, images, vectors)
    after = encoder.read_arrays(images)
    errors = [np.abs(reading.vectors - vectors).mean(axis=0) for reading in (before, after)]
    assert (errors[1] <= errors[0] + 1e-6).all() and errors[1].mean() < 0.95 * errors[0].mean()
    assert after.affect == pytest.approx(before.affect) and after.word_logits == pytest.approx(before.word_logits)


def test_one_command_leaves_an_encoder_that_loads(tmp_path, monkeypatch):
    monkeypatch.setattr("gen_affect_lib.avatars.pairs.CACHE", tmp_path / "cache")
    config = CONFIGS["smoke"]
    monkeypatch.setitem(CONFIGS, "smoke", replace(config, recipe=config.recipe.limited_to(steps=20)))
    train_expression(tmp_path / "out", None, "smoke")
    encoder = ExpressionEncoder.from_pretrained(tmp_path / "out")
    assert encoder.vit.config.hidden_size == 32
    assert len(np.load(tmp_path / "out" / "history.npy")) == 20


def test_every_profile_has_a_config_and_trains_on_training_people():
    assert set(CONFIGS) == set(PROFILES)
    for profile in PROFILES.values():
        pairs = profile.retrained().pairs
        assert isinstance(pairs, PairsConfig) and pairs.split == "train" and pairs.identities <= 500_000
    assert expression_training.WEIGHTS[0] > 0
