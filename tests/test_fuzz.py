"""Random pictures, metadata and command lines: each gives a result or one clear line, never a traceback.

Each test searches for GEN_AFFECT_FUZZ_SECONDS seconds, by default 4; the examples are the same every time.
"""

import io
import json
import os
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from gen_affect_lib import cli
from gen_affect_lib.avatars import Avatar
from gen_affect_lib.avatars.factors import Expression
from gen_affect_lib.avatars.folder import FaceFolder, write_folder
from gen_affect_lib.errors import UserError
from gen_affect_lib.pictures import open_picture, square

SECONDS = float(os.environ.get("GEN_AFFECT_FUZZ_SECONDS", 4))


def search(strategy, check) -> int:
    """Call `check` with examples of a strategy until the time is over; returns how many there were."""
    end, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:

        @seed(count)
        @settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(strategy)
        def some(example):
            nonlocal count
            if time.monotonic() < end:
                count += 1
                check(example)

        some()
    return count


def one_line(error: UserError) -> bool:
    return "\n" not in str(error) and len(str(error)) < 1000


# --- pictures --------------------------------------------------------------------------------------------------------


def encoded() -> dict[str, bytes]:
    """One small picture in several formats, with metadata."""
    face, files = Image.fromarray(Avatar().render(48)), {}
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    for name, picture, form, options in (
        ("jpg", face, "JPEG", dict(exif=exif, dpi=(72, 72), comment=b"hello")),
        ("png", face, "PNG", dict(exif=exif)),
        ("palette", face.convert("P"), "PNG", dict(transparency=b"\x00\x80")),
        ("grey 16", Image.fromarray(np.asarray(face.convert("L"), np.uint16) * 257), "PNG", dict(transparency=0)),
        ("alpha", face.convert("RGBA"), "PNG", {}),
        ("webp", face, "WEBP", dict(exif=exif)),
        ("gif", face, "GIF", dict(save_all=True, append_images=[face.rotate(90)])),
        ("tif", face, "TIFF", dict(exif=exif)),
        ("lzw", face.convert("CMYK"), "TIFF", dict(compression="tiff_lzw")),
        ("float", Image.fromarray(np.asarray(face.convert("L"), np.float32)), "TIFF", {}),
        ("bmp", face, "BMP", {}),
        ("ico", face, "ICO", {}),
        ("tga", face, "TGA", {}),
        ("ppm", face, "PPM", {}),
        ("pcx", face, "PCX", {}),
    ):
        buffer = io.BytesIO()
        picture.save(buffer, form, **options)
        files[name] = buffer.getvalue()
    return files


@st.composite
def damaged(draw, files):
    """A file of which some bytes were changed, inserted or cut off, most of them near its start."""
    content = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(0, 6))):
        near = draw(st.integers(0, min(400, max(0, len(content) - 1))))
        at = draw(st.sampled_from([near, draw(st.integers(0, max(0, len(content) - 1)))]))
        match draw(st.sampled_from(["change", "change", "insert", "cut"])):
            case "change":
                content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "insert":
                content[at:at] = draw(st.binary(max_size=8))
            case "cut":
                del content[at + draw(st.integers(0, 300)) :]
    return bytes(content)


@st.composite
def in_memory(draw):
    """A PIL image of any mode with any metadata, or an array of any type and shape."""
    side = st.integers(0, 6)
    if draw(st.booleans()):
        shape = draw(st.lists(side, max_size=4))
        kind = draw(st.sampled_from(["u1", "u1", "u2", ">u2", "i4", "f4", "f8", "?", "c8", "U2", "O"]))
        return np.zeros(shape, kind)
    modes = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBX", "RGBa", "La"]
    picture = Image.new(draw(st.sampled_from([*modes, "I;16", "I;16L", "I;16B"])), (draw(side), draw(side)))
    anything = st.none() | st.integers(-1, 300) | st.binary(max_size=9) | st.tuples(st.integers(), st.integers())
    for name in draw(st.lists(st.sampled_from(["transparency", "exif", "xmp", "Raw profile type exif", "dpi"]))):
        picture.info[name] = draw(anything | st.just(b"Exif\0\0II*\0\x08\0\0\0") | st.text(max_size=9))
    if picture.mode == "F" and 0 not in picture.size:
        picture.putpixel((0, 0), draw(st.floats(width=32)))
    return picture


def opens_or_says_why(source) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = open_picture(source)
        except UserError as error:
            assert one_line(error)
            return
    assert picture.mode == "RGB" and 0 not in picture.size and not picture.getexif()
    assert np.asarray(square(picture, 8)).shape == (8, 8, 3)


def test_pictures_that_are_damaged_are_read_or_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # a changed size would take memory and time
    files = list(encoded().values())
    for content in files:
        (tmp_path / "face").write_bytes(content)
        assert open_picture(tmp_path / "face").size == (48, 48)

    def check(content):
        (tmp_path / "face").write_bytes(content)
        opens_or_says_why(tmp_path / "face")

    assert search(damaged(files), check)


def test_pictures_in_memory_are_read_or_named():
    assert search(in_memory(), opens_or_says_why)


def test_damaged_metadata_never_costs_a_picture(tmp_path):
    """The same pixels with any EXIF in the file, which may turn them."""
    face = Image.fromarray(Avatar().render(48))

    def check(case):
        form, exif = case
        options = {"WEBP": dict(lossless=True), "JPEG": dict(quality=100, subsampling=0), "PNG": {}}[form]
        face.save(tmp_path / "face", form, exif=b"Exif\0\0" + exif, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = np.asarray(open_picture(tmp_path / "face"), np.int32)
        turned = [np.rot90(side, turns) for side in (opened, opened[:, ::-1]) for turns in range(4)]
        assert min(np.abs(one - np.asarray(face)).mean() for one in turned) < 2

    header = st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"])
    exif = st.builds(lambda head, entries: head + entries, header, st.binary(max_size=80)) | st.binary(max_size=80)
    search(st.tuples(st.sampled_from(["JPEG", "PNG", "WEBP"]), exif), check)


# --- metadata --------------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=12) | st.sampled_from(["joy", "Neutral", "a.png", "b.png", "../a.png", "a\0", "\ud800", "ada"])
NUMBER = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), True, 2**64])
VALUE = st.recursive(
    st.none() | NUMBER | TEXT,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXT | st.sampled_from(Expression.NAMES), inner, max_size=4)
    ),
    max_leaves=8,
)
EXPRESSION = (
    VALUE
    | st.lists(NUMBER, min_size=21, max_size=21)
    | st.dictionaries(st.sampled_from(Expression.NAMES), st.floats(0, 1) | NUMBER, max_size=4)
)
RECORD = st.fixed_dictionaries(
    {},
    optional={"file_name": TEXT | VALUE, "identity": TEXT | VALUE, "expression": EXPRESSION, "text": VALUE},
)
GOOD_PICTURES = (("a", "joy"), ("b", "fear"))
GOOD = st.sampled_from(
    [{"file_name": f"{name}.png", "identity": "ada", "expression": word} for name, word in GOOD_PICTURES]
)
LINE = (
    st.builds(lambda record: json.dumps(record).encode(), RECORD | GOOD | VALUE)
    | st.builds(lambda record: json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass"), RECORD | GOOD)
    | st.binary(max_size=30)
    | st.sampled_from([b"[" * 50_000, b'{"a":' * 50_000, b"9" * 9000, b"\xef\xbb\xbf", b"\r", b"NaN", b""])
)


def test_metadata_is_read_or_named_with_its_line(tmp_path):
    for name in "ab":
        Image.new("RGB", (16, 16)).save(tmp_path / f"{name}.png")
    read = []

    def check(lines):
        (tmp_path / "metadata.jsonl").write_bytes(b"\n".join(lines))
        try:
            read.append(FaceFolder(tmp_path, 16))
        except UserError as error:
            assert one_line(error) and str(error).isprintable()

    lines = [{"file_name": f"{name}.png", "identity": "ada", "expression": word} for name, word in GOOD_PICTURES]
    check([json.dumps(line).encode() for line in lines])
    assert len(read) == 1
    assert search(st.lists(LINE, max_size=4), check)


# --- command lines ---------------------------------------------------------------------------------------------------

ODD = [
    "",
    " ",
    "0",
    "-1",
    "1",
    "2.5",
    "1e400",
    "nan",
    "inf",
    "9" * 5000,
    str(2**64),
    "²",
    "1_0",
    "joy",
    "Neutral",
    "a,b",
]
NAMES = [
    "face.png",
    "out.png",
    "out.psd",
    "new/out.jpg",
    "face.png/x.png",
    "faces",
    "n\0.png",
    "a" * 300 + ".png",
    "x.xbm",
]
OPTIONS = {
    "render": ["--identity", "--emotion", "--appearance", "--size", "--out"],
    "train": ["--profile", "--data", "--out", "--resume", "--minutes", "--size", "--from-nothing"],
    "train-encoder": ["identity", "--out", "--minutes", "--profile"],
    "sample": ["--checkpoint", "--reference", "--which", "--emotions", "--steps", "--seed", "--consistency", "--out"],
    "evaluate": ["--checkpoint", "--identities", "--words", "--seeds", "--consistency", "--json"],
    "compare": [
        "recipes",
        "--profile",
        "--minutes",
        "--steps",
        "--seeds",
        "--identities",
        "--words",
        "--only",
        "--json",
    ],
    "bench": ["--json"],
    "doctor": [],
    "course": ["run", "validate", "--only", "--jobs", "smoke"],
}
WORD = st.sampled_from([*ODD, *NAMES, "smoke", "laptop"]) | st.text(max_size=6).map(lambda text: text.replace("/", ""))


@st.composite
def command_line(draw):
    command = draw(st.sampled_from(list(OPTIONS)))
    options = draw(st.lists(st.sampled_from(OPTIONS[command]), max_size=4)) if OPTIONS[command] else []
    line = [command]
    for option in options:
        line.append(option)
        if option.startswith("--") and draw(st.integers(0, 9)):
            sensible = {
                "--out": NAMES,
                "--json": NAMES,
                "--reference": NAMES,
                "--data": ["faces"],
                "--size": ["16", "64"],
            }
            line.append(draw(WORD | st.sampled_from(sensible.get(option, ["1", "3", "joy"]))))
    return line + draw(st.lists(WORD, max_size=1))


@pytest.fixture
def nothing_runs_long(monkeypatch):
    """The commands up to the work itself, which other tests run."""
    from gen_affect_lib import bench, doctor, pipeline, readers
    from gen_affect_lib.course.release import run, validate
    from gen_affect_lib.evaluation import evaluate, report
    from gen_affect_lib.evaluation.studies import variants
    from gen_affect_lib.training import assembly

    class Pipeline:
        def to(self, device):
            return self

        def __call__(self, reference, expressions, *_, **__):
            return SimpleNamespace(images=[Image.new("RGB", (16, 16))] * len(expressions))

    def load(folder):
        if not (folder / "model_index.json").is_file():
            raise UserError(f"{folder} has no model_index.json")
        return Pipeline()

    monkeypatch.setattr(pipeline.GenAffectPipeline, "from_pretrained", load)
    for module, name in (
        (assembly, "train_profile"), (bench, "run"), (evaluate, "evaluate"), (run, "run_course"), (variants, "compare"),
        (validate, "validate"), (doctor, "report"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, lambda *_, **__: 0)
    for module in (report, variants):
        monkeypatch.setattr(module, "say", lambda *_: "")
    monkeypatch.setattr(readers, "TRAINERS", {name: lambda *_: None for name in readers.TRAINERS})


def test_a_command_line_ends_in_a_result_or_in_one_line(tmp_path, monkeypatch, capsys, nothing_runs_long):
    monkeypatch.chdir(tmp_path)
    face = Image.fromarray(Avatar().render(64))
    write_folder(
        [("ada", word, Avatar(expression=Expression.named(word))) for word in ("joy", "fear")], tmp_path / "faces"
    )
    codes = []

    def check(line):
        face.save(tmp_path / "face.png")
        before = (tmp_path / "face.png").read_bytes()
        try:
            codes.append(cli.main(line))
        except SystemExit as end:  # --help
            assert end.code == 0
        said = capsys.readouterr().err
        if codes and codes[-1] == 2:
            assert said.count("error: ") == 1 and said.splitlines()[-1].startswith("error: ") and len(said) < 1200
        if line[0] != "render":
            assert (tmp_path / "face.png").read_bytes() == before

    check(["render", "--size", "16", "--out", "out.png"])
    check(["render", "--size", "big"])
    assert codes == [0, 2]
    assert search(command_line(), check)
    assert set(codes) <= {0, 1, 2}
