"""Pairs are of one person and word, answers are counted rightly, and the page is the same test without a kernel."""

import base64
import io
import json
import re
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gen_affect_lib import cli
from gen_affect_lib.avatars import EMOTIONS
from gen_affect_lib.evaluation.judges.networks import IdentityJudge
from gen_affect_lib.widgets import blind
from gen_affect_lib.widgets.blind import BlindTest, blind_page, blind_pairs, blind_panel, share_right, verdict


class Grey:
    """A pipeline that generates grey pictures and notes what it is asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, reference, words, generator, consistency):
        self.asked.append((reference, words, generator.initial_seed(), consistency))
        return SimpleNamespace(images=[Image.new("RGB", (128, 128), (128, 128, 128))])


def some(seed, count=12):
    pipeline = Grey()
    return pipeline, list(islice(blind_pairs(pipeline, seed), count))


def test_a_pair_shows_the_person_of_the_reference_with_the_word_that_is_generated():
    pipeline, pairs = some(3)
    assert all(pair.drawn.size == pair.generated.size == (128, 128) for pair in pairs)
    assert [words for _, words, _, _ in pipeline.asked] == [[pair.word] for pair in pairs]
    assert all(pair.word in EMOTIONS for pair in pairs) and all(consistency == 0 for *_, consistency in pipeline.asked)
    judge = IdentityJudge.load()
    references, drawn = (
        judge.read(pictures).embedding
        for pictures in ([reference for reference, *_ in pipeline.asked], [pair.drawn for pair in pairs])
    )
    likeness = references @ drawn.T
    assert (likeness.argmax(axis=1) == np.arange(12)).all()


def test_each_start_has_other_pairs_and_a_seed_repeats_them():
    (_, one), (_, other) = some(None), some(None)
    assert [pair.word for pair in one] != [pair.word for pair in other]
    (first, one), (second, again) = some(5), some(5)
    assert [pair.word for pair in one] == [pair.word for pair in again]
    assert [seed for *_, seed, _ in first.asked] == [seed for *_, seed, _ in second.asked]
    assert len({seed for *_, seed, _ in first.asked}) == 12
    assert {pair.drawn_is_left for pair in one} == {True, False}


def test_the_drawn_picture_is_on_the_side_that_the_pair_says():
    for pair in some(0)[1]:
        left, right = pair.sides
        grey = np.asarray(right if pair.drawn_is_left else left)
        assert (grey == 128).all() and np.asarray(left).shape == (256, 256, 3)


@pytest.mark.parametrize(
    "right, asked, expected",
    [
        (10, 20, (0.5, 0.299, 0.701)),
        (20, 20, (1.0, 0.839, 1.0)),
        (0, 20, (0.0, 0.0, 0.161)),
        (34, 40, (0.85, 0.709, 0.929)),
    ],
)
def test_the_interval_is_wilsons(right, asked, expected):
    assert share_right(right, asked) == pytest.approx(expected, abs=1e-3)


def test_the_verdict_says_whether_it_is_more_than_chance():
    assert verdict(11, 20).startswith("11 of 20 right: 0.55, 95 % interval 0.34 to 0.74; chance is 0.50. Nothing")
    assert "more than chance" in verdict(19, 20) and "less than chance" in verdict(1, 20)


# --- the panel -------------------------------------------------------------------------------------------------------


def test_answers_by_pointer_by_key_and_by_button_count_alike(press):
    test = BlindTest(Grey(), count=6, seed=1)
    sides = [pair.drawn_is_left for pair in some(1, 6)[1]]
    for k, left in enumerate(sides):
        assert f"Pair {k + 1} of 6" in test.picture.alt and test.pair.word in test.caption.value
        wrong = k == 5
        if k % 3 == 0:
            press(test, point=(0.1 if left != wrong else 0.9, 0.5))
        elif k % 3 == 1:
            press(test, step=(-1 if left != wrong else 1, 0))
        else:
            (test.left if left != wrong else test.right).click()
    assert test.answers == [True] * 5 + [False]
    assert "5 of 6 right: 0.83" in test.caption.value and "5 of 6 right" in test.picture.alt
    assert test.left.disabled and test.right.disabled


def test_after_the_end_nothing_counts_and_a_new_start_has_other_pairs(press, drawn):
    test = BlindTest(Grey(), count=1, seed=1)
    press(test, step=(0, 1))
    assert test.answers == [], "up and down are no answers"
    first = drawn(test)
    press(test, step=(1, 0))
    press(test, step=(1, 0))
    assert len(test.answers) == 1
    test.again.click()
    assert test.answers == [] and test.pair is not None and not test.left.disabled
    assert not np.array_equal(drawn(test), first)


def test_pairs_are_generated_only_when_they_are_asked_about(press):
    pipeline = Grey()
    test = BlindTest(pipeline, count=20, seed=1)
    assert len(pipeline.asked) == 1
    test.left.click()
    assert len(pipeline.asked) == 2


def test_without_a_reader_a_still_picture_of_four_pairs_is_shown_with_the_answers(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(blind, "show", lambda picture, alt: shown.append((picture, alt)))
    assert blind_panel(Grey(), seed=1) is None
    (picture, alt), pairs = shown[0], some(1, 4)[1]
    assert len(shown) == 1 and picture.width > picture.height and "4 pairs" in alt
    said = "; ".join(f"{pair.word}: {'left' if pair.drawn_is_left else 'right'}" for pair in pairs)
    assert capsys.readouterr().out == f"Which one is drawn? {said}.\n"


def test_with_a_reader_the_test_is_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(blind, "someone_there", lambda: True)
    monkeypatch.setattr("IPython.display.display", shown.append)
    test = blind_panel(Grey(), count=3)
    assert shown == [test.widget] and test.count == 3


# --- the page --------------------------------------------------------------------------------------------------------


def rows_of(page):
    return json.loads(re.search(r"shuffled\((\[\[.*?\]\])\)", page, re.S).group(1))


def test_the_page_holds_the_pictures_of_every_pair_and_loads_nothing():
    _, pairs = some(2, 3)
    page = blind_page(pairs)
    rows = rows_of(page)
    assert [word for _, _, word in rows] == [pair.word for pair in pairs]
    for (drawn, generated, _), pair in zip(rows, pairs):
        for source, picture in ((drawn, pair.drawn), (generated, pair.generated)):
            data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(picture))
    assert "http" not in page and "QUESTION" not in page and 'alt="the left picture"' in page and "aria-live" in page


def test_the_command_writes_a_page_with_new_pairs_each_time(monkeypatch, tmp_path, capsys):
    from gen_affect_lib.pipeline import GenAffectPipeline

    pipeline = Grey()
    pipeline.to = lambda device: pipeline
    pipeline.set_progress_bar_config = lambda **_: None
    monkeypatch.setattr(GenAffectPipeline, "from_pretrained", lambda folder: pipeline)
    (run := tmp_path / "run").mkdir()
    pages = []
    for _ in range(2):
        out = tmp_path / "new" / "page.html"
        assert cli.main(["blind", "--checkpoint", str(run), "--pairs", "5", "--out", str(out)]) == 0
        pages.append(rows_of(out.read_text(encoding="utf-8")))
        assert capsys.readouterr().out == f"open {out} in a browser\n"
    assert [len(rows) for rows in pages] == [5, 5] and pages[0] != pages[1]
    assert cli.main(["blind", "--checkpoint", str(run), "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
