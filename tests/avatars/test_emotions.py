"""The table of 135 emotions: complete, plausible, and visibly different on the face."""

import csv
import os
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity, emotions
from gen_affect_lib.avatars.factors import ACTION_UNITS
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import DATA, ROOT

TABLE = emotions.table()
# Shaver, Schwartz, Kirson & O'Connor 1987.
COUNTS = {"love": 16, "joy": 33, "surprise": 3, "anger": 29, "sadness": 37, "fear": 17}


def units(word: str) -> dict[int, float]:
    return dict(zip(ACTION_UNITS, TABLE[word].expression_vector))


# --- the tree --------------------------------------------------------------------------------------------------------


def test_the_tree_has_135_words_in_6_families_and_25_groups():
    assert len(emotions.EMOTIONS) == len(set(emotions.EMOTIONS)) == 135
    assert Counter(one.family for one in TABLE.values()) == COUNTS
    assert len(emotions.groups()) == 25
    assert tuple(emotions.families()) == tuple(COUNTS)


def test_families_and_groups_cover_every_word_once_and_in_the_order_of_the_table():
    words = [word for names in emotions.families().values() for name in names for word in emotions.groups()[name]]
    assert tuple(words) == emotions.EMOTIONS == tuple(TABLE)


@pytest.mark.parametrize(
    "a, b, distance",
    [("glee", "glee", 0), ("glee", "bliss", 1), ("glee", "pride", 2), ("glee", "terror", 3), ("love", "lust", 2)],
)
def test_tree_distance_counts_the_levels_up_to_the_common_ancestor(a, b, distance):
    assert emotions.tree_distance(a, b) == emotions.tree_distance(b, a) == distance


def test_vectors_stand_in_the_order_of_the_expression():
    assert emotions.EXPRESSION_COLUMNS == Expression.NAMES
    glee = Expression.named("glee")
    assert np.allclose(glee.to_vector(), TABLE["glee"].expression_vector)
    assert glee.au12 == units("glee")[12]


# --- plausible faces -------------------------------------------------------------------------------------------------

# Each published prototype: the units that a face of this word must show, and the gaze or head that goes with it.
PROTOTYPES = {
    "happiness": {12, 25}, "sadness": {4, 15}, "fear": {1, 4, 20, 25}, "anger": {4, 7, 24}, "surprise": {1, 2, 25, 26},
    "disgust": {9, 10, 17}, "hate": {4, 10}, "amusement": {6, 7, 12, 25, 26}, "embarrassment": {7, 12, 15},
    "pride": {7, 12}, "contempt": {4, 14, 25}, "shame": {4, 17}, "sympathy": {1, 17, 24}, "desire": {6, 7, 12, 25},
    "contentment": {12, 43},
}  # fmt: skip


@pytest.mark.parametrize("word", PROTOTYPES)
def test_a_prototype_shows_the_units_of_its_published_table(word):
    assert TABLE[word].provenance == "prototype"
    missing = {unit for unit in PROTOTYPES[word] if units(word)[unit] < 0.25}
    assert not missing, f"{word} lacks {missing}"


def test_only_words_that_a_table_names_are_called_prototypes():
    assert {word for word, one in TABLE.items() if one.provenance == "prototype"} == set(PROTOTYPES)


def test_pride_looks_down_on_shame():
    assert Expression.named("pride").head_pitch > 0.5 > -0.5 > Expression.named("shame").head_pitch
    assert abs(Expression.named("embarrassment").gaze_x) > 0.5


@pytest.mark.parametrize("word", emotions.EMOTIONS)
def test_no_face_asks_for_two_things_at_once(word):
    u = units(word)
    assert not (u[43] > 0.5 and u[5] > 0), "closed eyes cannot be opened wide"
    assert not (u[24] > 0 and max(u[25], u[26]) > 0), "pressed lips cannot be parted"
    assert not min(u[12], u[15]) > 0.35 or word == "embarrassment", "corners go up or down"
    assert u[26] <= 0 or u[25] > 0, "a dropped jaw parts the lips"


@pytest.mark.parametrize("word", emotions.EMOTIONS)
def test_every_face_moves_boldly_enough_to_be_read(word):
    assert max(map(abs, TABLE[word].expression_vector)) >= 0.45
    assert sum(abs(value) for value in TABLE[word].expression_vector) >= 1.2


@pytest.mark.parametrize("family, sign", [("love", 1), ("joy", 1), ("anger", -1), ("sadness", -1), ("fear", -1)])
def test_valence_has_the_sign_of_its_family(family, sign):
    assert all(sign * one.valence > 0 for one in TABLE.values() if one.family == family and one.word != "longing")


def test_arousal_tells_the_quiet_from_the_loud():
    arousal = {word: one.arousal for word, one in TABLE.items()}
    assert arousal["rage"] > arousal["annoyance"] > arousal["gloom"]
    assert arousal["ecstasy"] > arousal["bliss"] > arousal["contentment"]


# --- distance on the face --------------------------------------------------------------------------------------------

SIZE = 64
# Rows and columns, as fractions of the picture, around brows and eyes, and around nose and mouth. They leave room for
# a turned or nodding head.
REGIONS = (((0.26, 0.56), (0.23, 0.77)), ((0.56, 0.87), (0.29, 0.71)))
# People along the whole range of skin tones, from the validation seeds.
PEOPLE = 8
# Mean over people and over the region's pixels of the absolute difference of a colour channel, where 1 is
# the full range of a channel. The median pair is at 0.08.
LEAST_DISTANCE = 0.018


def people() -> list[Identity]:
    """One validation identity for each eighth of the range of skin tones."""
    found = {}
    for seed in range(1_000_000, 1_000_200):
        identity = Identity.sample(seed)
        found.setdefault(min(int(identity.skin * PEOPLE), PEOPLE - 1), identity)
    assert len(found) == PEOPLE
    return [found[place] for place in sorted(found)]


def face_pixels(words, identity: Identity) -> np.ndarray:
    """float32 (words, pixels of the region × 3) in [0, 1]: one person, one appearance, many expressions."""
    pictures = [Avatar(identity, Expression.named(word), Appearance()).render(SIZE) for word in words]
    stack = np.stack(pictures).astype(np.float32) / 255  # (words, S, S, 3)
    parts = []
    for (top, bottom), (left, right) in REGIONS:
        rows, columns = slice(round(top * SIZE), round(bottom * SIZE)), slice(round(left * SIZE), round(right * SIZE))
        parts.append(stack[:, rows, columns].reshape(len(words), -1))  # (words, h, w, 3) -> (words, h*w*3)
    return np.concatenate(parts, axis=1)


@pytest.fixture(scope="module")
def distances() -> np.ndarray:
    """float (people, words, words): mean absolute difference around brows, eyes and mouth."""
    pixels = (torch.from_numpy(face_pixels(emotions.EMOTIONS, identity)) for identity in people())
    return np.stack([(torch.cdist(one, one, p=1) / one.shape[1]).numpy() for one in pixels])


def closest(distance: np.ndarray, count: int) -> list[tuple[float, str, str]]:
    first, second = np.triu_indices(len(emotions.EMOTIONS), k=1)
    order = np.argsort(distance[first, second])[:count]
    return [
        (float(distance[first[k], second[k]]), emotions.EMOTIONS[first[k]], emotions.EMOTIONS[second[k]]) for k in order
    ]


def test_every_two_words_that_are_no_synonyms_look_different_at_64_pixels(distances):
    twenty = closest(distances.mean(axis=0), 20)
    listing = "\n".join(f"{value:.4f}  {a} – {b}" for value, a, b in twenty)
    print(f"\nthe closest twenty of {135 * 134 // 2} pairs, mean absolute difference over {PEOPLE} people:\n{listing}")
    synonyms = {frozenset(pair) for pair in emotions.SYNONYMS}
    too_close = [pair for pair in twenty if pair[0] < LEAST_DISTANCE and frozenset(pair[1:]) not in synonyms]
    assert not too_close, f"open these pairs up in data/emotions.csv:\n{listing}"


def test_at_most_five_pairs_are_declared_synonyms_and_they_are_neighbours_in_the_tree():
    assert len(emotions.SYNONYMS) <= 5
    assert all(emotions.tree_distance(a, b) in (1, 2) for a, b in emotions.SYNONYMS)


def test_words_stay_apart_on_every_skin_tone(distances):
    # By person the least distance may be smaller than the mean's, but no skin tone may lose its expressions.
    for number, distance in enumerate(distances):
        value, a, b = closest(distance, 1)[0]
        assert value >= 0.5 * LEAST_DISTANCE, f"{a} and {b} look alike on person {number} (0 lightest): {value:.4f}"


# --- words that nobody knows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word, near", [("hapiness", "happiness"), ("happy", "happiness"), ("Gle", "glee"), ("wory", "worry")]
)
def test_an_unknown_word_is_answered_with_the_nearest_ones(word, near):
    with pytest.raises(UserError, match=near):
        emotions.emotion(word)


def test_case_and_blanks_around_a_word_do_not_matter():
    assert emotions.emotion(" Glee ") is emotions.emotion("glee")


@pytest.mark.parametrize("word", ["", "qqqq", None, 7, ["glee"]])
def test_what_is_no_word_gets_one_clear_line(word):
    with pytest.raises(UserError, match="emotion") as caught:
        emotions.emotion(word)
    assert "\n" not in str(caught.value)


# --- a broken table --------------------------------------------------------------------------------------------------


def broken(tmp_path, change):
    lines = (DATA / "emotions.csv").read_text(encoding="utf-8").splitlines()
    change(lines)
    path = tmp_path / "emotions.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def set_cell(lines, number, column, value):
    cells = next(csv.reader([lines[number - 1]]))
    cells[emotions.COLUMNS.index(column)] = value
    lines[number - 1] = ",".join(f'"{cell}"' for cell in cells)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda lines: set_cell(lines, 3, "au12", "1.5"), "line 3: au12 is '1.5': give a number from 0 to 1"),
        (lambda lines: set_cell(lines, 4, "gaze_x", "nan"), "line 4: gaze_x is 'nan'"),
        (lambda lines: set_cell(lines, 5, "valence", "high"), "line 5: valence is 'high'"),
        (lambda lines: set_cell(lines, 6, "provenance", "guess"), "line 6: provenance is 'guess'"),
        (lambda lines: set_cell(lines, 7, "word", ""), "line 7: word is empty"),
        (lambda lines: set_cell(lines, 8, "word", "adoration"), "line 8: 'adoration' is in the table twice"),
        (lambda lines: set_cell(lines, 9, "family", "fear"), "line 9: group 'affection' belongs to family 'love'"),
        (lambda lines: lines.__setitem__(1, "adoration,love"), "line 2: give exactly 28 values"),
        (lambda lines: lines.__setitem__(0, lines[0].replace("au43", "au44")), "au43, au44"),
        (lambda lines: lines.__delitem__(slice(1, None)), "no emotions"),
    ],
)
def test_a_broken_table_is_reported_with_line_and_column(tmp_path, change, message):
    with pytest.raises(UserError, match=re.escape(message)):
        emotions.read_table(broken(tmp_path, change))


def test_a_missing_table_says_so(tmp_path):
    with pytest.raises(UserError, match="is missing"):
        emotions.read_table(tmp_path / "emotions.csv")


# --- your own copy of NRC-VAD ----------------------------------------------------------------------------------------


def lexicon(tmp_path, text):
    path = tmp_path / "vad.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_copy_of_the_lexicon_is_rescaled_to_minus_one_to_one(tmp_path):
    path = lexicon(tmp_path, "Word\tValence\tArousal\tDominance\nglee\t1.0\t0.5\t0.0\naardvark\t0.4\t0.5\t0.4\n")
    assert emotions.load_vad(path) == {"glee": (1.0, 0.0, -1.0)}


def test_the_second_version_of_the_lexicon_is_on_that_scale_already(tmp_path):
    path = lexicon(tmp_path, "term\tvalence\tarousal\tdominance\nglee\t0.5\t-0.25\t0\n")
    assert emotions.load_vad(path, low=-1) == {"glee": (0.5, -0.25, 0.0)}


@pytest.mark.parametrize(
    "text, low, message",
    [
        ("glee\t0.5\t-0.2\t0.1\n", 0, "try low=-1"),
        ("glee\t0.5\t0.2\t0.1\n", -1, "try low=0"),
        ("glee\t0.5\t0.2\n", 0, "line 1: give term"),
        ("glee\t0.5\t0.2\tmuch\n", 0, "line 1: give term"),
        ("aardvark\t0.5\t0.2\t0.1\n", 0, "none of the 135 words"),
        ("glee\t0.5\t0.2\t0.1\n", 3, "low is 3"),
    ],
)
def test_a_lexicon_that_cannot_be_read_says_what_to_try(tmp_path, text, low, message):
    with pytest.raises(UserError, match=message):
        emotions.load_vad(lexicon(tmp_path, text), low=low)


def test_a_lexicon_that_is_not_there_says_whose_copy_is_meant(tmp_path):
    with pytest.raises(UserError, match="your own copy"):
        emotions.load_vad(tmp_path / "none.txt")


def test_a_word_is_added_in_the_table_alone(tmp_path):
    """With one more row, every list, tree and size that comes from the words has one more."""
    lines = (DATA / "emotions.csv").read_text(encoding="utf-8").splitlines()
    lines.append(lines[1].replace("adoration", "gratitude"))
    (tmp_path / "emotions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    program = """
from gen_affect_lib.avatars import EMOTIONS, Expression
from gen_affect_lib.avatars.emotions import LEVELS, branches, groups, membership
from gen_affect_lib.encoders import affect
from gen_affect_lib.encoders.expression import ExpressionReading, make_vit, read_expression
assert LEVELS == (6, 25, 136) and EMOTIONS[-1] == "gratitude" and "gratitude" in groups()["affection"]
assert membership(25).shape == (136, 25) and len(branches()[136]) == 136
reading = read_expression("gratitude")
assert reading.word_logits.shape == (1, 137) and reading.representation.shape == (1, ExpressionReading.SIZE)
assert make_vit(hidden_size=16, num_hidden_layers=1, num_attention_heads=2).config.num_labels == 21 + 2 + 137
"""
    environment = os.environ | {"GEN_AFFECT_DATA": str(tmp_path)}
    out = subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr


@pytest.mark.parametrize("classes, level", [(6, "family"), (25, "group"), (135, "word")])
def test_a_class_is_as_likely_as_its_words_together(classes, level):
    words = np.random.default_rng(0).dirichlet(np.ones(135), size=(2, 3))
    names = list(dict.fromkeys(getattr(row, level) for row in TABLE.values()))
    summed = emotions.class_probabilities(words, classes)
    assert summed.shape == (2, 3, classes) == (2, 3, len(names))
    for column, name in enumerate(names):
        own = [index for index, row in enumerate(TABLE.values()) if getattr(row, level) == name]
        assert (emotions.branches()[classes][own] == column).all()
        assert summed[..., column] == pytest.approx(words[..., own].sum(axis=-1))


def test_another_number_of_classes_is_refused():
    with pytest.raises(UserError, match="no 7 classes: give 6"):
        emotions.class_probabilities(np.ones(135), 7)
