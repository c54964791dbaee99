"""A folder of pictures as a dataset: reading, pairs, and the error for each mistake."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.folder import FaceFolder, parse_expression, sample_avatars, write_folder
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import ROOT

SAMPLE = ROOT / "data" / "sample_folder"


@pytest.fixture
def good(tmp_path):
    """Two people with two pictures each, and the four records of their metadata."""
    folder = tmp_path / "faces"
    write_folder(
        [
            (person, word, Avatar(Identity.sample(seed), Expression.named(word), Appearance.sample(seed)))
            for person, seed in (("ada", 1_000_010), ("ben", 1_000_011))
            for word in ("glee", "gloom")
        ],
        folder,
        size=72,
    )
    return folder


def records(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


def rewrite(folder, changed: list) -> None:
    """Objects are written as JSON, text as it is."""
    lines = [one if isinstance(one, str) else json.dumps(one) for one in changed]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def change(folder, number: int, **fields) -> None:
    changed = records(folder)
    changed[number - 1] |= fields
    rewrite(folder, changed)


# --- what is read ----------------------------------------------------------------------------------------------------


def test_what_was_written_is_read_back(good):
    faces = FaceFolder(good, image_size=72)
    assert faces.identities == ("ada", "ben")
    assert faces.images.shape == (4, 72, 72, 3) and faces.images.dtype == np.uint8
    drawn = Avatar(Identity.sample(1_000_010), Expression.named("glee"), Appearance.sample(1_000_010)).render(72)
    assert np.array_equal(faces.images[0], drawn)
    assert np.array_equal(faces.vectors[0], Expression.named("glee").to_vector())


def test_every_pair_keeps_the_person_and_changes_the_expression(good):
    faces = FaceFolder(good)
    # Two people, two pictures each, both orders.
    assert len(faces) == len(faces.pairs) == 4
    for reference, target in faces.pairs:
        assert faces.entries[reference].identity == faces.entries[target].identity
        assert not np.array_equal(faces.vectors[reference], faces.vectors[target])


def test_a_pair_gives_the_expression_of_its_target(good):
    faces = FaceFolder(good)
    pair, (reference, target) = faces[0], faces.pairs[0]
    assert np.array_equal(pair["reference"], faces.images[reference])
    assert np.array_equal(pair["target"], faces.images[target])
    assert np.array_equal(pair["expression"], faces.vectors[target])
    assert pair["identity"] == "ada"


def test_two_pictures_of_one_expression_make_no_pair(good):
    lines = records(good)
    rewrite(good, [*lines, lines[0] | {"file_name": "extra.png"}])
    Image.new("RGB", (72, 72)).save(good / "extra.png")
    faces = FaceFolder(good)
    pairs = {tuple(pair) for pair in faces.pairs}
    assert (0, 4) not in pairs and (4, 0) not in pairs
    assert {(0, 1), (1, 0), (1, 4), (4, 1)} <= pairs


def test_pictures_are_cropped_to_their_middle_turned_and_put_on_white(good):
    wide = np.zeros((80, 240, 4), np.uint8)
    wide[:, 80:160] = (200, 30, 30, 255)  # the middle is red; the sides are transparent
    Image.fromarray(wide).save(good / "ada_glee.png")
    # A resampling filter may let a little of the neighbours into the rim.
    assert np.abs(FaceFolder(good).images[0].astype(int) - (200, 30, 30)).max() < 40
    assert np.all(FaceFolder(good).images[0][4:-4, 4:-4] == (200, 30, 30))
    Image.fromarray(np.zeros((80, 80, 4), np.uint8)).save(good / "ada_glee.png")
    assert np.all(FaceFolder(good).images[0] == 255)
    half = np.zeros((80, 80, 3), np.uint8)
    half[:40] = 255  # white above; the camera says: turned by 180 degrees
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(half).save(good / "ada_glee.png", exif=exif)
    picture = FaceFolder(good).images[0]
    assert picture[:24].max() == 0 and picture[40:].min() == 255


def test_pictures_may_lie_in_folders_below_and_lines_may_be_blank(good):
    lines = records(good)
    for line in lines:
        place = good / line["identity"]
        place.mkdir(exist_ok=True)
        os.rename(good / line["file_name"], place / line["file_name"])
        line["file_name"] = f"{line['identity']}/{line['file_name']}"
    rewrite(good, [lines[0], "", *lines[1:], "  "])
    assert len(FaceFolder(good)) == 4


def test_an_expression_is_a_word_or_an_object_or_a_list():
    glee = Expression.named("glee")
    units = {name: getattr(glee, name) for name in Expression.NAMES if getattr(glee, name)}
    listed = [getattr(glee, name) for name in Expression.NAMES]
    for form in ("glee", units, listed, units | {"au9": None}):
        assert np.array_equal(parse_expression(form), glee.to_vector())
    assert not parse_expression("neutral").any() and not parse_expression({}).any()


def test_identities_may_be_numbers(good):
    rewrite(good, [line | {"identity": int(line["identity"] == "ben")} for line in records(good)])
    assert FaceFolder(good).identities == ("0", "1")


def test_every_line_separator_of_unicode_may_stand_in_a_text(good):
    lines = [json.dumps(one | {"text": "a\u2028b\u2029c\x85d"}, ensure_ascii=False) for one in records(good)]
    rewrite(good, lines)
    assert FaceFolder(good).identities == ("ada", "ben")


def test_windows_line_ends_and_a_byte_order_mark_are_read(good):
    text = "\r\n".join(json.dumps(one) for one in records(good))
    (good / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert FaceFolder(good).identities == ("ada", "ben")


def test_a_number_of_any_length_names_a_person(good):
    many = "7" * 5000  # more digits than Python converts
    rewrite(good, [json.dumps(one).replace('"ada"', many) for one in records(good)])
    assert FaceFolder(good).identities == (many, "ben")


def test_a_person_with_one_picture_is_marked_as_a_copy(good):
    rewrite(good, records(good)[:3])
    with pytest.warns(UserWarning, match="1 of 2 people have one picture only, which a model tends to copy"):
        faces = FaceFolder(good)
    assert [tuple(pair) for pair in faces.pairs] == [(0, 1), (1, 0), (2, 2)]
    assert faces.copies.tolist() == [False, False, True]
    assert faces[2]["copy"] and not faces[0]["copy"]
    assert np.array_equal(faces[2]["reference"], faces[2]["target"])


def test_pictures_are_read_when_they_are_used(good):
    (good / "ben_gloom.png").write_text("not a picture")
    faces = FaceFolder(good)
    assert faces[0]["target"].shape == (64, 64, 3)
    with pytest.raises(UserError, match="ben_gloom.png is no picture"):
        faces.picture(3)


def test_pictures_can_be_rectangles(good):
    tall = np.zeros((96, 96, 3), np.uint8)
    tall[:, 24:72] = (200, 30, 30)  # the middle half is red
    Image.fromarray(tall).save(good / "ada_glee.png")
    rewrite(good, records(good)[:2])
    faces = FaceFolder(good, image_size=(32, 64))
    assert faces.images.shape == (2, 64, 32, 3)
    assert np.all(faces.picture(0)[:, 4:-4] == (200, 30, 30))


def test_labels_of_other_collections_count_as_words(good):
    rewrite(good, [one | {"expression": word} for one, word in zip(records(good), ("Happy", "sad", "happy", "calm"))])
    words = [Expression.named(word).to_vector() for word in ("happiness", "sadness", "happiness", "neutral")]
    assert np.array_equal(FaceFolder(good).vectors, words)


def test_a_line_may_have_valence_and_arousal_and_a_text(good):
    changed = records(good)
    changed[0] |= {"valence": 0.5, "arousal": -0.25, "text": "a person at a window"}
    rewrite(good, changed)
    first, second = FaceFolder(good).entries[:2]
    assert first.affect == (0.5, -0.25) and first.text == "a person at a window"
    assert second.affect is None and second.text is None


def test_lines_without_expression_need_a_meaning(good):
    lines = records(good)
    rewrite(
        good, [{name: value for name, value in one.items() if name != "expression"} for one in lines[:2]] + lines[2:]
    )
    with pytest.raises(UserError, match="line 1 has no expression"):
        FaceFolder(good)
    faces = FaceFolder(good, meaning=lambda entry: np.full(21, entry.line / 10, np.float32))
    assert faces.vectors[:2, 0].tolist() == pytest.approx([0.1, 0.2])
    assert np.array_equal(faces.vectors[2], Expression.named("glee").to_vector())


# --- the sample folder -----------------------------------------------------------------------------------------------


def test_the_sample_folder_has_four_people_with_six_expressions_each():
    faces = FaceFolder(SAMPLE, image_size=128)
    assert len(faces.entries) == 24 and len(faces.identities) == 4
    assert len(faces) == 4 * 6 * 5
    assert {entry.expression for entry in faces.entries} >= {"neutral", "joy", "anger"}


def test_the_sample_folder_is_what_the_library_draws():
    faces = FaceFolder(SAMPLE, image_size=128)
    for picture, (_, _, avatar) in zip(faces.images, sample_avatars(), strict=True):
        # Other builds of skia may round an edge differently; another face or dress would be far off.
        assert np.abs(picture.astype(int) - avatar.render(128)).mean() < 1.0


def test_the_people_of_the_sample_folder_span_the_skin_tones():
    skins = sorted({avatar.identity.skin for _, _, avatar in sample_avatars()})
    assert [int(4 * skin) for skin in skins] == [0, 1, 2, 3]


def test_the_card_of_the_sample_folder_says_what_it_holds():
    card = (SAMPLE / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and "24 pictures of 128 × 128" in card and "imagefolder" in card


# --- mistakes --------------------------------------------------------------------------------------------------------


def remove_metadata(folder):
    (folder / "metadata.jsonl").unlink()


def break_json(folder):
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    rewrite(folder, [lines[0], lines[1][:-1], *lines[2:]])


def drop_key(key):
    def mistake(folder):
        lines = records(folder)
        del lines[2][key]
        rewrite(folder, lines)

    return mistake


def text_for_picture(folder):
    (folder / "ada_gloom.png").write_text("not a picture")


def cut_picture(folder):
    whole = (folder / "ada_gloom.png").read_bytes()
    (folder / "ada_gloom.png").write_bytes(whole[: len(whole) // 2])


def small_picture(folder):
    Image.new("RGB", (200, 40)).save(folder / "ada_gloom.png")


def link_outside(folder):
    outside = folder.parent / "outside.png"
    Image.new("RGB", (72, 72)).save(outside)
    (folder / "ada_glee.png").unlink()
    (folder / "ada_glee.png").symlink_to(outside)


def links_in_a_circle(folder):
    (folder / "ada_glee.png").unlink()
    (folder / "ada_glee.png").symlink_to(folder / "ben_glee.png")
    (folder / "ben_glee.png").unlink()
    (folder / "ben_glee.png").symlink_to(folder / "ada_glee.png")


MISTAKES = {
    "no metadata": (remove_metadata, "has no metadata.jsonl: write one line"),
    "empty metadata": (lambda folder: rewrite(folder, []), "is empty"),
    "not text": (lambda folder: (folder / "metadata.jsonl").write_bytes(b"\xff\xfe{"), "not UTF-8"),
    "broken JSON": (break_json, "line 2 is not JSON"),
    "no object": (lambda folder: rewrite(folder, ["[1, 2]"]), "line 1 is not an object"),
    "no file name": (drop_key("file_name"), "line 3 has no file_name"),
    "no identity": (drop_key("identity"), "line 3 has no identity"),
    "no expression": (drop_key("expression"), "line 3 has no expression"),
    "odd file name": (lambda folder: change(folder, 1, file_name=7), "line 1: file_name is 7"),
    "odd identity": (lambda folder: change(folder, 1, identity=[1]), "line 1: identity is"),
    "missing file": (lambda folder: change(folder, 2, file_name="gone.png"), "line 2: gone.png does not exist"),
    "not a picture": (text_for_picture, "line 2: .*ada_gloom.png is no picture"),
    "half a picture": (cut_picture, "line 2: .*ada_gloom.png is no picture"),
    "too small": (small_picture, "line 2: ada_gloom.png is 200 × 40 pixels: give at least 64 × 64"),
    "unknown word": (lambda folder: change(folder, 3, expression="hapiness"), "line 3: 'hapiness'.*happiness"),
    "unknown unit": (lambda folder: change(folder, 1, expression={"AU12": 1}), "line 1: 'AU12'.*au12"),
    "unit out of range": (lambda folder: change(folder, 1, expression={"au12": 3}), "line 1: Expression.au12 is 3"),
    "short vector": (lambda folder: change(folder, 1, expression=[0.5] * 20), "line 1: the list has 20 numbers"),
    "vector out of range": (lambda folder: change(folder, 1, expression=[2] + [0] * 20), "line 1: Expression.au1 is 2"),
    "vector of text": (lambda folder: change(folder, 1, expression=["a"] * 21), "line 1: Expression.au1 is 'a'"),
    "number for a word": (lambda folder: change(folder, 1, expression=5), "line 1: 5 is no expression"),
    "two forms": (lambda folder: change(folder, 4, expression={"au12": 1}), "line 4: expression is an object"),
    "odd text": (lambda folder: change(folder, 1, text=["a"]), "line 1: text is"),
    "valence alone": (lambda folder: change(folder, 1, valence=0.5), "line 1: arousal is None"),
    "arousal out of range": (lambda folder: change(folder, 1, valence=0, arousal=2), "line 1: arousal is 2"),
    "one expression only": (
        lambda folder: change(folder, 2, expression="glee"), "all 2 pictures of 'ada' show one expression"
    ),
    "file twice": (lambda folder: change(folder, 2, file_name="ada_glee.png"), "line 2: ada_glee.png is in line 1"),
    "path that leaves": (lambda folder: change(folder, 1, file_name="../secret.png"), "line 1: ../secret.png leaves"),
    "absolute path": (lambda folder: change(folder, 1, file_name="/etc/hosts"), "line 1: /etc/hosts leaves"),
    "links in a circle": (links_in_a_circle, "line 1: ada_glee.png (is no name|does not exist)"),
    "NUL in a name": (lambda folder: change(folder, 1, file_name="a\0.png"), r"line 1: 'a\\x00.png' is no name"),
    "half a character": (
        lambda folder: change(folder, 1, file_name="\ud800.png"), r"line 1: '\\ud800.png' is no name"
    ),
    "lines in a name": (lambda folder: change(folder, 1, file_name="a\nb"), r"line 1: 'a\\nb' does not exist"),
    "a very long name": (
        lambda folder: change(folder, 1, file_name="a" * 9999), "line 1: a+ (does not exist|is no name)"
    ),
    "deep nesting": (lambda folder: rewrite(folder, ["[" * 100_000]), "line 1 has too many brackets"),
    "a number of 400 digits": (
        lambda folder: change(folder, 1, expression={"au12": 10**400}), r"line 1: Expression.au12 is 1\d{59}: give a"
    ),
    "a number of 5,000 digits": (
        lambda folder: rewrite(folder, [f'{{"file_name": "ada_glee.png", "identity": 1, "expression": {"9" * 5000}}}']),
        "line 1: '9+ is not one of the 135",
    ),
    "not a number": (
        lambda folder: change(folder, 1, expression={"au12": float("nan")}), "line 1: Expression.au12 is nan"
    ),
    "link that leaves": (link_outside, "line 1: ada_glee.png leaves the folder"),
}  # fmt: skip


READ_LATER = ("not a picture", "half a picture", "too small")


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_gets_one_clear_line(good, name):
    mistake, message = MISTAKES[name]
    FaceFolder(good)  # valid before the mistake
    mistake(good)
    with pytest.raises(UserError, match=message) as caught:
        faces = FaceFolder(good)
        if name in READ_LATER:
            faces.picture(1)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_folder_that_is_not_there_says_so(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        FaceFolder(tmp_path / "none")


def test_a_folder_with_its_data_one_level_below_points_there(good):
    with pytest.raises(UserError, match=f"try {good}"):
        FaceFolder(good.parent)


def test_writing_a_word_twice_for_one_person_is_refused(tmp_path):
    avatar = Avatar(Identity.sample(1_000_010), Expression.named("glee"), Appearance())
    with pytest.raises(UserError, match="twice"):
        write_folder([("ada", "glee", avatar), ("ada", "glee", avatar)], tmp_path / "out")
