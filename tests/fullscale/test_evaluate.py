"""Figures of an adapter: identity and expression of what is drawn, against people's own photographs."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gen_affect_lib.avatars import Expression
from gen_affect_lib.avatars.folder import Entry
from gen_affect_lib.errors import UserError
from gen_affect_lib.fullscale import evaluate

PEOPLE = {name: [Path(f"{name}{n}.png") for n in range(2)] for name in "abc"}
WORDS = ("joy", "anger")


class Faces:
    """A face pack for which a person is a direction: of a path its first letter, of a picture its colour."""

    def read(self, picture):
        who = "abc".find(picture.name[0]) if isinstance(picture, Path) else int(np.asarray(picture)[0, 0, 0])
        if who > 2:
            return []
        return [SimpleNamespace(box=np.array([0, 0, 9, 9]), tokens=np.eye(3)[who : who + 1])]


def picture(who: int, joy: float = 0.0) -> Image.Image:
    return Image.new("RGB", (8, 8), (who, round(100 * joy), 0))


def reader(source):
    """Of a picture, joy as strong as it is green."""
    strength = np.asarray(source)[0, 0, 1] / 100
    return SimpleNamespace(expression=Expression.from_vector(strength * Expression.named("joy").to_vector()))


def right(reference, words):
    return [picture("abc".index(reference.name[0]), word == "joy") for word in words]


def result(ways, reader=None, independent=True):
    return evaluate.evaluate(ways, evaluate.Judge(Faces(), reader, independent), PEOPLE, WORDS)


def test_a_perfect_adapter_is_found_and_a_base_is_at_chance():
    rows = result({"adapter": right, "base": lambda reference, words: [picture(0)] * 2})["rows"]
    assert rows[0]["found"] == 1 and rows[0]["cosine"] == 1 and rows[0]["cosine_to_others"] == 0
    assert rows[1]["found"] == pytest.approx(1 / 3, abs=1e-3) and rows[1]["cosine"] == pytest.approx(1 / 3, abs=1e-3)
    assert all(row["faces"] == 1 and row["of"] == 3 and "unit_error" not in row for row in rows)


def test_pictures_without_a_face_are_counted_as_not_found():
    row = result({"adapter": lambda reference, words: [right(reference, words)[0], picture(9)]})["rows"][0]
    assert row["faces"] == 0.5 and row["found"] == 0.5 and row["cosine"] == 1


def test_expressions_are_scored_where_they_can_be_read():
    rows = result({"right": right, "none": lambda r, words: [picture("abc".index(r.name[0]))] * 2}, reader)["rows"]
    asked = [np.abs(Expression.named(word).to_vector()[:17]).mean() for word in WORDS]
    assert rows[0]["unit_error"] == pytest.approx((0 + asked[1]) / 2, abs=2e-3)
    assert rows[1]["unit_error"] == pytest.approx(sum(asked) / 2, abs=2e-3)


def test_a_judge_that_also_conditions_is_said():
    assert "optimistic" in evaluate.say(result({"adapter": right}, independent=False))
    assert "optimistic" not in evaluate.say(result({"adapter": right}))


def test_people_need_two_photographs_that_show_a_face(monkeypatch):
    entries = [Entry(1, Path("a0.png"), "a", None, None), Entry(2, Path("b0.png"), "b", None, None)]
    with pytest.raises(UserError, match="no person has two photographs"):
        evaluate.people_of(entries)
    entries.append(Entry(3, Path("b1.png"), "b", None, None))
    assert evaluate.people_of(entries) == {"b": [Path("b0.png"), Path("b1.png")]}
    monkeypatch.setattr(Faces, "read", lambda self, picture: [])
    with pytest.raises(UserError, match="no face found in a1.png"):
        result({"adapter": right})
