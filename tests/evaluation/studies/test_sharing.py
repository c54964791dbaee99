"""Consistent attention's relatives are what their papers say, and each way is drawn and scored once."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars.splits import VALIDATION_SEED
from gen_affect_lib.evaluation import sets
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.evaluation.studies import sharing
from gen_affect_lib.evaluation.studies.sharing import WAYS, compare_sharing, drawn_in, style_aligned
from gen_affect_lib.model.attention import QKV
from gen_affect_lib.model.consistent import Consistency, loop
from gen_affect_lib.paths import SHIPPED
from gen_affect_lib.pipeline import GenAffectPipeline

N, L, M, H, D = 4, 16, 8, 5, 32
PLAN = Plan(people=2, words=3, seeds=1, first_person=VALIDATION_SEED)
LENT = torch.arange(L)


def streams():
    generator = torch.Generator().manual_seed(0)
    image, condition = (QKV(*torch.randn(3, 2 * N, tokens, H, D, generator=generator)) for tokens in (L, M))
    return image, condition


def test_style_aligned_is_one_lender_once_the_statistics_are_the_same():
    image, condition = streams()
    query, key = (x - x.mean(1, keepdim=True) for x in image[:2])
    query, key = (x / x.std(1, keepdim=True) for x in (query, key))
    level = QKV(query, key, image.value)
    torch.testing.assert_close(
        style_aligned(level, condition, N, 1, LENT, False), loop(level, condition, N, 1, LENT, False), atol=1e-4, rtol=0
    )
    moved = level._replace(query=level.query.clone(), key=level.key.clone())
    for x in moved[:2]:  # what the others' own level is does not count
        x[2] = 3 * x[2] + 1
    torch.testing.assert_close(
        style_aligned(moved, condition, N, 1, LENT, False), loop(level, condition, N, 1, LENT, False), atol=1e-3, rtol=0
    )


def test_each_way_changes_ours_in_what_it_says():
    ours = dataclasses.asdict(Consistency())
    for name, way in WAYS.items():
        if name not in ("alone", "ours"):
            assert dataclasses.asdict(way.consistency) != ours or way.attend_set, name
    assert WAYS["ours"].consistency == Consistency() and WAYS["alone"].consistency is None
    assert len({(repr(way.consistency), way.attend_set) for way in WAYS.values()}) == len(WAYS), "no way twice"


@pytest.fixture(scope="module")
def pipeline():
    pipeline = GenAffectPipeline.from_pretrained(SHIPPED)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.register_to_config(num_inference_steps=4)
    return pipeline


@pytest.mark.parametrize("name", ["alone", "ours", "style_aligned", "masactrl"])
def test_a_way_draws_as_it_says(name, pipeline):
    reference, words = PLAN.references[0], list(PLAN.target_words)
    drawn = np.array([np.asarray(image) for image in drawn_in(WAYS[name], pipeline)(reference, words, 0)])
    alone = np.array(
        [
            np.asarray(image)
            for image in pipeline(reference, words, generator=torch.Generator().manual_seed(0), consistency=0).images
        ]
    )
    assert np.array_equal(drawn, alone) == (name == "alone")
    if name == "ours":  # to the bit only beside a batch of one: several threads add up a larger one in another order
        anchor = pipeline(reference, words[:1], generator=torch.Generator().manual_seed(0)).images[0]
        assert np.array_equal(drawn[0], np.asarray(anchor)), "the anchor is drawn alone"


def test_what_is_done_is_kept(monkeypatch, tmp_path, pipeline):
    monkeypatch.setattr(sets, "GALLERY", 30)
    monkeypatch.setattr(sharing, "_shipped", lambda: pipeline)
    path = tmp_path / "rows.json"
    first = compare_sharing(PLAN, ["alone"], path, tmp_path / "sets")
    assert [row["name"] for row in first["rows"]] == ["ceiling", "floor", "alone"]
    result = compare_sharing(PLAN, ["alone", "ours"], path, tmp_path / "sets")
    assert result["rows"][:3] == first["rows"] and result["rows"][3]["name"] == "ours"
    assert json.loads(path.read_text()) == result
    figures = {row["name"]: row["figures"] for row in result["rows"]}
    assert figures["ours"].keys() == figures["ceiling"].keys() and len(result["rows"][3]["people"]["set_cosine"]) == 2
    assert figures["ours"]["appearance_agreement"]["value"] != figures["alone"]["appearance_agreement"]["value"]
