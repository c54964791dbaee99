"""The wheel and the plane show the word, or the point, that was chosen, and its face."""

import numpy as np
import pytest

from gen_affect_lib import widgets
from gen_affect_lib.avatars import EMOTIONS, Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.emotions import families, groups, table
from gen_affect_lib.encoders.affect import vector_of_point
from gen_affect_lib.errors import UserError
from gen_affect_lib.widgets import words
from gen_affect_lib.widgets.words import CARD, FACE, SIDE


def face_in(picture) -> np.ndarray:
    left = SIDE + 24 + (CARD - FACE) // 2
    return np.asarray(picture)[4 : 4 + FACE, left : left + FACE]


def drawn_face(expression, identity=0, appearance=0) -> np.ndarray:
    return Avatar(Identity.sample(identity), expression, Appearance.sample(appearance)).render(FACE)


# --- the wheel ---


@pytest.mark.parametrize("word", EMOTIONS[::13])
def test_the_wheel_shows_the_words_face_beside_it(word):
    assert np.array_equal(face_in(widgets.draw_wheel(word, 3, 4)), drawn_face(Expression.named(word), 3, 4))


def test_the_wheel_marks_the_word_and_only_where_it_stands():
    joy, fear = (np.asarray(widgets.draw_wheel(word))[:, :SIDE].astype(int) for word in ("glee", "fear"))
    for word, picture, other in (("glee", joy, fear), ("fear", fear, joy)):
        x, y = (round(SIDE * v) for v in words.place_of(word))
        assert np.abs(picture - other)[y - 4 : y + 5, x - 4 : x + 5].max() > 60
    x, y = (round(SIDE * v) for v in words.place_of("sadness"))
    assert np.array_equal(joy[y - 4 : y + 5, x - 4 : x + 5], fear[y - 4 : y + 5, x - 4 : x + 5])


def test_all_words_have_a_place_and_none_anothers():
    angles = words.word_angles()
    assert tuple(angles) == EMOTIONS
    ends = [end for _, end in angles.values()]
    starts = [start for start, _ in angles.values()]
    assert all(end <= start + 1e-9 for end, start in zip(ends, starts[1:])) and 0 < starts[0] and ends[-1] < 360
    assert [words.word_at(*words.place_of(word)) for word in EMOTIONS] == list(EMOTIONS)


@pytest.mark.parametrize("word", ["glee", "surprise", "relief"])
def test_pressing_a_group_or_a_family_chooses_its_first_word(word):
    turn = np.radians(sum(words.word_angles()[word]) / 2)
    at = {
        radius: words.word_at(0.5 + radius * np.sin(turn), 0.5 - radius * np.cos(turn)) for radius in (0.15, 0.3, 0.45)
    }
    one = table()[word]
    assert at == {0.15: groups()[families()[one.family][0]][0], 0.3: groups()[one.group][0], 0.45: word}


@pytest.mark.parametrize("x, y", [(0.5, 0.5), (0.01, 0.01), (0.99, 0.98)])
def test_beside_the_wheel_and_in_its_hole_is_no_word(x, y):
    assert words.word_at(x, y) is None


def test_arrow_keys_reach_every_word_and_every_group():
    word, seen = EMOTIONS[0], []
    for _ in EMOTIONS:
        seen.append(word)
        word = words.next_word(word, 1, 0)
    assert tuple(seen) == EMOTIONS and word == EMOTIONS[0]
    assert words.next_word(words.next_word("glee", 1, 0), -1, 0) == "glee"
    seen = []
    for _ in groups():
        seen.append(table()[word].group)
        word = words.next_word(word, 0, 1)
    assert seen == list(groups())


def test_the_wheel_is_pressed_walked_or_chosen_from_a_list(shown, drawn, press):
    panel = widgets.word_wheel("glee", 3, 4)
    x, y = words.place_of("terror")
    press(panel, point=(x * SIDE / (SIDE + 24 + CARD), y))
    assert panel.values == {"word": "terror"}
    assert np.array_equal(drawn(panel), np.asarray(widgets.draw_wheel("terror", 3, 4)))
    press(panel, step=(1, 0))
    assert panel.values == {"word": words.next_word("terror", 1, 0)}
    panel.sliders["word"].value = "pity"
    assert "Chosen is pity, of the group sympathy in the family sadness" in panel.picture.alt
    press(panel, point=(0.95, 0.2))  # the face beside the wheel
    assert panel.values == {"word": "pity"}


def test_the_words_say_what_the_wheel_shows():
    said = words.say_wheel("glee")
    assert "glee" in said and "cheerfulness" in said and "lip corner puller 1" in said and "Valence 0.85" in said


def test_an_unknown_word_is_refused_with_the_nearest(shown):
    with pytest.raises(UserError, match="gle"):
        widgets.word_wheel("gle")


# --- the plane ---


@pytest.mark.parametrize("valence, arousal", [(0.85, 0.65), (-0.6, 0.35), (0.0, 0.0), (1.0, -1.0), (-1.0, 1.0)])
def test_the_plane_shows_the_blended_face_of_a_point(valence, arousal):
    face = face_in(widgets.draw_plane(valence, arousal, 3, 4))
    expression = Expression.from_vector(vector_of_point(valence, arousal))
    assert np.array_equal(face, drawn_face(expression, 3, 4))


def test_what_counts_at_a_point_are_the_nearest_words_the_nearest_first():
    one = table()["depression"]
    assert words.nearest_words(one.valence, one.arousal)["depression"] > 0.95
    near = words.nearest_words(0.72, 0.42)
    far = {word: np.hypot(table()[word].valence - 0.72, table()[word].arousal - 0.42) for word in near}
    assert list(far.values()) == sorted(far.values()) and list(near.values()) == sorted(near.values(), reverse=True)
    assert next(iter(words.nearest_words(0.0, 0.0))) == "neutral"


def test_no_label_hides_another():
    boxes = [(x, y - 6, x + words.text_width(word, 11), y + 6) for word, (x, y) in words._labels().items()]
    for n, a in enumerate(boxes):
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:n])
    assert len(boxes) > 60


def test_the_plane_is_pressed_walked_or_slid_over(shown, drawn, press):
    panel = widgets.affect_pad(0.0, 0.0, 3, 4)
    x, y = words._in_square(-0.8, 0.5)
    press(panel, point=(x / (SIDE + 24 + CARD), y / SIDE))
    assert panel.values == {"valence": -0.8, "arousal": 0.5}
    assert np.array_equal(drawn(panel), np.asarray(widgets.draw_plane(-0.8, 0.5, 3, 4)))
    press(panel, step=(1, 0))
    press(panel, step=(0, 1))
    assert panel.values == {"valence": -0.75, "arousal": 0.45}
    panel.sliders["valence"].value = 0.5
    assert "valence 0.50, arousal 0.45" in panel.picture.alt
    press(panel, point=(0.95, 0.2))  # the face beside the plane
    assert panel.values == {"valence": 0.5, "arousal": 0.45}


def test_keys_stop_at_the_edge(shown, press):
    panel = widgets.affect_pad(1.0, 0.98)
    press(panel, step=(1, 0))
    press(panel, step=(0, -1))
    assert panel.values == {"valence": 1.0, "arousal": 1.0}


@pytest.mark.parametrize("make", [widgets.word_wheel, widgets.affect_pad])
def test_the_still_picture_stands_where_nobody_can_point(shown, make):
    panel = make()
    ((picture, alt),) = shown
    assert picture.size == (SIDE + 24 + CARD, SIDE) and alt == panel.picture.alt and len(alt) > 60


@pytest.mark.parametrize("make", [widgets.word_wheel, widgets.affect_pad])
def test_where_somebody_can_point_it_is_not_shown_twice(shown, appeared, make):
    panel = make()
    assert appeared == [panel.widget] and shown == []


def test_a_drawn_face_is_drawn_again_in_50_milliseconds_of_computing(shown, fastest):
    """With all that stands beside it, as PNG, ready for the page."""
    wheel, plane, face = widgets.word_wheel(), widgets.affect_pad(), widgets.expression_panel()
    choice, at, smile = iter(EMOTIONS), iter(np.linspace(-1, 1, 20)), iter(np.linspace(0.1, 1, 20))
    assert fastest(lambda: wheel.set(word=next(choice))) < 0.05
    assert fastest(lambda: plane.set(valence=float(next(at)))) < 0.05
    assert fastest(lambda: face.set(au12=float(next(smile)))) < 0.05
