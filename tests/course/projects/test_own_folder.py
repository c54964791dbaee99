"""The project of one's own folder: answers of known quality, and folders with bad files."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gen_affect_lib.avatars import Avatar, Expression, Identity
from gen_affect_lib.avatars.splits import REPORT_SEED
from gen_affect_lib.course.projects import own_folder
from gen_affect_lib.course.projects.own_folder import (
    COLUMNS,
    OwnFolder,
    changed,
    correlations,
    drawn,
    example_folder,
    known,
    matched,
    photograph,
    ranks_below,
    read_folder,
    read_sources,
    score,
    shipped,
)
from gen_affect_lib.course.projects.report import AUTOMATIC
from gen_affect_lib.errors import UserError
from gen_affect_lib.photo.heads import Person
from gen_affect_lib.photo.landmarker import INSTALL, is_installed

needs_landmarker = pytest.mark.skipif(not is_installed(), reason=INSTALL)


STYLES = {"none": "bald", "shaved": "buzz", "short": "short", "full": "curly", "long": "long"}


def oracle(seen):
    """A good answer: what is known of a rendered head, looked up; the kit's avatar of every other face."""
    every = own_folder.heads(REPORT_SEED, own_folder.PEOPLE["smoke"])
    for person in (head.person for head in every if any(one is seen for one in head.seen)):
        thickness, _, arch = person.brow
        return changed(
            seen,
            skin=person.tone,
            brow_thickness=0.5 + 0.5 * thickness,
            brow_arch=0.5 + 0.5 * arch,
            hair_style=STYLES[person.hair_style],
            facial_hair="beard" if person.beard else "none",
        )
    return shipped(seen)


def nobody(seen):
    return Avatar(Identity(), Expression(au26=1.0))


@pytest.fixture(scope="module")
def folder():
    return example_folder("smoke")


@pytest.fixture(scope="module")
def reports(folder):
    read = read_folder(folder)
    return {answer.__name__: score(OwnFolder(answer, read), "smoke") for answer in (oracle, shipped, nobody)}


@needs_landmarker
def test_a_better_likeness_gets_many_points_the_kits_few_and_nobody_fewer(reports):
    good, same, none = (reports[name].points for name in ("oracle", "shipped", "nobody"))
    assert all(report.of == AUTOMATIC for report in reports.values())
    assert good > 35 and 15 < same < 25 and none < 13


@needs_landmarker
def test_the_numbers_behind_the_points(reports):
    good, none = (reports[name].figures["numbers"] for name in ("oracle", "nobody"))
    assert good["right factors (r), difference"]["value"] > 0.2
    assert none["matched back"]["value"] == pytest.approx(0.5) and none["right factors (r)"]["value"] == 0
    assert none["error of the units, difference"]["value"] < -0.02


@needs_landmarker
def test_a_report_names_the_sources_and_shows_no_photograph_of_the_folder(reports):
    folder = reports["shipped"].figures["folder"]
    assert len(folder["sources"]) == len(folder["photographs"]) == 6 and not folder["problems"]
    assert [alt.split(" of ")[0] for _, alt in reports["shipped"].pictures][1] == "The avatars"


@needs_landmarker
def test_a_folder_with_bad_files_gives_one_line_for_each(tmp_path):
    (tmp_path / "ada").mkdir()
    Image.fromarray(photograph(7, 0)[0]).save(tmp_path / "ada" / "good.png")
    Image.fromarray(np.full((200, 200, 3), 128, np.uint8)).save(tmp_path / "grey.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "half.png").write_bytes((tmp_path / "ada" / "good.png").read_bytes()[:4000])
    (tmp_path / ".hidden").write_text("")
    Image.fromarray(Avatar().render(256)).save(tmp_path / "drawn.png")
    (tmp_path / "sources.csv").write_text(
        "file,source,licence,consent\nada/good.png,own,CC0,herself\ngone.png,own,CC0,yes\ngrey.png,own,,yes\n"
    )
    read = read_folder(tmp_path)
    assert [(photo.person, photo.name) for photo in read.photos] == [("ada", "ada/good.png")]
    assert set(read.sources) == {"ada/good.png"}
    for start in ("grey.png", "notes.txt", "half.png", "drawn.png"):
        (line,) = [problem for problem in read.problems if start in problem and "sources" not in problem]
        assert "\n" not in line and str(tmp_path) not in line
    assert [line for line in read.problems if "sources" in line] == [
        "sources.csv, line 3: there is no file gone.png",
        "sources.csv, line 4: licence is empty",
    ]
    assert len(read.problems) == 6


@needs_landmarker
def test_a_folder_that_cannot_be_read_costs_its_points_only(tmp_path):
    criteria, figures, pictures = own_folder._of_folder(OwnFolder(shipped, tmp_path / "nowhere"))
    assert sum(one.points for one in criteria) == 0 and sum(one.of for one in criteria) == 14
    assert "is no folder" in figures["problem"] and not pictures
    (tmp_path / "words.txt").write_text("x")
    with pytest.raises(UserError, match="no photograph that can be read; the first problem: words.txt"):
        read_folder(tmp_path)


@needs_landmarker
def test_a_likeness_that_fails_on_one_photograph_loses_that_one(folder):
    calls = []

    def picky(seen):
        calls.append(seen)
        if len(calls) == 2:
            raise RuntimeError("too light")
        return shipped(seen)

    criteria, figures, _ = own_folder._of_folder(OwnFolder(picky, folder))
    assert figures["problems"] == ["your likeness fails on head_0/1.png: RuntimeError: too light"]
    assert criteria[0].points < criteria[0].of


@needs_landmarker
def test_photographs_of_a_person_differ_in_light_and_expression():
    (one, neutral), (other, moved) = photograph(9, 0), photograph(9, 1)
    assert neutral == Expression.neutral() != moved and (one != other).mean() > 0.5
    np.testing.assert_array_equal(photograph(9, 1)[0], other)


def test_ranks_are_1_for_the_same_person_and_half_by_chance():
    rng = np.random.default_rng(0)
    people = rng.normal(size=(30, 200))
    people /= np.linalg.norm(people, axis=1, keepdims=True)
    assert ranks_below(people, people).min() == 1
    np.testing.assert_allclose(ranks_below(np.ones((30, 200)), np.ones((30, 200))), 0.5)
    assert abs(ranks_below(people, rng.permutation(people)).mean() - 0.5) < 0.2
    assert ranks_below(people, people[[1, 0, *range(2, 30)]])[:2].max() < 1


def test_matched_needs_two_photographs_of_one_and_another_person(monkeypatch):
    looks = {0.1: [1.0, 0.0], 0.2: [0.9, 0.1], 0.8: [0.0, 1.0]}
    monkeypatch.setattr(own_folder, "embedding", lambda identity: np.array(looks[identity.skin]))
    avatars = [Avatar(Identity(skin=skin)) for skin in (0.1, 0.2, 0.8)]
    photos = [own_folder.Photo(person, f"{person}.png", None) for person in ("ada", "ada", "bo")]
    assert matched(photos, avatars) == {"ada": 1.0}
    assert matched([photos[0], photos[2], photos[0]], avatars) == {"ada": 0.0}
    assert matched(photos[:2], avatars[:2]) == {}


def test_a_factor_that_never_changes_has_r_0():
    true = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    np.testing.assert_allclose(correlations(np.column_stack([[2, 4, 6], [5, 5, 5]]), true), [1, 0])


def test_known_numbers_have_counterparts_that_move_with_them():
    assert list(known(Person.sample(1))) == list(drawn(Identity()))
    dark, light = Identity(skin=0.9, hair_color="black"), Identity(skin=0.1, hair_color="blond")
    assert drawn(dark)["skin"] > drawn(light)["skin"]
    assert drawn(dark)["lightness of the hair"] < drawn(light)["lightness of the hair"]
    lengths = [
        drawn(replace(dark, hair_style=style))["length of the hair"] for style in ("bald", "buzz", "short", "long")
    ]
    assert lengths == sorted(set(lengths))


@pytest.mark.parametrize(
    "content, says",
    [("", "no column"), ("file,source\na.png,own\n", "has no column licence, consent"), (None, "is missing")],
)
def test_sources_that_cannot_be_used_give_one_line(tmp_path, content, says):
    path = tmp_path / "sources.csv"
    if content is not None:
        path.write_text(content)
    sources, problems = read_sources(path, ["a.png"])
    assert not sources and (content == "" or says in problems[0])


def test_the_examples_sources_are_complete(folder):
    with (folder / "sources.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and all(row[column] for row in rows for column in COLUMNS)


def test_wrong_answers_give_one_line():
    with pytest.raises(UserError, match="give an OwnFolder"):
        score(shipped, "smoke")
    with pytest.raises(UserError, match="smoke, laptop or gpu"):
        score(OwnFolder(shipped), "smoke", people="all")
    with pytest.raises(UserError, match="return an Avatar"):
        own_folder.avatar_of(lambda seen: None, None, "head 1")
    with pytest.raises(UserError, match="fails on head 1: KeyError"):
        own_folder.avatar_of(lambda seen: {}["x"], None, "head 1")
