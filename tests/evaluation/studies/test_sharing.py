"""Each method of the study changes what it says, and is drawn and scored once."""

import json

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars.splits import VALIDATION_SEED
from gen_affect_lib.evaluation import sets
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.evaluation.studies import sharing
from gen_affect_lib.evaluation.studies.sharing import METHODS, compare_sharing, draw_with
from gen_affect_lib.model.consistent import Consistency
from gen_affect_lib.paths import SHIPPED
from gen_affect_lib.pipeline import GenAffectPipeline

PLAN = Plan(people=2, words=3, seeds=1, first_person=VALIDATION_SEED)


def test_each_method_differs_from_the_default_and_none_is_there_twice():
    for name, method in METHODS.items():
        if name not in ("alone", "ours"):
            assert (method.consistency or method.attention) and method.consistency != Consistency(), name
    assert METHODS["ours"].consistency == Consistency() and METHODS["alone"].consistency is None
    assert len({(repr(method.consistency), method.attention) for method in METHODS.values()}) == len(METHODS)


@pytest.fixture(scope="module")
def pipeline():
    pipeline = GenAffectPipeline.from_pretrained(SHIPPED)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.register_to_config(num_inference_steps=4)
    return pipeline


@pytest.mark.parametrize("name", ["alone", "ours", "style_aligned", "masactrl"])
def test_a_method_draws_as_it_says(name, pipeline):
    reference, words = PLAN.references[0], list(PLAN.target_words)
    drawn = np.array([np.asarray(image) for image in draw_with(METHODS[name], pipeline)(reference, words, 0)])
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
