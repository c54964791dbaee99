"""A plan gives every model the same sets, true drawings share what they should, and drawing can be resumed."""

from types import SimpleNamespace

import numpy as np
import pytest

from gen_affect_lib.avatars import EMOTIONS, Expression, Identity
from gen_affect_lib.avatars.emotions import emotion, groups
from gen_affect_lib.avatars.splits import REPORT_SEED, VALIDATION_SEED
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation import sets
from gen_affect_lib.evaluation.sets import Plan, draw_sets, drawn_by, spread_words

# --- words -----------------------------------------------------------------------------------------------------------


def test_a_word_of_each_group_comes_before_a_second_one_of_any():
    first = [emotion(word).group for word in spread_words(25)]
    assert sorted(first) == sorted(groups())
    assert {emotion(word).group for word in spread_words(27)} == set(groups())


def test_135_words_are_all_of_them_once_and_fewer_are_their_beginning():
    assert sorted(spread_words(135)) == sorted(EMOTIONS)
    assert spread_words(27) == spread_words(135)[:27] == spread_words(27)
    assert spread_words(1) == spread_words(135)[:1]


@pytest.mark.parametrize("count", [0, -1, 136])
def test_a_count_out_of_range_is_refused_in_one_line(count):
    with pytest.raises(UserError, match=f"{count} words: give from 1 to 135") as error:
        spread_words(count)
    assert "\n" not in str(error.value)


# --- the plan --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(people=0), "0 people: give from 1 to 1000"),
        (dict(people=1001), "1001 people: give from 1 to 1000"),
        (dict(words=136), "136 words: give from 1 to 135"),
        (dict(seeds=0), "0 seeds: give from 1 to 100"),
    ],
)
def test_a_plan_that_cannot_be_drawn_is_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        Plan(**wrong)


def test_reported_and_validation_people_have_seeds_of_their_own():
    assert Plan().person_seeds == range(2_000_000, 2_000_100)
    assert (REPORT_SEED, VALIDATION_SEED) == (2_000_000, 1_000_000)
    assert Plan(people=3, first_person=VALIDATION_SEED).identities == [Identity.sample(1_000_000 + n) for n in range(3)]


def test_targets_are_the_target_words_once_with_each_seed():
    plan = Plan(people=2, words=5, seeds=3)
    words, vectors = plan.targets()
    assert [EMOTIONS[word] for word in words] == list(plan.target_words) * 3
    np.testing.assert_array_equal(vectors, np.stack([Expression.named(EMOTIONS[word]).to_vector() for word in words]))


def test_shuffled_targets_are_those_of_another_word_of_the_plan():
    for count in (2, 5, 27):
        plan = Plan(people=2, words=count, seeds=2)
        (true, _), (words, vectors) = plan.targets(), plan.targets(shuffle=True)
        assert (words != true).all() and set(words) == set(true)
        np.testing.assert_array_equal(vectors[-1], Expression.named(EMOTIONS[words[-1]]).to_vector())


def test_a_reference_has_a_word_of_its_own_whatever_the_target_words():
    few, many = Plan(people=3, words=2), Plan(people=3, words=40, seeds=1)
    np.testing.assert_array_equal(few.references, many.references)
    assert few.references.shape == (3, 64, 64, 3) and few.references.dtype == np.uint8
    words = np.stack([Expression.named(word).to_vector() for word in EMOTIONS])
    turns = [int((words == shown).all(axis=1).nonzero()[0][0]) for shown in Plan(people=135).reference_vectors]
    assert sorted(turns) == list(range(135)), "all words take turns"


@pytest.fixture
def drawn(monkeypatch):
    """Avatars are recorded instead of drawn: (identity, expression, appearance) each."""
    noted = []

    def note(*avatar):
        noted.append(avatar)
        return SimpleNamespace(render=lambda size: np.zeros((size, size, 3), np.uint8))

    monkeypatch.setattr(sets, "Avatar", note)
    return noted


def test_true_drawings_differ_in_appearance_as_they_say_and_in_nothing_else(drawn):
    plan, appearances = Plan(people=3, words=4, seeds=2), {}
    for kind in ("own", "shared", "other"):
        drawn.clear()
        assert plan.true_drawings(kind).shape == (3, 2, 4, 64, 64, 3)
        asked = [
            (plan.identities[n], Expression.named(word))
            for n in range(3)
            for _ in range(2)
            for word in plan.target_words
        ]
        assert [avatar[:2] for avatar in drawn] == asked
        appearances[kind] = [[drawn[start + w][2] for w in range(4)] for start in range(0, 24, 4)]  # (N S, W)
    assert len({appearance for row in appearances["own"] for appearance in row}) == 24, "each picture has its own"
    assert all(len(set(row)) == 1 for row in appearances["shared"]), "a set shares one"
    assert len({row[0] for row in appearances["shared"]}) == 6, "and no other set has it"
    assert len({appearance for kind in ("own", "other") for row in appearances[kind] for appearance in row}) == 48


def test_a_reference_has_another_appearance_than_all_true_drawings(drawn, monkeypatch):
    plan = Plan(people=2, words=5, seeds=2)
    for kind in ("own", "shared", "other"):
        plan.true_drawings(kind)
    worn = {appearance for _, _, appearance in drawn}
    drawn.clear()
    assert len(plan.references) == 2 and [identity for identity, _, _ in drawn] == plan.identities
    assert not {appearance for _, _, appearance in drawn} & worn
    shown = [expression.to_vector() for _, expression, _ in drawn]
    monkeypatch.undo()
    np.testing.assert_array_equal(Plan(people=2).reference_vectors, shown)


def test_the_same_plan_has_the_same_bytes_and_a_set_does_not_depend_on_other_people():
    two, three = Plan(people=2, words=3, seeds=2), Plan(people=3, words=3, seeds=2)
    for kind in ("own", "shared", "other"):
        truth = two.true_drawings(kind)
        np.testing.assert_array_equal(truth, Plan(people=2, words=3, seeds=2).true_drawings(kind))
        np.testing.assert_array_equal(truth, three.true_drawings(kind)[:2])
    np.testing.assert_array_equal(two.references, three.references[:2])
    assert truth.dtype == np.uint8 and truth.std() > 20


def test_the_gallery_has_another_picture_of_each_of_1000_people_beginning_with_those_of_the_plan(drawn, monkeypatch):
    assert sets.GALLERY == 1000
    monkeypatch.setattr(sets, "GALLERY", 5)
    plan = Plan(people=2, words=1)
    assert plan.gallery().shape == (5, 64, 64, 3)
    shown = list(drawn)
    assert [identity for identity, _, _ in shown] == Plan(people=5).identities
    drawn.clear()
    assert len(Plan(people=5).references) == 5
    for (_, expression, appearance), (_, other_expression, other_appearance) in zip(shown, drawn):
        assert expression != other_expression and appearance != other_appearance


# --- drawing ---------------------------------------------------------------------------------------------------------

PLAN = Plan(people=5, words=2, seeds=2)


class Painter:
    """Draws pictures whose shade depends on the arguments, and is interrupted after `patience` people."""

    def __init__(self, patience=99):
        self.patience, self.asked = patience, []

    def __call__(self, reference, words, seed):
        if len(self.asked) == 2 * self.patience:
            raise KeyboardInterrupt
        self.asked.append((reference.tobytes(), tuple(words), seed))
        return [
            np.full((64, 64, 3), 40 * seed + 10 * w + reference[0, 0, 0] // 64, np.uint8) for w in range(len(words))
        ]


def test_all_sets_come_back_in_the_order_of_the_plan(tmp_path):
    painter = Painter()
    result = draw_sets(painter, PLAN, tmp_path / "new" / "sets")
    people = [reference.tobytes() for reference in PLAN.references]
    assert painter.asked == [(person, PLAN.target_words, seed) for person in people for seed in range(2)]
    assert result.images.shape == (5, 2, 2, 64, 64, 3) and result.images.dtype == np.uint8
    assert result.seconds.shape == (5,) and (result.seconds >= 0).all()
    shades = result.images[..., 0, 0, 0] - PLAN.references[:, None, None, 0, 0, 0] // 64
    assert (shades == [[0, 10], [40, 50]]).all()


def test_an_interrupted_drawing_is_resumed_with_the_missing_people(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        draw_sets(Painter(patience=3), PLAN, tmp_path)
    painter = Painter()
    result = draw_sets(painter, PLAN, tmp_path)
    assert [asked[0] for asked in painter.asked[::2]] == [reference.tobytes() for reference in PLAN.references[3:]]
    whole = draw_sets(Painter(), PLAN, tmp_path / "whole")
    np.testing.assert_array_equal(result.images, whole.images)
    again = draw_sets(lambda *_: pytest.fail("drawn again"), PLAN, tmp_path)
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.seconds, result.seconds)


def test_a_file_that_was_half_written_is_not_used(tmp_path, monkeypatch):
    write = np.savez_compressed

    def full(path, **arrays):
        write(path, **arrays)
        path.write_bytes(path.read_bytes()[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError):
        draw_sets(Painter(), PLAN, tmp_path)
    monkeypatch.undo()
    painter = Painter()
    assert draw_sets(painter, PLAN, tmp_path).images.shape == (5, 2, 2, 64, 64, 3)
    assert len(painter.asked) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{seed}.npz" for seed in PLAN.person_seeds]


@pytest.mark.parametrize("damage", ["half", "zeros", "empty", "one bit"])
def test_a_damaged_file_is_drawn_again(tmp_path, damage):
    expected = draw_sets(Painter(), PLAN, tmp_path).images
    file = tmp_path / f"{PLAN.person_seeds[2]}.npz"
    whole = file.read_bytes()
    bit = bytearray(whole)
    bit[150] ^= 1
    damages = {"half": whole[: len(whole) // 2], "zeros": bytes(len(whole)), "empty": b"", "one bit": bytes(bit)}
    file.write_bytes(damages[damage])
    painter = Painter()
    np.testing.assert_array_equal(draw_sets(painter, PLAN, tmp_path).images, expected)
    assert len(painter.asked) == 2


def test_a_set_does_not_depend_on_the_other_people_of_the_plan(tmp_path):
    more = Plan(people=6, words=2, seeds=2)
    five, six = draw_sets(Painter(), PLAN, tmp_path / "5"), draw_sets(Painter(), more, tmp_path / "6")
    np.testing.assert_array_equal(five.images, six.images[:5])


def test_a_pipeline_draws_every_person_from_the_same_noise():
    seen = []

    def pipeline(reference, words, generator, as_drawn):
        assert as_drawn
        seen.append((reference, words, generator.initial_seed()))
        return SimpleNamespace(images=["picture"] * len(words))

    draw = drawn_by(pipeline)
    assert draw("Ada", ("joy", "fear"), 7) == ["picture"] * 2 and draw("Bea", ("joy",), 7) == ["picture"]
    assert seen == [("Ada", ["joy", "fear"], 7), ("Bea", ["joy"], 7)]
