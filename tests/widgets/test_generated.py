"""The generated faces under sliders are what the pipeline draws with those settings."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from gen_affect_lib import widgets
from gen_affect_lib.avatars import Avatar, Expression
from gen_affect_lib.encoders.expression import read_expression
from gen_affect_lib.model.consistent import Consistency, Replace


class Pipeline:
    """Answers like a GenAffectPipeline: a flat picture, its colour the settings."""

    config = SimpleNamespace(num_inference_steps=9, identity_scale=1.5, expression_scale=1.5)

    def __init__(self):
        self.calls = []

    def set_progress_bar_config(self, disable):
        assert disable

    def __call__(self, *, reference, expressions, num_inference_steps, identity_scale, expression_scale, generator):
        self.calls.append((num_inference_steps, identity_scale, expression_scale, generator.initial_seed()))
        color = (num_inference_steps, round(10 * identity_scale), round(10 * expression_scale))
        return SimpleNamespace(images=[Image.new("RGB", (64, 64), color) for _ in expressions])


REFERENCE = Image.new("RGB", (64, 64), "white")


def test_a_row_of_samples_starts_with_the_reference():
    row = widgets.sample_row(Pipeline(), REFERENCE, ["joy", "fear"], steps=7, identity_scale=1.0, expression_scale=2.0)
    assert [picture.getpixel((5, 5)) for picture in row] == [(255, 255, 255), (7, 10, 20), (7, 10, 20)]


def test_moving_steps_or_guidance_samples_again_from_the_same_noise(shown, drawn):
    pipeline = Pipeline()
    panel = widgets.guidance_panel(pipeline, REFERENCE, ["joy", "fear"], seed=4)
    pipeline.calls.clear()
    panel.sliders["steps"].value = 20
    panel.sliders["expression_scale"].value = 3.0
    assert pipeline.calls == [(20, 1.5, 1.5, 4), (20, 1.5, 3.0, 4)]
    assert (drawn(panel) == np.array([20, 15, 30])).all(axis=2).any()
    assert "joy, fear: 20 steps, identity scale 1.5, expression scale 3" in panel.picture.alt


def test_the_still_picture_of_the_guidance_shows_and_names_its_settings(shown):
    pipeline = Pipeline()
    widgets.guidance_panel(pipeline, REFERENCE, ["joy"], stills=[{"steps": 1}, {"identity_scale": 3.0}])
    ((picture, alt),) = shown
    assert [call[:3] for call in pipeline.calls if call[:3] != (9, 1.5, 1.5)] == [(1, 1.5, 1.5), (9, 3.0, 1.5)]
    assert "1 step, identity scale 1.5" in alt and "identity scale 3" in alt and "joy" in alt


class Sharing:
    """Answers like a GenAffectPipeline: flat pictures, black where each is drawn alone, else grey by the share lent."""

    def __init__(self):
        self.calls = []

    def set_progress_bar_config(self, disable):
        assert disable

    def __call__(self, *, reference, expressions, consistency, generator):
        self.calls.append((consistency, generator.initial_seed()))
        grey = 0 if consistency == 0 else round(200 * consistency.share)
        return SimpleNamespace(images=[Image.new("RGB", (64, 64), (grey,) * 3) for _ in expressions])


def test_sharing_is_shown_beside_the_same_set_drawn_one_by_one(shown, drawn):
    pipeline = Sharing()
    panel = widgets.sharing_panel(pipeline, REFERENCE, ["joy", "fear"], seed=4)
    ((picture, alt),) = shown
    assert "joy, fear" in alt and "one by one" in alt
    assert pipeline.calls[0] == (0, 4) and pipeline.calls[1] == (Consistency(), 4)
    pipeline.calls.clear()
    panel.sliders["share"].value = 0.5
    panel.sliders["replace"].value = Replace.NOTHING
    half = dataclasses.replace(Consistency(), share=0.5)
    assert pipeline.calls == [(half, 4), (dataclasses.replace(half, replace=Replace.NOTHING), 4)]
    assert (drawn(panel) == 100).all(axis=2).any() and (drawn(panel) == 0).all(axis=2).any()
    assert "50%" in panel.picture.alt and "joy, fear" in panel.picture.alt
    panel.reset.click()
    assert panel.values == {name: getattr(Consistency(), name) for name in panel.values}


# --- between two people and two emotions ---


def identities(seed=0, views=2, size=512):
    return np.random.default_rng(seed).normal(size=(2, views, size)).astype(np.float32)


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_the_way_between_two_identities_turns_evenly_and_keeps_its_length(t):
    a, b = identities()
    a, b = 3 * a / np.linalg.norm(a, axis=1, keepdims=True), 3 * b / np.linalg.norm(b, axis=1, keepdims=True)
    between = widgets.between_identities(a, b, t)
    assert between.shape == a.shape and between.dtype == np.float32
    assert np.allclose(np.linalg.norm(between, axis=1), 3, atol=1e-4)
    whole, walked = (np.arccos(np.clip((a * x).sum(axis=1) / 9, -1, 1)) for x in (b, between))
    assert np.allclose(walked, t * whole, atol=2e-3)


def test_at_its_ends_are_the_two_people_and_between_one_and_the_same_is_nobody_else():
    a, b = identities()
    assert np.allclose(widgets.between_identities(a, b, 0.0), a, atol=1e-5)
    assert np.allclose(widgets.between_identities(a, b, 1.0), b, atol=1e-5)
    assert np.allclose(widgets.between_identities(a, a, 0.3), a, atol=1e-5)


def test_drawn_between_are_the_two_and_somebody_else(person):
    a, b = person(19), person(34)

    def draw(*at):
        return np.asarray(widgets.draw_between(a, b, ("grief", "jubilation"), *at, size=64))

    first = Avatar(a.identity, Expression.named("grief"), a.appearance).render(64)
    last = Avatar(b.identity, Expression.named("jubilation"), b.appearance).render(64)
    assert np.array_equal(draw(0, 0), first) and np.array_equal(draw(1, 1), last)
    middle = draw(0.5, 0.5)
    assert all((middle != other).any() for other in (draw(0, 0), draw(1, 1), draw(0.5, 0), draw(0, 0.5)))


def test_generated_between_goes_from_the_one_person_and_word_to_the_other(shipped, person):
    """At the ends it is what the pipeline draws of either, and in between it moves the way that it should."""
    who = [shipped.read_identity(person(seed).render(224)) for seed in (41, 12)]
    rows = {
        t: widgets.sample_between(shipped, who, ("grief", "jubilation"), t, (0.0, 0.5, 1.0), seed=2)
        for t in (0.0, 0.5, 1.0)
    }
    alone = shipped(
        person(12).render(224), ["jubilation"], consistency=0, generator=torch.Generator().manual_seed(2)
    ).images[0]
    assert np.abs(np.asarray(rows[1.0][2], int) - np.asarray(alone)).max() <= 2
    read = [dict(zip(Expression.NAMES, read_expression(image).vectors[0])) for image in rows[0.5]]
    smiles = [one["au12"] - one["au15"] for one in read]  # corners of the mouth up, less corners down
    assert smiles[0] < smiles[1] < smiles[2]
    likeness = [[_likeness(shipped, row[1], one) for one in who] for row in rows.values()]
    to_first, to_second = zip(*likeness)
    assert to_first[0] > to_first[1] > to_first[2] and to_second[0] < to_second[1] < to_second[2]


def _likeness(pipeline, image, identity):
    return float((pipeline.read_identity(image)[0] * identity[0]).sum() / len(identity[0]))


def test_the_interpolation_panel_draws_the_truth_beside_where_it_is_known(shown, drawn, shipped, person):
    panel = widgets.interpolation_panel(shipped, person(41), person(12), "grief", "jubilation", stations=3)
    ((still, alt),) = shown
    assert "grief to jubilation" in alt and still.width > still.height / 1.5
    before = drawn(panel)
    panel.sliders["person"].value = 0.0
    assert (drawn(panel) != before).any()
    assert (
        "as person A" in panel.picture.alt
        and "50% of the way from grief" in panel.picture.alt
        and "drawn" in panel.picture.alt
    )
    pictures = widgets.interpolation_panel(
        shipped, person(41).render(224), person(12).render(224), "grief", "joy", stations=3
    )
    assert "drawn" not in pictures.picture.alt and drawn(pictures).shape[1] < drawn(panel).shape[1]


def test_a_generated_face_is_drawn_again_in_two_seconds_of_computing(shown, shipped, person, fastest):
    panel = widgets.interpolation_panel(shipped, person(41), person(12), "grief", "jubilation", stations=2)
    at = iter(np.linspace(0.05, 0.95, 19))
    assert fastest(lambda: panel.set(person=float(next(at)))) < 2.0
    one = widgets.guidance_panel(shipped, person(41).render(224), ["joy"], stills=[{}])
    assert fastest(lambda: one.set(expression_scale=2.0 + float(next(at)))) < 2.0
