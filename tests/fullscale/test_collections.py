"""Converters of collections, on made-up files with their names."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from gen_affect_lib.avatars import Expression
from gen_affect_lib.avatars.folder import FaceFolder
from gen_affect_lib.errors import UserError
from gen_affect_lib.fullscale.collections import COLLECTIONS, convert, frames, nearest_frame, read_order

UNITS = ["au43", "au43", "au5", "au5", "au4", "au4", "au12", "au12", *["-"] * 16]  # another order than the collection's


def video(path, shades=range(0, 240, 10), size=64):
    """A video whose n-th frame is one grey, n in `shades`; as AVI inside, whatever its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    there = path.with_suffix(".avi")
    writer = cv2.VideoWriter(str(there), cv2.VideoWriter_fourcc(*"MJPG"), 25, (size, size))
    for shade in shades:
        writer.write(np.full((size, size, 3), shade, np.uint8))
    writer.release()
    there.rename(path)


def shade(picture) -> float:
    return float(np.asarray(picture).mean())


def read(folder):
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def test_ravdess(tmp_path):
    for name in ("02-01-03-02-01-01-06", "02-01-05-01-01-01-06", "01-01-03-02-01-01-06", "02-02-01-01-01-01-12"):
        video(tmp_path / "source" / f"Actor_{name[-2:]}" / f"{name}.mp4")
    (tmp_path / "source" / "Actor_06" / "03-01-03-02-01-01-06.wav").write_bytes(b"sound")
    (tmp_path / "source" / "notes.mp4").write_bytes(b"no clip")
    assert convert("ravdess", tmp_path / "source", tmp_path / "out") == 3  # 01 is 02 with sound
    rows = {row["file_name"]: row for row in read(tmp_path / "out")}
    assert rows["actor06/02-01-03-02-01-01-06.png"]["identity"] == "ravdess 06"
    folder = FaceFolder(tmp_path / "out", 64)
    vectors = {entry.path.stem: vector for entry, vector in zip(folder.entries, folder.vectors)}
    assert np.allclose(vectors["02-01-03-02-01-01-06"], Expression.named("happiness").to_vector(), atol=1e-4)
    assert np.allclose(vectors["02-01-05-01-01-01-06"], 0.7 * Expression.named("anger").to_vector(), atol=1e-4)
    assert not vectors["02-02-01-01-01-01-12"].any()
    assert folder.picture(0).shape == (64, 64, 3)


def test_crema_d(tmp_path):
    for name in ("1001_DFA_ANG_XX", "1001_IEO_HAP_LO", "1091_IEO_SAD_HI", "1091_IEO_QQQ_HI"):
        video(tmp_path / "source" / "VideoFlash" / f"{name}.flv")
    assert convert("crema-d", tmp_path / "source", tmp_path / "out") == 3
    rows = {row["file_name"]: row for row in read(tmp_path / "out")}
    assert {row["identity"] for row in rows.values()} == {"crema-d 1001", "crema-d 1091"}
    half = Expression.named("happiness")
    assert rows["actor1001/1001_IEO_HAP_LO.png"]["expression"]["au12"] == pytest.approx(0.5 * half.au12)


def feafa_frame(path, numbers, suffix=".auw", cut=""):
    """A grey frame, and its numbers in a text file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 80), (9, 9, 9)).save(path.with_name(path.stem + cut + ".jpg"))
    path.with_suffix(suffix).write_text(" ".join(f"{number:.2f}" for number in numbers))


def test_feafa_is_read_as_it_is_laid_out(tmp_path):
    numbers = dict.fromkeys(range(24), 0.0)
    sequence = tmp_path / "source" / "FEAFA" / "PV057.output"
    feafa_frame(sequence / "00000001.jpg", (numbers | {0: 0.8, 1: 0.8}).values())
    feafa_frame(sequence / "00000002.jpg", (numbers | {0: 0.81, 1: 0.79}).values())  # hardly another expression
    feafa_frame(sequence / "00000994.jpg", (numbers | {6: 0.4, 7: 0.6, 8: 0.7, 23: 0.3, 22: 1.0}).values(), cut="_crop")
    feafa_frame(tmp_path / "source" / "DISFA" / "SN001.output" / "00000003.jpg", (numbers | {11: 0.5}).values())
    assert convert("feafa", tmp_path / "source", tmp_path / "out") == 3
    rows = {row["file_name"]: row for row in read(tmp_path / "out")}
    assert rows["FEAFA/PV057.output/00000001.png"]["expression"] == {"au43": 0.8}
    crop = rows["FEAFA/PV057.output/00000994_crop.png"]
    assert crop["identity"] == "feafa PV057"
    assert crop["expression"] == pytest.approx({"au1": 0.5, "au2": 0.5, "au9": 0.3, "au25": 0.7, "au26": 0.7})
    other = rows["DISFA/SN001.output/00000003.png"]
    assert other["identity"] == "feafa SN001" and other["expression"] == {"au12": 0.25}


def test_feafa_with_another_order(tmp_path):
    source = tmp_path / "source"
    feafa_frame(source / "p01" / "s1" / "0001.jpg", [0.0] * 24)
    feafa_frame(source / "p01" / "s1" / "0003.jpg", [0, 0, 0, 0, 0, 0, 0.4, 0.8, *[0.5] * 16], ".txt")
    feafa_frame(source / "p02" / "s1" / "0001.jpg", [1, 0] + [0] * 22, ".csv")
    (tmp_path / "units.txt").write_text("\n".join(UNITS))
    order = read_order(tmp_path / "units.txt")
    assert convert("feafa", source, tmp_path / "out", order=order) == 3
    rows = {row["file_name"]: row for row in read(tmp_path / "out")}
    assert rows["p01/s1/0003.png"]["expression"] == {"au12": pytest.approx(0.6)}
    assert rows["p02/s1/0001.png"] == {
        "file_name": "p02/s1/0001.png", "identity": "feafa p02", "expression": {"au43": 0.5}
    }  # fmt: skip
    (source / "p02" / "s1" / "0001.csv").write_text("1, 2")
    with pytest.raises(UserError, match="0001.csv holds 2 numbers: give 24 from 0 to 1"):
        convert("feafa", source, tmp_path / "other", order=order)
    (tmp_path / "units.txt").write_text("au12 smile")
    with pytest.raises(UserError, match="names smile: give units"):
        read_order(tmp_path / "units.txt")
    (tmp_path / "units.txt").write_text("au12 au1+au2")
    with pytest.raises(UserError, match="has 2 lines: give 24"):
        read_order(tmp_path / "units.txt")


def test_the_frame_is_the_one_nearest_to_the_label_or_the_middle(tmp_path):
    video(tmp_path / "a.mp4")
    found = frames(tmp_path / "a.mp4")
    assert [round(shade(one), -1) for one in found] == sorted(round(shade(one), -1) for one in found)
    assert 50 < shade(found[0]) < shade(found[-1]) < 190
    joy = Expression.named("joy").to_vector()

    def reader(picture):  # a face that smiles more, the brighter it is
        return SimpleNamespace(expression=Expression.from_vector(joy * min(1, shade(picture) / 100)))

    assert shade(nearest_frame(found, joy, reader)) >= 99
    assert nearest_frame(found, 0 * joy, reader) is found[0]
    assert nearest_frame(found, joy, None) is found[len(found) // 2]


def test_a_conversion_goes_on_and_bad_sources_are_refused(tmp_path):
    video(tmp_path / "source" / "1001_DFA_ANG_XX.flv")
    convert("crema-d", tmp_path / "source", tmp_path / "out")
    (tmp_path / "source" / "1001_DFA_ANG_XX.flv").write_bytes(b"broken")
    assert convert("crema-d", tmp_path / "source", tmp_path / "out") == 1  # its picture is there already
    with pytest.raises(UserError, match="is no video that can be read"):
        convert("crema-d", tmp_path / "source", tmp_path / "again")
    with pytest.raises(UserError, match="no files named as in RAVDESS"):
        convert("ravdess", tmp_path / "source", tmp_path / "again")
    with pytest.raises(UserError, match="no converter for 'mead': give one of ravdess"):
        convert("mead", tmp_path / "source", tmp_path / "again")
    with pytest.raises(UserError, match="is no folder: give your copy of CREMA-D"):
        convert("crema-d", tmp_path / "nothing", tmp_path / "again")


def test_terms_of_use_are_known():
    assert all(collection.licence.where.startswith("https://") for collection in COLLECTIONS.values())
    assert "NC" in COLLECTIONS["ravdess"].licence.says and "Open Database" in COLLECTIONS["crema-d"].licence.says
