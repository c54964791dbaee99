"""What notebook 09 builds by hand is what the library runs, and its figures are of the shipped weights."""

import json

import pytest
import torch

from gen_affect_lib.evaluation.studies.sharing import COSTED, METHODS
from gen_affect_lib.keys import fingerprint
from gen_affect_lib.model import consistent
from gen_affect_lib.model.attention import QKV, attend
from gen_affect_lib.model.consistent import Replace
from gen_affect_lib.paths import REFERENCE, SHIPPED

B, L, M, H, D = 3, 9, 5, 2, 8


@pytest.fixture(scope="module")
def shared_attention(definitions):
    needed = dict(torch=torch, attend=attend, Replace=Replace)
    return definitions("09_consistent", ("shared_attention",), **needed)["shared_attention"]


@pytest.mark.parametrize("replace", Replace)
@pytest.mark.parametrize("anchors", [1, 3])
@pytest.mark.parametrize("tokens", [(), (2, 3, 7), range(L)])
def test_the_function_by_hand_is_the_librarys(shared_attention, anchors, tokens, replace):
    generator = torch.Generator().manual_seed(0)

    def stream(tokens):
        return QKV(*torch.randn(3, B, tokens, H, D, dtype=torch.float64, generator=generator))

    image, condition, shared = stream(L), stream(M), stream(anchors * len(tokens))
    given = (
        image,
        condition,
        shared._replace(query=shared.query[:, : len(tokens)]),
        torch.tensor(list(tokens)).long(),
        replace,
    )
    assert torch.equal(shared_attention(*given), consistent.shared_attention(*given))


def test_what_is_built_by_hand_is_what_the_bank_runs(shared_attention, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    image, condition = (QKV(*torch.randn(3, B, tokens, H, D, generator=generator)) for tokens in (L, M))

    def outputs():
        bank = consistent.AnchorBank(consistent.Consistency(anchors=B, share=0.5), anchors=B)
        return *bank.record(image, condition, block=0, sigma=0.7), *bank.read(image, condition, block=0, sigma=0.7)

    expected, calls = outputs(), []

    def by_hand(*given):
        calls.append(given)
        return shared_attention(*given)

    monkeypatch.setattr(consistent, "shared_attention", by_hand)
    assert all(torch.equal(a, b) for a, b in zip(outputs(), expected)) and len(calls) == B + 1


def test_the_study_has_all_methods_on_the_shipped_weights():
    study = json.loads((REFERENCE / "sharing.json").read_text())
    assert [row["name"] for row in study["rows"]] == ["ceiling", "floor", *METHODS]
    assert {row["name"]: row["about"] for row in study["rows"][2:]} == {
        name: method.about for name, method in METHODS.items()
    }
    assert {row["way"]: row["about"] for row in study["costs"]} == {
        name: method.about for name, method in COSTED.items()
    }
    assert study["weights"] == fingerprint(SHIPPED) and study["plan"]["people"] == study["plan"]["words"] == 12
    assert study["plan"]["first_person"] == 1_000_000, "chosen on validation people"


def test_the_default_was_chosen_for_agreement_at_no_cost():
    rows = {row["name"]: row["figures"] for row in json.loads((REFERENCE / "sharing.json").read_text())["rows"]}
    ours, alone = rows["ours"], rows["alone"]
    assert ours["action_unit_error"]["value"] < alone["action_unit_error"]["high"]
    assert ours["appearance_agreement"]["value"] > 0.95 * rows["ceiling"]["appearance_agreement"]["value"]
    for name in ("no_mask", "mask_15"):
        assert rows[name]["action_unit_error"]["value"] > ours["action_unit_error"]["high"]
        assert rows[name]["appearance_agreement"]["value"] < ours["appearance_agreement"]["high"]


@pytest.fixture(scope="module")
def ways():
    """Of people who were not chosen on, with the shipped weights."""
    report = json.loads((REFERENCE / "evaluation.json").read_text())
    assert report["weights"] == fingerprint(SHIPPED) and report["plan"]["first_person"] == 2_000_000
    return report["consistency_of_sets"]


def test_consistent_attention_holds_for_other_people(ways):
    value = {way: rows["appearance_agreement"]["value"] for way, rows in ways.items()}
    assert value["both"] > 0.9 * value["drawn"] and value["attention"] > 0.85 * value["drawn"]
    assert value["noise"] > value["alone"] + 0.3 and value["both"] > value["noise"] + 0.1
    assert ways["both"]["set_cosine"]["value"] >= ways["drawn"]["set_cosine"]["value"] - 0.02
    assert ways["both"]["expression_top1_25"]["value"] >= ways["alone"]["expression_top1_25"]["value"] - 0.02


def test_a_bank_of_135_images_costs_little_more_than_135_images():
    costs = {(row["way"], row["images"]): row for row in json.loads((REFERENCE / "sharing.json").read_text())["costs"]}
    assert costs["bank", 135]["seconds"] <= 1.35 * costs["alone", 135]["seconds"]
    assert costs["bank", 45]["megabytes"] <= costs["packed", 45]["megabytes"]
    step = (costs["bank", 135]["megabytes"] - costs["bank", 45]["megabytes"]) / 90  # MB for each further image
    assert step <= 3 * max((costs["bank", 45]["megabytes"] - costs["bank", 15]["megabytes"]) / 30, 1), (
        "memory grows linearly"
    )
