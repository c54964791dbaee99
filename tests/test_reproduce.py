"""Training everything from nothing, at the smallest sizes, and continuing after an interruption."""

import json
import shutil

import pytest

from gen_affect_lib import GenAffectPipeline, reproduce
from gen_affect_lib.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out, said = tmp_path_factory.mktemp("reproduce"), []
    return out, reproduce.reproduce(out, "smoke", keep_encoders=True, say=said.append), said


def test_every_stage_names_its_data_minutes_and_result(run):
    out, records, said = run
    assert [record["stage"] for record in records] == ["codec", "generator", "decoder", "refiner", "evaluation"]
    for record in records:
        assert record["minutes"] > 0 and record["data"] and record["result"] and record["machine"]["cores"]
    assert "16 people x 4 pictures of 64 pixels" in said[1] and "validation_mse" in said[1]


def test_the_result_is_a_pipeline_whose_decoder_alone_was_finished(run):
    out, _, _ = run
    finished = GenAffectPipeline.from_pretrained(out / "data" / "checkpoints" / "gen_affect")
    before = GenAffectPipeline.from_pretrained(out / "generator" / "pipeline")
    kept = {
        f"{part}.{name}".split(".")[1]
        for part in ("codec", "transformer", "condition_encoder")
        for name, tensor in getattr(finished, part).state_dict().items()
        if not tensor.equal(getattr(before, part).state_dict()[name])
    }
    assert kept == {"decoder"}


def test_a_second_call_repeats_nothing_and_a_lost_stage_is_made_again(run):
    out, records, _ = run
    said = []
    assert reproduce.reproduce(out, "smoke", keep_encoders=True, say=said.append) == records
    assert len(said) == len(records)  # the results alone
    (out / "stages" / "evaluation.json").write_text("{")  # damaged
    again = reproduce.reproduce(out, "smoke", keep_encoders=True, say=lambda line: None)
    assert again[:4] == records[:4] and again[4]["result"] == records[4]["result"]


def test_a_stage_is_repeated_when_an_earlier_one_made_something_new(run, monkeypatch):
    out, records, _ = run
    asked = []
    monkeypatch.setattr(reproduce, "_run_apart", lambda out, stage, *_: asked.append(stage.name))
    path = out / "stages" / "codec.json"
    kept = path.read_text()
    path.write_text(json.dumps(json.loads(kept) | {"made": "another"}))
    with pytest.raises(UserError, match="codec ended without a result"):
        reproduce.reproduce(out, "smoke", keep_encoders=True, say=lambda line: None)
    assert asked == ["codec"] and not (out / "autoencoder" / "codec").exists()


def test_another_profile_in_the_same_folder_is_refused(tmp_path):
    (tmp_path / "stages").mkdir()
    record = dict(profile="gpu", uses={}, made=None, minutes=1, data="", result={}, stage="codec")
    (tmp_path / "stages" / "codec.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="stages of profile gpu: give that profile, or another folder"):
        reproduce.reproduce(tmp_path, "smoke", keep_encoders=True)


def test_a_failed_stage_is_one_line(tmp_path, capfd):
    with pytest.raises(UserError, match="the stage generator failed"):
        # No codec was made.
        reproduce._run_apart(tmp_path, reproduce.GENERATOR[1], "smoke", {})
    shutil.rmtree(tmp_path, ignore_errors=True)
