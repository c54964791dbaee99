"""The commands: every option has a default, and a mistake ends in one line and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gen_affect_lib import cli
from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.errors import UserError
from gen_affect_lib.pictures import save_picture


def test_render_draws_the_avatar_of_its_seeds(tmp_path, capsys):
    out = tmp_path / "deep" / "avatar.png"
    seeds = ["--identity", "12", "--emotion", "glee", "--appearance", "3"]
    assert cli.main(["render", *seeds, "--size", "96", "--out", str(out)]) == 0
    expected = Avatar(Identity.sample(12), Expression.named("glee"), Appearance.sample(3)).render(96)
    assert np.array_equal(np.asarray(Image.open(out)), expected)
    assert str(out) in capsys.readouterr().out


def test_render_needs_no_option(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["render"]) == 0
    assert Image.open(cli.OUTPUTS / "avatar.png").size == (256, 256)


def test_render_knows_the_neutral_face(tmp_path):
    assert cli.main(["render", "--emotion", "neutral", "--size", "32", "--out", str(tmp_path / "a.png")]) == 0
    expected = Avatar(Identity.sample(0), Expression.neutral(), Appearance.sample(0)).render(32)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), expected)


def test_every_option_has_a_default():
    """Parsing each command bare succeeds: none asks for an option."""
    for command in (
        ["doctor"],
        ["render"],
        ["train"],
        ["sample"],
        ["bench"],
        ["evaluate"],
        ["fullscale", "convert", "ravdess", "copy"],
        ["fullscale", "prepare"],
        ["fullscale", "train"],
        ["fullscale", "sample"],
        ["fullscale", "evaluate"],
        ["course", "run"],
        ["course", "timings"],
        ["course", "student"],
        ["course", "validate"],
        ["course", "grade", "submissions"],
        ["course", "project", "submissions"],
    ):
        assert callable(cli.build_parser().parse_args(command).run)


def test_train_passes_its_options_on(monkeypatch, tmp_path):
    from gen_affect_lib.profiles import get_profile
    from gen_affect_lib.training import assembly

    calls = []
    monkeypatch.setattr(assembly, "train_profile", lambda *args, **options: calls.append((args, options)))
    folder = tmp_path / "run"
    options = {"data": tmp_path, "resume": True, "minutes": 2.5, "retrain": False}
    assert (
        cli.main(
            [
                "train",
                "--profile",
                "laptop",
                "--data",
                str(tmp_path),
                "--out",
                str(folder),
                "--resume",
                "--minutes",
                "2.5",
            ]
        )
        == 0
    )
    assert calls == [((get_profile("laptop"), folder), options)]
    assert cli.main(["train", "--profile", "gpu", "--size", "128", "--from-nothing"]) == 0
    options = {"data": None, "resume": False, "minutes": None, "retrain": True}
    assert calls[1] == ((get_profile("gpu").at(128), cli.OUTPUTS / "train"), options)


def test_bench_passes_its_file_on(monkeypatch, tmp_path):
    from gen_affect_lib import bench

    calls = []
    monkeypatch.setattr(bench, "run", lambda path: calls.append(path))
    assert cli.main(["bench", "--json", str(tmp_path / "new" / "bench.json")]) == 0
    assert calls == [tmp_path / "new" / "bench.json"] and (tmp_path / "new").is_dir()


def test_evaluate_passes_its_options_on(monkeypatch, tmp_path, capsys):
    from gen_affect_lib.evaluation import evaluate, report
    from gen_affect_lib.evaluation.sets import Plan

    calls = []
    monkeypatch.setattr(evaluate, "evaluate", lambda *args: calls.append(args) or "the report")
    monkeypatch.setattr(report, "say", lambda result: f"{result} in lines")
    (tmp_path / "run" / "pipeline").mkdir(parents=True)
    out = tmp_path / "new" / "figures.json"
    sizes = ["--identities", "7", "--words", "5", "--seeds", "3", "--consistency", "0.5"]
    assert cli.main(["evaluate", "--checkpoint", str(tmp_path / "run"), *sizes, "--json", str(out)]) == 0
    assert calls == [(tmp_path / "run" / "pipeline", Plan(7, 5, 3), out, 0.5)]
    assert capsys.readouterr().out == f"the report in lines\n{out}\n"


def test_power_passes_its_options_on(monkeypatch, tmp_path, capsys):
    from gen_affect_lib.evaluation import power

    calls = []
    monkeypatch.setattr(power, "measure_power", lambda *args: calls.append(args) or "the power")
    monkeypatch.setattr(power, "say", lambda result: f"{result} in lines")
    out = tmp_path / "power.json"
    assert cli.main(["power", "--identities", "7", "--words", "5", "--json", str(out)]) == 0
    assert calls == [(7, 5, out)] and capsys.readouterr().out == f"the power in lines\n{out}\n"


@pytest.mark.parametrize(
    "table, first",
    [
        ("recipes", 1_000_000),
        ("codecs", 1_000_000),
        ("few_steps", 1_000_000),
        ("sharing", 1_000_000),
        ("baselines", 2_000_000),
        ("fronts", 2_000_000),
    ],
)
def test_compare_passes_its_options_on_and_uses_validation_people_for_choices(
    table, first, monkeypatch, tmp_path, capsys
):
    from gen_affect_lib.evaluation.sets import Plan
    from gen_affect_lib.evaluation.studies import variants
    from gen_affect_lib.profiles import get_profile

    calls = []
    monkeypatch.setattr(variants, "compare", lambda *args: calls.append(args) or "rows")
    monkeypatch.setattr(variants, "say", lambda table, report: f"{report} in lines")
    out = tmp_path / "rows.json"
    options = ["--minutes", "2.5", "--seeds", "3", "--identities", "7", "--words", "5", "--only", "ours"]
    assert cli.main(["compare", table, "--profile", "laptop", *options, "--json", str(out)]) == 0
    assert cli.main(["compare", table]) == 0
    assert calls[0] == (table, get_profile("laptop"), Plan(7, 5, 1, first), 2.5, None, 3, "ours", out)
    assert calls[1] == (
        table,
        get_profile(),
        Plan(40, 27, 1, first),
        8.0,
        None,
        1,
        None,
        cli.OUTPUTS / f"compare_{table}.json",
    )
    assert cli.main(["compare", table, "--steps", "30"]) == 0
    assert calls[2][3:5] == (None, 30)
    assert capsys.readouterr().out.startswith(f"rows in lines\n{out}\n")


def test_train_does_not_overwrite_an_earlier_run(tmp_path, capsys):
    (tmp_path / "last.safetensors").write_bytes(b"hours of work")
    assert cli.main(["train", "--profile", "smoke", "--out", str(tmp_path)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert (tmp_path / "last.safetensors").read_bytes() == b"hours of work"


def test_course_runs_the_profile_asked_for(monkeypatch):
    from gen_affect_lib.course.release import run

    calls = []
    monkeypatch.setattr(run, "run_course", lambda *args, **options: calls.append((args, options)))
    assert cli.main(["course", "run", "laptop", "--only", "02,03"]) == 0
    assert calls == [(("laptop",), {"only": "02,03", "in_place": False, "reference": False})]


def test_course_hands_out_validates_and_grades(monkeypatch, tmp_path, capsys):
    from gen_affect_lib.course.grading import grade
    from gen_affect_lib.course.release import student, validate

    calls = []
    monkeypatch.setattr(student, "write_student", lambda *args: calls.append(args) or student.Edition([], {}))
    monkeypatch.setattr(validate, "validate", lambda *args: calls.append(args))
    monkeypatch.setattr(
        grade, "grade_folder", lambda *args, **options: calls.append((*args, options)) or args[1] / "grades.csv"
    )
    given = tmp_path / "given", tmp_path / "out"
    assert cli.main(["course", "student", str(given[0])]) == 0
    assert cli.main(["course", "validate", "--only", "02", "--jobs", "3"]) == 0
    assert (
        cli.main(["course", "grade", str(given[0]), "--out", str(given[1]), "--seconds", "60", "--memory-gb", "2"]) == 0
    )
    limits = {"seconds": 60.0, "memory_gb": 2.0, "jobs": None, "counts": "best", "container": None}
    limits |= {"roster": None, "form": "csv", "due": None, "late_percent": 0.0, "partial": False}
    assert calls == [(given[0],), ("02", 3), (*given, limits)]
    assert f"the points are in {given[1] / 'grades.csv'}" in capsys.readouterr().out


MISTAKES = {
    "no command": ([], "COMMAND"),
    "an unknown command": (["paint"], "invalid choice: 'paint'"),
    "an unknown option": (["render", "--colour", "red"], "--colour"),
    "a seed that is no number": (["render", "--identity", "Ada"], "'Ada' is not a seed"),
    "a negative seed": (["render", "--appearance", "-1"], "'-1' is not a seed"),
    "a misspelt emotion": (["render", "--emotion", "gle"], "did you mean glee"),
    "a time and a number of steps": (
        ["compare", "recipes", "--minutes", "1", "--steps", "9"],
        "not allowed with argument --minutes",
    ),
    "a size that is no number": (["render", "--size", "big"], "'big' is not a side in pixels"),
    "a size of nothing": (["render", "--size", "0"], "'0' is not a side in pixels"),
    "a seed of 65 bits": (["sample", "--seed", str(2**64)], "give a whole number from 0 to 18,446,744,073,709,551,615"),
    "a seed of 5,000 digits": (["render", "--identity", "9" * 5000], "is not a seed"),
    "a billion steps": (["sample", "--steps", str(10**9)], "'1000000000' is not a number of steps"),
    "a consistency that is no number": (["sample", "--consistency", "nan"], "'nan' is not a fraction"),
    "a consistency above 1": (["evaluate", "--consistency", "1.5"], "'1.5' is not a fraction: give one from 0 to 1"),
    "a face that is neither": (["sample", "--which", "left"], "'left' is not the number of a face"),
    "a format that is only read": (["render", "--out", "{}/face.psd"], "face.psd ends in '.psd'"),
    "a format without colours": (["render", "--out", "{}/face.xbm"], "face.xbm ends in '.xbm'"),
    "a device": (["render", "--out", "/dev/null"], "ends in .png" if os.name == "nt" else "/dev/null is a device"),
    "a name that is too long": (["render", "--out", "{}/" + 300 * "a" + ".png"], "cannot be written"),
    "a name with a NUL": (["render", "--out", "{}/a\0.png"], "is no name of a file"),
    "figures in place of a checkpoint": (
        ["evaluate", "--checkpoint", "{}/run", "--json", "{}/run/pipeline/model_index.json"],
        "model_index.json is inside {}/run/pipeline, an input",
    ),
    "checkpoints among the pictures": (["train", "--data", "{}/run", "--out", "{}/run"], "run is an input"),
    "a file name without an ending": (["render", "--size", "16", "--out", "{}/face"], "ends in .png"),
    "a folder for a file": (["render", "--size", "16", "--out", "{}"], "is a folder"),
    "a file for a folder": (["render", "--size", "16", "--out", "{}/file.txt/a.png"], "file.txt"),
    "an unknown profile": (["train", "--profile", "huge"], "huge"),
    "no time at all": (["train", "--minutes", "0"], "'0' is not a positive number"),
    "pictures that do not fall into patches": (["train", "--size", "72"], "pictures of 72 pixels cannot be generated"),
    "pictures too small for a face": (["train", "--size", "16"], "give a multiple of 16 from 32 on, such as 64 or 128"),
    "data that are not there": (["train", "--data", "{}/none"], "is no folder"),
    "a file for the checkpoints": (["train", "--out", "{}/file.txt"], "give a folder"),
    "a checkpoint that is not there": (["sample", "--checkpoint", "{}/none"], "is no folder"),
    "a folder that is no checkpoint": (["sample", "--checkpoint", "{}"], "{}"),
    "a reference that is not there": (["sample", "--checkpoint", "{}", "--reference", "{}/none.png"], "is no file"),
    "no emotions": (["sample", "--checkpoint", "{}", "--emotions", " , "], "names no emotion"),
    "one misspelt emotion of two": (["sample", "--checkpoint", "{}", "--emotions", "joy,feer"], "'feer'"),
    "a face that is not there": (["sample", "--checkpoint", "{}", "--emotions", "joy,{}/none.png"], "is no file"),
    "no steps": (["sample", "--steps", "0"], "'0' is not a number of steps"),
    "a folder for the figures": (["bench", "--json", "{}"], "is a folder"),
    "a folder for the evaluation": (["evaluate", "--json", "{}"], "is a folder"),
    "an evaluation of nothing": (["evaluate", "--checkpoint", "{}/none"], "is no folder"),
    "an evaluation of a folder that is none": (["evaluate", "--checkpoint", "{}"], "no model_index.json"),
    "too many words": (["evaluate", "--words", "136"], "from 1 to 135"),
    "too many people": (["evaluate", "--identities", "5000"], "5000 people: give from 1 to 1000"),
    "nobody": (["evaluate", "--identities", "0"], "'0' is not a count"),
    "an unknown comparison": (["compare", "colours"], "'colours'"),
    "a misspelt variant": (["compare", "recipes", "--only", "moun"], "did you mean muon?"),
    "no action": (["course"], "ACTION"),
    "nothing to grade": (["course", "grade", "nowhere"], "nowhere is no folder"),
    "no project": (["course", "project", "nowhere"], "nowhere does not exist"),
    "no time to grade": (["course", "grade", ".", "--seconds", "0"], "--seconds"),
    "no notebook to validate": (["course", "validate", "--only", "77"], "there is no notebook '77'"),
    "an unknown notebook": (["course", "run", "smoke", "--only", "77"], "there is no notebook '77'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line_and_exit_code_2(mistake, tmp_path, capsys):
    (tmp_path / "file.txt").write_text("not a picture")
    (tmp_path / "run" / "pipeline").mkdir(parents=True)
    arguments, message = MISTAKES[mistake]
    code = cli.main([argument.replace("{}", str(tmp_path)) for argument in arguments])
    shown = capsys.readouterr()
    assert code == 2
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1, shown.err
    assert message.replace("{}", str(tmp_path)) in shown.err
    assert not shown.out


@pytest.mark.parametrize("link", [False, True])
def test_an_input_is_not_overwritten(tmp_path, capsys, link):
    face, out = tmp_path / "face.png", tmp_path / "out.png"
    Image.fromarray(Avatar().render(96)).save(face)
    before = face.read_bytes()
    out = out if link else face
    if link:
        out.symlink_to(face)
    for option in (["--reference", str(face)], ["--emotions", f"joy,{face}"]):
        assert cli.main(["sample", *option, "--out", str(out)]) == 2
        assert f"{out} is an input of this command" in capsys.readouterr().err
    assert face.read_bytes() == before


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch, capsys):
    (tmp_path / "face.png").write_bytes(b"an old picture")

    def full(self, path, *_):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError):
        save_picture(Image.new("RGB", (9, 9)), tmp_path / "face.png")
    assert (tmp_path / "face.png").read_bytes() == b"an old picture" and len(list(tmp_path.iterdir())) == 1


def test_names_may_have_commas_homes_and_capitals(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("kim, angry.png", "joy"):
        (tmp_path / name).write_bytes(b"")
    entries = cli._split_expressions("joy, kim, angry.png ,Neutral")
    assert entries == ["joy", "kim, angry.png", "Neutral"]
    found = [cli._expression_or_file(entry) for entry in entries]
    assert found == [Expression.named("joy"), Path("kim, angry.png"), Expression.neutral()]
    assert cli.main(["render", "--size", "16", "--emotion", " NEUTRAL ", "--out", "~/home.png"]) == 0
    assert (tmp_path / "home.png").is_file()


@pytest.mark.parametrize("option", ["--reference", "--emotions"])
def test_a_file_that_is_no_picture_is_named(option, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("not a picture")
    assert cli.main(["sample", option, str(tmp_path / "notes.txt")]) == 2
    assert "notes.txt is no picture" in capsys.readouterr().err.splitlines()[-1]


def test_an_error_of_several_lines_becomes_one(monkeypatch, capsys):
    def fails(options):
        raise UserError("first\n   second")

    monkeypatch.setattr(cli, "_doctor", fails)
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "error: first second\n"


def test_a_missing_package_is_named(monkeypatch, capsys):
    def fails(options):
        raise ModuleNotFoundError("No module named 'skia'", name="skia")

    monkeypatch.setattr(cli, "_doctor", fails)
    assert cli.main(["doctor"]) == 2
    assert "the package skia is not installed" in capsys.readouterr().err


def test_a_fault_of_ours_is_not_hidden(monkeypatch):
    def fails(options):
        raise ModuleNotFoundError("No module named 'gen_affect_lib.gone'", name="gen_affect_lib.gone")

    monkeypatch.setattr(cli, "_doctor", fails)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["doctor"])


def test_control_c_is_no_traceback(monkeypatch, capsys):
    def stopped(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_doctor", stopped)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_the_module_runs_as_a_command():
    command = [sys.executable, "-m", "gen_affect_lib", "render", "--emotion", "gle"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_sample_makes_the_reference_and_one_face_for_each_word(tmp_path, monkeypatch):
    """With the checkpoint that the kit ships."""
    out = tmp_path / "set.png"
    assert cli.main(["sample", "--emotions", "joy,fear,anger", "--steps", "2", "--out", str(out)]) == 0
    sheet = np.asarray(Image.open(out), dtype=float)
    columns = np.array_split(sheet[10:150], 4, axis=1)  # the reference and three faces, side by side
    assert all(np.abs(a[:, :150] - b[:, :150]).mean() > 1 for a, b in zip(columns, columns[1:]))


def test_sample_takes_expressions_from_faces_and_one_of_several_references(tmp_path, capsys):
    face = Avatar(Identity.sample(1_000_000), Expression.named("rage"), Appearance.sample(0)).render(96)
    Image.fromarray(face).save(tmp_path / "rage.png")
    Image.fromarray(np.concatenate([face, face[:, ::-1]], axis=1)).save(tmp_path / "two.png")
    command = ["sample", "--steps", "1", "--out", str(tmp_path / "set.png"), "--reference", str(tmp_path / "two.png")]
    assert cli.main([*command, "--emotions", f"joy,{tmp_path / 'rage.png'}", "--which", "1"]) == 0
    assert (tmp_path / "set.png").is_file()
    assert cli.main([*command, "--which", "2"]) == 2
    assert "two.png has 2 face(s)" in capsys.readouterr().err
