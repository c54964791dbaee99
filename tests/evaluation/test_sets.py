"""A plan asks every model for the same sets, true drawings share what they say, and drawing goes on where it stopped."""

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
def test_a_count_that_there_is_not_is_refused_in_one_line(count):
    with pytest.raises(UserError, match=f"{count} words: there are from 1 to 135") as error:
        spread_words(count)
    assert "\n" not in str(error.value)


# --- the plan --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(people=0), "0 people: give from 1 to 1000"),
        (dict(people=1001), "1001 people: give from 1 to 1000"),
        (dict(words=136), "136 words: there are from 1 to 135"),
        (dict(seeds=0), "0 seeds: give from 1 to 100"),
    ],
)
def test_a_plan_that_cannot_be_drawn_is_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        Plan(**wrong)


def test_nobody_who_is_reported_on_was_trained_on_or_chosen_by():
    assert Plan().persons == range(2_000_000, 2_000_100) and REPORT_SEED == 2_000_000 and VALIDATION_SEED == 1_000_000
    assert Plan(people=3, first_person=VALIDATION_SEED).identities == [Identity.sample(1_000_000 + n) for n in range(3)]


def test_targets_are_the_words_asked_for_once_with_each_seed():
    plan = Plan(people=2, words=5, seeds=3)
    words, vectors = plan.targets()
    assert [EMOTIONS[word] for word in words] == list(plan.asked) * 3
    np.testing.assert_array_equal(vectors, np.stack([Expression.named(EMOTIONS[word]).to_vector() for word in words]))


def test_shuffled_targets_are_those_of_another_word_of_the_plan():
    for count in (2, 5, 27):
        plan = Plan(people=2, words=count, seeds=2)
        (true, _), (words, vectors) = plan.targets(), plan.targets(shuffle=True)
        assert (words != true).all() and set(words) == set(true)
        np.testing.assert_array_equal(vectors[-1], Expression.named(EMOTIONS[words[-1]]).to_vector())


def test_a_reference_shows_the_person_with_a_word_of_its_own_whatever_is_asked_for():
    few, many = Plan(people=3, words=2), Plan(people=3, words=40, seeds=1)
    np.testing.assert_array_equal(few.references, many.references)
    assert few.references.shape == (3, 64, 64, 3) and few.references.dtype == np.uint8
    words = np.stack([Expression.named(word).to_vector() for word in EMOTIONS])
    turns = [int((words == shown).all(axis=1).nonzero()[0][0]) for shown in Plan(people=135).shown]
    assert sorted(turns) == list(range(135)), "all words take turns"


@pytest.fixture
def drawn(monkeypatch):
    """Avatars are noted down in place of being drawn: (identity, expression, appearance) each."""
    noted = []

    def note(*avatar):
        noted.append(avatar)
        return SimpleNamespace(render=lambda size: np.zeros((size, size, 3), np.uint8))

    monkeypatch.setattr(sets, "Avatar", note)
    return noted


def test_true_drawings_differ_in_looks_as_they_say_and_in_nothing_else(drawn):
    plan, looks = Plan(people=3, words=4, seeds=2), {}
    for look in ("own", "one", "other"):
        drawn.clear()
        assert plan.truth(look).shape == (3, 2, 4, 64, 64, 3)
        asked = [
            (plan.identities[n], Expression.named(word)) for n in range(3) for _ in range(2) for word in plan.asked
        ]
        assert [avatar[:2] for avatar in drawn] == asked
        looks[look] = [[drawn[start + w][2] for w in range(4)] for start in range(0, 24, 4)]  # (N S, W)
    assert len({appearance for row in looks["own"] for appearance in row}) == 24, "each picture has its own"
    assert all(len(set(row)) == 1 for row in looks["one"]), "a set shares one"
    assert len({row[0] for row in looks["one"]}) == 6, "and no other set has it"
    assert len({appearance for look in ("own", "other") for row in looks[look] for appearance in row}) == 48


def test_a_reference_shows_its_person_in_clothes_that_no_true_drawing_wears(drawn, monkeypatch):
    plan = Plan(people=2, words=5, seeds=2)
    for look in ("own", "one", "other"):
        plan.truth(look)
    worn = {appearance for _, _, appearance in drawn}
    drawn.clear()
    assert len(plan.references) == 2 and [identity for identity, _, _ in drawn] == plan.identities
    assert not {appearance for _, _, appearance in drawn} & worn
    shown = [expression.to_vector() for _, expression, _ in drawn]
    monkeypatch.undo()
    np.testing.assert_array_equal(Plan(people=2).shown, shown)


def test_the_same_plan_has_the_same_bytes_and_a_set_does_not_ask_who_else_is_in_it():
    two, three = Plan(people=2, words=3, seeds=2), Plan(people=3, words=3, seeds=2)
    for look in ("own", "one", "other"):
        truth = two.truth(look)
        np.testing.assert_array_equal(truth, Plan(people=2, words=3, seeds=2).truth(look))
        np.testing.assert_array_equal(truth, three.truth(look)[:2])
    np.testing.assert_array_equal(two.references, three.references[:2])
    assert truth.dtype == np.uint8 and truth.std() > 20


def test_somebody_is_found_among_1000_people_the_first_of_whom_are_the_plans(monkeypatch):
    assert sets.GALLERY == 1000
    monkeypatch.setattr(sets, "GALLERY", 5)
    plan = Plan(people=2, words=1)
    gallery = plan.gallery()
    assert gallery.shape == (5, 64, 64, 3)
    np.testing.assert_array_equal(gallery, Plan(people=5, words=1).references)


# --- drawing ---------------------------------------------------------------------------------------------------------

PLAN = Plan(people=5, words=2, seeds=2)


class Painter:
    """Draws pictures that tell what they were asked for, until `patience` people are done."""

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
    assert painter.asked == [(person, PLAN.asked, seed) for person in people for seed in range(2)]
    assert result.images.shape == (5, 2, 2, 64, 64, 3) and result.images.dtype == np.uint8
    assert result.seconds.shape == (5,) and (result.seconds >= 0).all()
    shades = result.images[..., 0, 0, 0] - PLAN.references[:, None, None, 0, 0, 0] // 64
    assert (shades == [[0, 10], [40, 50]]).all()


def test_what_was_interrupted_goes_on_with_the_people_who_are_missing(tmp_path):
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


def test_a_file_that_was_half_written_is_not_taken_for_a_whole_one(tmp_path, monkeypatch):
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
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{seed}.npz" for seed in PLAN.persons]


def test_a_set_drawn_does_not_ask_who_else_is_in_the_plan(tmp_path):
    more = Plan(people=6, words=2, seeds=2)
    five, six = draw_sets(Painter(), PLAN, tmp_path / "5"), draw_sets(Painter(), more, tmp_path / "6")
    np.testing.assert_array_equal(five.images, six.images[:5])


def test_a_pipeline_draws_every_person_from_the_same_noise():
    seen = []

    def pipeline(reference, words, generator):
        seen.append((reference, words, generator.initial_seed()))
        return SimpleNamespace(images=["picture"] * len(words))

    draw = drawn_by(pipeline)
    assert draw("Ada", ("joy", "fear"), 7) == ["picture"] * 2 and draw("Bea", ("joy",), 7) == ["picture"]
    assert seen == [("Ada", ["joy", "fear"], 7), ("Bea", ["joy"], 7)]
