"""The commands of fullscale, on a whole tiny Stable Diffusion 3.5; a mistake ends in one line and exit code 2."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from gen_affect_lib import cli
from gen_affect_lib.encoders import pack
from gen_affect_lib.fullscale import tiny_sd3
from tests.fullscale.test_collections import video
from tests.fullscale.tiny import write_faces

FACES = ["--faces", str(pack.FOLDER)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A base, photographs, and an adapter that was prepared and trained by the commands."""
    folder = tmp_path_factory.mktemp("made")
    tiny_sd3.save(folder / "base")
    write_faces(folder / "faces", people=2)
    base = ["--base", str(folder / "base")]
    data, out = ["--data", str(folder / "faces")], ["--out", str(folder / "prepared")]
    assert cli.main(["fullscale", "prepare", *base, *data, *out, *FACES, "--size", "64"]) == 0
    data, out = ["--data", str(folder / "prepared")], ["--out", str(folder / "run")]
    sizes = ["--width", "16", "--rank", "2", "--steps", "3", "--batch-size", "2", "--warmup", "1", "--checkpointing"]
    assert cli.main(["fullscale", "train", *base, *data, *out, *sizes]) == 0
    return folder


def run(*arguments):
    return cli.main(["fullscale", *map(str, arguments)])


def refused(capsys, *arguments) -> str:
    """The one line of a command that fails."""
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    return error


def test_an_adapter_draws_a_person_with_several_expressions(made, capsys):
    base, adapter = ["--base", made / "base"], ["--adapter", made / "run" / "adapter"]
    reference, out = made / "faces" / "person0_joy.png", made / "out" / "set.png"
    options = ["--reference", reference, "--expressions", "joy,happy", "--steps", "2", "--out", out]
    assert run("sample", *base, *adapter, *FACES, *options) == 0
    assert np.asarray(Image.open(out)).std() > 5
    joy, happy = (np.asarray(Image.open(out.with_name(f"set_{word}.png"))) for word in ("joy", "happy"))
    assert joy.shape == (64, 64, 3) and not np.array_equal(joy, happy)
    # a rectangle, without consistent attention, one picture at a time
    options += ["--size", "64x96", "--consistency", "0", "--at-once", "1"]
    assert run("sample", *base, *adapter, *FACES, *options) == 0
    assert Image.open(out.with_name("set_joy.png")).size == (64, 96)


def test_figures_of_an_adapter_stand_beside_those_of_the_base(made, capsys):
    base, adapter = ["--base", made / "base"], ["--adapter", made / "run" / "adapter"]
    figures = ["--data", made / "faces", "--words", "joy", "--steps", "2", "--json", made / "figures.json"]
    assert run("evaluate", *base, *adapter, *FACES, *figures) == 0
    result = json.loads((made / "figures.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["adapter", "base"]
    assert all(0 <= row["faces"] <= 1 and row["of"] == 2 for row in result["rows"])
    assert result["judge_is_independent"] is False
    assert "optimistic" in capsys.readouterr().out


def test_a_finished_training_is_not_overwritten(made, capsys):
    options = ["--base", made / "base", "--data", made / "prepared", "--out", made / "run"]
    assert "contains a run: continue it with --resume" in refused(capsys, "train", *options)


def test_the_licence_and_the_limits_are_said(made, capsys):
    options = ["--base", made / "base", "--data", made / "prepared", "--out", made / "run", "--resume"]
    sizes = ["--width", "16", "--rank", "2", "--steps", "3", "--batch-size", "2", "--warmup", "1"]
    assert run("train", *options, *sizes) == 0
    said = capsys.readouterr().out
    assert "licence of the base" in said and "do not teach it to draw a stranger" in said


def test_a_collection_is_converted_once_its_terms_are_accepted(tmp_path, capsys):
    video(tmp_path / "source" / "1001_DFA_ANG_XX.flv")
    options = ["convert", "crema-d", tmp_path / "source", "--out", tmp_path / "out"]
    assert "the licence of CREMA-D (Open Database License" in refused(capsys, *options)
    assert run(*options, "--accept-licence") == 0
    assert (tmp_path / "out" / "metadata.jsonl").is_file()
    assert "no converter for 'mead'" in refused(capsys, "convert", "mead", tmp_path / "source")


MISTAKES = {
    "no base": (["prepare", "--base", "nowhere", "--data", "{faces}", *FACES], "--base nowhere is no folder: give a"),
    "no data": (["prepare", "--base", "{base}", "--data", "nowhere"], "--data nowhere is no folder"),
    "no metadata": (["prepare", "--base", "{base}", "--data", "{base}"], "has no metadata.jsonl"),
    "no consent to a face pack": (
        ["prepare", "--base", "{base}", "--data", "{faces}"],
        "the licence of insightface's face packs (for non-commercial research only) has not been accepted",
    ),
    "no consent to a base of the hub": (
        ["prepare", "--base", "stabilityai/stable-diffusion-3.5-medium", "--data", "{faces}", *FACES],
        "the licence of Stable Diffusion 3.5 (Stability AI Community License",
    ),
    "no network": (
        ["train", "--base", "stabilityai/stable-diffusion-3.5-medium", "--data", "{prepared}", "--accept-licence"],
        "is no folder and cannot be downloaded",
    ),
    "odd size": (["prepare", "--base", "{base}", "--data", "{faces}", "--size", "500"], "give multiples of 16"),
    "no size": (["prepare", "--size", "1x2x3"], "give width and height"),
    "not prepared": (["train", "--base", "{base}", "--data", "{faces}"], "holds no prepared photographs"),
    "no adapter": (
        ["sample", "--base", "{base}", "--adapter", "{base}", "--reference", "{face}", *FACES], "holds no adapter"
    ),
    "no reference": (["sample", "--base", "{base}"], "give a photograph of the person"),
    "misspelt word": (["sample", "--reference", "{face}", "--expressions", "hapy"], "'hapy' is not one of the 135"),
    "one photograph of each": (["evaluate", "--base", "{base}", "--data", "{single}"], "no person has two photographs"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_ends_in_one_line(made, tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    single = shutil.copytree(made / "faces", tmp_path / "single")
    first = (single / "metadata.jsonl").read_text().splitlines()[0]
    (single / "metadata.jsonl").write_text(first + "\n")
    face = made / "faces" / "person0_joy.png"
    places = {
        "base": made / "base",
        "faces": made / "faces",
        "prepared": made / "prepared",
        "single": single,
        "face": face,
    }
    arguments, message = MISTAKES[name]
    out = [] if arguments[0] == "evaluate" else ["--out", tmp_path / ("a.png" if arguments[0] == "sample" else "out")]
    assert message in refused(capsys, *(one.format(**places) for one in arguments), *out)


def test_an_adapter_of_another_recognizer_is_refused(made, capsys, tmp_path):
    about = json.loads((made / "run" / "adapter" / "about.json").read_text())
    other = shutil.copytree(made / "run" / "adapter", tmp_path / "adapter")
    (other / "about.json").write_text(json.dumps(about | {"recognizer": "another"}))
    options = ["--base", made / "base", "--adapter", other, "--reference", made / "faces" / "person0_joy.png", *FACES]
    assert "was trained with recognizer another" in refused(capsys, "sample", *options, "--out", tmp_path / "a.png")
