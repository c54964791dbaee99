"""One command from a pipeline's folder to a report of every figure, which can be resumed."""

import json
import shutil

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars.emotions import emotion
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation import evaluate as module
from gen_affect_lib.evaluation import sets
from gen_affect_lib.evaluation.evaluate import SETTINGS, evaluate
from gen_affect_lib.evaluation.metrics.bootstrap import ratio
from gen_affect_lib.evaluation.report import COMPARED, CONSISTENCY_FIGURES, QUALITY_TITLES, TITLES, WAYS, say, table
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.keys import fingerprint
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.profiles import PROFILES
from gen_affect_lib.training.assembly import assemble, make_networks

SMOKE = PROFILES["smoke"]
PLAN = Plan(people=2, words=3, seeds=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A pipeline with untrained weights."""
    torch.manual_seed(0)
    folder, codec = tmp_path_factory.mktemp("run") / "pipeline", LatentCodec(**vars(SMOKE.codec))
    assemble(SMOKE, codec, *make_networks(SMOKE, codec, 64), FacePack(), 64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DRAWN", tmp_path_factory.mktemp("drawn"))
        patch.setattr(sets, "GALLERY", 12)
        yield module.DRAWN


@pytest.fixture(scope="module")
def result(checkpoint, drawn, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "new" / "report.json"
    return evaluate(checkpoint, PLAN, path), path


def test_a_report_has_every_figure_with_interval_thirds_ceiling_and_floor(result):
    report, _ = result
    assert report["checkpoint"] == "pipeline" and len(report["weights"]) == 12
    assert report["plan"] == dict(people=2, words=3, seeds=2, first_person=2_000_000)
    assert (
        report["words"] == list(PLAN.target_words)
        and report["seconds_per_image"] > 0
        and report["machine"]["cores"] > 0
    )
    assert report["figures"].keys() == report["ceilings"].keys() == report["floors"].keys() == TITLES.keys()
    for name, row in report["figures"].items():
        assert {"value", "low", "high", "gap", "ceiling", "floor"} <= row.keys(), name
        assert row["ceiling"] == report["ceilings"][name]["value"] and row["floor"] == report["floors"][name]["value"]
    for name in COMPARED:
        row = report["figures"][name]
        assert row["low"] <= row["value"] <= row["high"]
        assert row["share"] == pytest.approx(row["value"] / row["ceiling"], abs=0.02)


def test_noise_is_scored_as_noise_and_true_drawings_as_true(result):
    figures = result[0]["figures"]
    assert figures["expression_error"]["value"] > 3 * figures["expression_error"]["ceiling"]
    assert figures["identity_top1"]["ceiling"] == 1 and figures["expression_top1_25"]["ceiling"] > 0.8


def test_the_file_holds_the_report(result):
    report, path = result
    assert json.loads(path.read_text()) == report and [file.name for file in path.parent.iterdir()] == ["report.json"]


def test_the_numbers_of_each_person_give_the_figure_again(result):
    report, _ = result
    assert report["people"].keys() == set(COMPARED)
    for name, kept in report["people"].items():
        assert len(kept) == 2
        assert ratio(np.array(kept))(np.arange(2)) == pytest.approx(report["figures"][name]["value"], abs=2e-4)
        assert ratio(np.array(kept))(np.array([1, 1])) == kept[1]


def test_a_second_call_draws_nothing_and_says_the_same(result, checkpoint, monkeypatch):
    report, path = result
    monkeypatch.setattr(GenAffectPipeline, "__call__", lambda *_, **__: pytest.fail("drawn again"))
    assert evaluate(checkpoint, PLAN) == report


def test_other_weights_draw_new_pictures(result, checkpoint, tmp_path, monkeypatch):
    shutil.copytree(checkpoint, tmp_path / "pipeline")
    weights = tmp_path / "pipeline" / "codec" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    (tmp_path / "pipeline" / "weights.sha256").unlink()  # other weights, not damaged ones
    monkeypatch.setattr(GenAffectPipeline, "__call__", lambda *_, **__: pytest.fail("drawn"))
    with pytest.raises(pytest.fail.Exception):
        evaluate(tmp_path / "pipeline", PLAN)


def test_a_mark_changes_with_any_weight_and_any_setting_and_not_with_the_place(checkpoint, tmp_path):
    copy, mark = shutil.copytree(checkpoint, tmp_path / "copy"), fingerprint(checkpoint)
    assert fingerprint(copy) == mark and len(mark) == 12
    marks = {mark}
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    for path, content in (
        (weights, weights.read_bytes()[:-1] + b"\1"),
        (copy / "model_index.json", (copy / "model_index.json").read_bytes().replace(b"1.5", b"1.6")),
        (copy / "condition_encoder" / "config.json", b"{}"),
    ):
        assert path.read_bytes() != content
        path.write_bytes(content)
        marks.add(fingerprint(copy))
    (copy / "README.md").write_text("a model card")
    marks.add(fingerprint(copy))
    assert len(marks) == 4


def test_a_report_has_the_quality_of_every_kind_of_picture_with_true_drawings_at_the_ceiling(result):
    report, _ = result
    assert tuple(report["quality"]) == ("generated", "reconstructed", "drawn")
    for rows in report["quality"].values():
        assert (
            {"face_difference", "face_share", "edges", "folds", "small_things"} <= rows.keys() < QUALITY_TITLES.keys()
        )
        assert not [name for name in rows if "told_apart" in name], "12 pictures are too few"
        for row in rows.values():
            assert {"value", "low", "high", "gap"} <= row.keys()
    noise, drawn = report["quality"]["generated"], report["quality"]["drawn"]
    assert noise["face_share"]["value"] > 1 and abs(drawn["face_share"]["value"]) < 0.2
    assert noise["small_things"]["value"] < 0.6 < drawn["small_things"]["value"]


def test_a_report_says_how_sets_agree_that_share_attention_or_noise_alone(result):
    ways = result[0]["consistency_of_sets"]
    assert tuple(ways) == (*SETTINGS, "drawn") == tuple(WAYS)
    for rows in ways.values():
        assert tuple(rows) == CONSISTENCY_FIGURES
        assert all(row["low"] <= row["value"] <= row["high"] for row in rows.values())
    # An untrained model shows the noise, so pictures with shared noise agree more than pictures with their own.
    assert ways["noise"]["appearance_agreement"]["value"] > ways["alone"]["appearance_agreement"]["value"]
    assert ways["drawn"]["appearance_agreement"]["value"] > 0.8


def test_a_report_is_printed_in_a_line_for_each_figure(result):
    report, _ = result
    quality = report["quality"]["generated"]
    parts = [part.splitlines() for part in table(report).split("\n\n")]
    assert [len(rows) - 2 for rows in parts] == [len(TITLES), len(quality), len(WAYS)]
    assert all(row.count("|") == rows[0].count("|") for rows in parts for row in rows)
    said = say(report)
    assert said.splitlines()[-1].endswith("s an image")
    for titles, rows in ((TITLES, report["figures"]), (QUALITY_TITLES, quality)):
        for name, row in rows.items():
            for printed in (table(report), said):
                assert any(titles[name] in line and f"{row['value']:.3f}" in line for line in printed.splitlines())
    assert all(way in said for way in WAYS.values())


def test_one_picture_of_one_person_is_no_set_and_no_distribution_but_a_report(checkpoint, drawn):
    report = evaluate(checkpoint, Plan(people=1, words=1, seeds=1))
    left_out = {"set_cosine", "set_cosine_least", "appearance_agreement", "tilt_agreement", "diversity", "kid"}
    assert report["figures"].keys() == TITLES.keys() - left_out
    assert "face_share" not in report["quality"]["generated"]
    assert report["consistency_of_sets"]["drawn"].keys() == {"expression_top1_25", "identity_top1"}
    assert say(report) and table(report)


def test_a_folder_without_a_pipeline_is_refused_before_anything_is_drawn(tmp_path, drawn):
    with pytest.raises(UserError, match="no model_index.json"):
        evaluate(tmp_path, PLAN)


def test_failures_are_the_pictures_whose_target_group_is_least_likely(result):
    report, _ = result
    rows = report["failures"]
    assert len(rows) == 12  # all there are of 2 people, 3 words and 2 seeds
    assert [row["probability"] for row in rows] == sorted(row["probability"] for row in rows)
    assert {(row["person"], row["seed"], row["word"]) for row in rows} == {
        (person, seed, word) for person in PLAN.person_seeds for seed in (0, 1) for word in PLAN.target_words
    }
    wrong = sum(row["taken_for"] != emotion(row["word"]).group for row in rows)
    assert report["figures"]["expression_top1_25"]["value"] == pytest.approx(1 - wrong / len(rows), abs=1e-3)
