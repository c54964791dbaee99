"""Drawings reach the ceiling of every figure of picture quality, and a known fault lowers the figure it should."""

from types import SimpleNamespace

import numpy as np
import pytest

from gen_affect_lib.avatars.omission import without
from gen_affect_lib.codec import PixelCodec
from gen_affect_lib.evaluation import quality as module
from gen_affect_lib.evaluation.metrics.two_sample import Verdicts
from gen_affect_lib.evaluation.power import blurred
from gen_affect_lib.evaluation.quality import (
    KINDS,
    look_at,
    picture_figures,
    quality,
    reconstruct,
    reduced,
    restore,
    told_apart,
)
from gen_affect_lib.evaluation.report import QUALITY_TITLES
from gen_affect_lib.evaluation.sets import Plan

PLAN = Plan(people=12, words=3, seeds=1)
SIDE = 128


@pytest.fixture(scope="module")
def drawings():
    return {appearance: PLAN.true_drawings(appearance, SIDE) for appearance in ("own", "other")}


@pytest.fixture(scope="module")
def true(drawings):
    return look_at({"true": drawings["own"]}, PLAN)["true"]


def values(pictures, true):
    readings = look_at({"pictures": pictures}, PLAN)["pictures"]
    return {name: figure(np.arange(PLAN.people)) for name, figure in picture_figures(readings, true, PLAN).items()}


def test_drawings_reach_the_ceiling(drawings, true):
    figures = values(drawings["other"], true)
    assert figures.keys() == {name for name in QUALITY_TITLES if "told_apart" not in name}
    assert abs(figures["face_share"]) < 0.1 and figures["edges"] == pytest.approx(1, abs=0.1)
    assert figures["small_things"] > 0.95 and figures["invented"] == 0


def test_a_blur_costs_edges_and_small_things(drawings, true):
    figures = values(blurred(drawings["other"], 1.5), true)
    assert figures["edges"] < 0.6 and figures["small_things"] < 0.3
    assert 0.05 < figures["face_share"] < 0.7


def test_another_word_is_the_floor(drawings, true):
    figures = values(np.roll(drawings["other"], -1, axis=2), true)
    assert figures["face_share"] == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("thing", ["freckles", "frames", "earrings"])
def test_a_thing_left_out_is_missed_and_the_others_are_not(drawings, true, thing):
    pictures = drawings["other"].copy()
    for place, avatar in PLAN.true_avatars("other"):
        pictures[place] = without(avatar, thing, SIDE)
    figures = values(pictures, true)
    assert figures[thing] < 0.1
    assert all(figures[other] > 0.9 for other in ("freckles", "frames", "folds", "earrings") if other != thing)


def test_earrings_at_one_ear_count_as_missing(drawings, true):
    pictures = drawings["other"].copy()
    for place, avatar in PLAN.true_avatars("other"):
        pictures[place][:, : SIDE // 2] = without(avatar, "earrings", SIDE)[:, : SIDE // 2]
    assert values(pictures, true)["earrings"] < 0.1


def test_pictures_are_told_apart_only_if_there_are_enough_of_them_and_at_both_sides(drawings, monkeypatch):
    assert told_apart(drawings["other"], drawings["own"]) == {}
    monkeypatch.setattr(module, "LEAST_PICTURES", 36)
    asked = []

    def test(pictures, true):
        asked.append((pictures.shape, true.shape))
        tested = np.repeat(np.arange(12) < 4, 6).reshape(12, 6).astype(float)
        return Verdicts(0.75 * tested, tested)

    monkeypatch.setattr(module, "two_sample_test", test)
    figures = told_apart(drawings["other"], drawings["own"])
    assert asked == [((12, 3, 128, 128, 3),) * 2, ((12, 3, 64, 64, 3),) * 2]
    assert figures.keys() <= QUALITY_TITLES.keys()
    assert {name: figure(np.arange(12)) for name, figure in figures.items()} == {
        "told_apart_128": 0.75, "told_apart_64": 0.75
    }  # fmt: skip


def test_reduced_pictures_have_the_mean_of_each_square():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(reduced(image, 2)[0, 0], image[:2, :2].reshape(4, 3).mean(axis=0).round())
    assert reduced(image, 4) is image


def test_every_kind_of_picture_has_figures_and_reconstructions_are_of_the_codec(drawings, monkeypatch):
    class Dark(PixelCodec):
        def decode(self, latents):
            return latents - 0.5

    few = Plan(people=2, words=2, seeds=1)
    own = few.true_drawings("own", 64)
    figures = quality(own, SimpleNamespace(refiner=None, codec=Dark()), few)
    assert tuple(figures) == KINDS
    share = {kind: rows["face_share"](np.arange(2)) for kind, rows in figures.items()}
    assert abs(share["drawn"]) < 0.2 and share["generated"] == 0 and share["reconstructed"] > 0.5
    np.testing.assert_array_equal(restore(PixelCodec(), own), own)


def test_reconstructions_are_refined_with_the_reference_and_the_word_of_each_picture():
    few = Plan(people=2, words=3, seeds=1)
    asked = []

    def decode(latents, identity, expressions, *scales):
        asked.append((identity[0, 0, 0].item(), expressions[:, 0].tolist(), scales))
        return latents

    pipeline = SimpleNamespace(
        refiner="one",
        codec=PixelCodec(),
        decode=decode,
        device="cpu",
        read_expressions=lambda words: np.arange(len(words), dtype=np.float32)[:, None],
        face_pack=SimpleNamespace(
            one=lambda picture, which: SimpleNamespace(tokens=np.full((2, 4), picture.mean(), np.float32))
        ),
    )
    images = few.true_drawings("own", 64)
    np.testing.assert_array_equal(reconstruct(pipeline, images, few), images)
    assert asked == [(pytest.approx(reference.mean()), [0, 1, 2], (1.0, 1.0)) for reference in few.references]
