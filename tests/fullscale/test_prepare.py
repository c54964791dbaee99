"""Photographs prepared once: what is kept, resuming, pairs, and the errors of bad pictures."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from gen_affect_lib.errors import UserError
from gen_affect_lib.fullscale import prepare as preparation
from gen_affect_lib.fullscale.prepare import FacePairs, Prepared, Settings, mark_of
from gen_affect_lib.tensors import to_tensor
from tests.fullscale.tiny import WORDS, TinyBase, prepared
from tests.training.tiny_training import in_a_process


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    prepared(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def lines(folder):
    return [json.loads(line) for line in (folder / "faces" / "metadata.jsonl").read_text().splitlines()]


def rewrite(folder, records):
    (folder / "faces" / "metadata.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_what_training_needs_is_kept(folder):
    kept = Prepared(folder / "prepared")
    assert len(kept) == 9 and kept.latent_shape == (4, 8, 8)
    assert kept.identity(0).shape == (1, 512) and np.linalg.norm(kept.identity(0)) == pytest.approx(512**0.5, rel=1e-3)
    assert kept.expressions.shape == (9, 48)
    assert kept.landmarks().shape == (9, 5, 2) and kept.landmarks(3).shape == (3, 5, 2)
    tokens, pooled = kept.text(kept.rows[0].text)
    assert tokens.shape == (24, 20) and pooled.shape == (12,)
    assert np.allclose(tokens, TinyBase().encode_prompts(["a photograph of a person"]).tokens[0], atol=2e-3)
    assert kept.index["no_text"] != kept.rows[0].text


def test_the_latents_are_those_of_the_framed_picture(folder):
    """The face of a drawn person fills so much of the picture that the frame is the whole of it."""
    kept = Prepared(folder / "prepared")
    for number in (0, 5):
        picture = Image.open(folder / "faces" / kept.rows[number].file_name)
        framed = to_tensor(np.asarray(picture.resize((64, 64), Image.Resampling.LANCZOS)))
        assert np.allclose(kept.latents(number), TinyBase().encode(framed[None])[0], atol=2e-3)


def test_a_second_preparation_reads_and_encodes_nothing(folder):
    base = TinyBase()
    before = (folder / "prepared" / "prepared.json").read_text()
    prepared(folder, base=base)
    assert base.encoded == 0 and base.prompts == []
    assert (folder / "prepared" / "prepared.json").read_text() == before


def test_a_changed_and_a_damaged_picture_are_prepared_again(folder):
    records, base = lines(folder), TinyBase()
    mark = Prepared(folder / "prepared").mark
    shutil.copy(folder / "faces" / records[1]["file_name"], folder / "faces" / records[2]["file_name"])
    shutil.copy(folder / "faces" / records[4]["file_name"], folder / "faces" / "other.png")
    Image.open(folder / "faces" / records[5]["file_name"]).rotate(1).save(folder / "faces" / records[5]["file_name"])
    some = folder / "prepared" / "pictures" / f"{Prepared(folder / 'prepared').rows[0].picture}.npz"
    some.write_bytes(some.read_bytes()[:100])
    with pytest.raises(UserError, match="missing or damaged: run .*prepare` again"):
        Prepared(folder / "prepared").latents(0)
    assert prepared(folder, base=base).mark != mark
    assert base.encoded == 2  # the rotated and the damaged one; a copy of a known picture is known


def test_a_killed_preparation_goes_on_where_it_was(made, tmp_path):
    folder, base = tmp_path, TinyBase()
    shutil.copytree(made / "faces", folder / "faces")

    def killed():
        saved, save = [], preparation._save

        def dies(path, **tensors):
            if len(saved) == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            saved.append(path)
            save(path, **tensors)

        preparation._save = dies
        torch.set_num_threads(1)
        prepared(folder, batch_size=2)

    assert in_a_process(killed) == signal.SIGKILL
    with pytest.raises(UserError, match="holds no prepared photographs: run"):
        Prepared(folder / "prepared")
    kept = prepared(folder, base=base)
    assert base.encoded == 9 - 3 and base.prompts == []  # two texts and three pictures were there
    assert kept.mark == Prepared(made / "prepared").mark


def test_each_text_is_encoded_once(folder):
    records, base = lines(folder), TinyBase()
    for record in records[:4]:
        record["text"] = "ada at a window"
    rewrite(folder, records)
    kept = prepared(folder, base=base)
    assert base.prompts == ["ada at a window"] and base.encoded == 0
    assert len({row.text for row in kept.rows}) == 2


def test_a_picture_without_a_face_is_named(folder):
    records = lines(folder)
    Image.new("RGB", (96, 96), (30, 90, 160)).save(folder / "faces" / records[3]["file_name"])
    with pytest.raises(UserError, match=f"metadata.jsonl line 4: no face found in {records[3]['file_name']}") as caught:
        prepared(folder)
    assert "\n" not in str(caught.value)
    said = []
    assert len(prepared(folder, skip=said.append)) == 8
    assert len(said) == 1 and "line 4: no face found" in said[0]


def test_a_face_that_is_too_small_is_named(folder):
    records = lines(folder)
    small = Image.open(folder / "faces" / records[0]["file_name"]).resize((48, 48))
    small.save(folder / "faces" / records[0]["file_name"])
    with pytest.raises(UserError, match="line 1: the portrait in it is .* smaller --size than 64 × 64"):
        prepared(folder)


def test_references_show_the_person_with_another_expression(folder):
    kept = Prepared(folder / "prepared")
    pairs, rng = FacePairs(kept), np.random.default_rng(0)
    for target in range(9):
        for _ in range(5):
            reference = pairs._reference(rng, target)
            assert kept.rows[reference].identity == kept.rows[target].identity and reference != target
    batch, again = pairs.batch(3, 4), pairs.batch(3, 4)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "identity": (4, 1, 512),
        "expression": (4, 48),
        "target": (4, 4, 8, 8),
        "text": (4, 24, 20),
        "pooled": (4, 12),
    }
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert not torch.equal(batch["target"], pairs.batch(4, 4)["target"])


def test_a_person_with_one_picture_is_its_own_reference_and_counted(folder):
    records = lines(folder)
    rewrite(folder, records[: 2 * len(WORDS) + 1])
    pairs = FacePairs(prepared(folder))
    assert pairs.alone == 1
    assert pairs._reference(np.random.default_rng(0), 6) == 6


def test_every_fifth_person_is_held_out(folder):
    records = lines(folder)
    for number, record in enumerate(records):
        record["identity"] = f"person{number % 5}"
    rewrite(folder, records)
    pairs = FacePairs(prepared(folder))
    held, trained = ({pairs.prepared.rows[n].identity for n in some} for some in (pairs.held_out, pairs.trained))
    assert held == {"person4"} and trained == {f"person{n}" for n in range(4)}


def test_the_text_is_dropped_as_often_as_told(folder):
    kept = Prepared(folder / "prepared")
    empty = torch.from_numpy(kept.text(kept.index["no_text"])[0])
    shares = [
        np.mean(
            [torch.equal(text, empty) for step in range(40) for text in FacePairs(kept, 0, p).batch(step, 8)["text"]]
        )
        for p in (0.0, 0.25, 1.0)
    ]
    assert shares[0] == 0 and shares[2] == 1 and shares[1] == pytest.approx(0.25, abs=0.08)


def test_the_mark_of_a_base_changes_with_its_weights(tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    weights = tmp_path / "vae" / "model.safetensors"
    marks = set()
    for content in (b"a" * 3_000_000, b"a" * 3_000_001, b"b" + b"a" * 2_999_999, b"a" * 2_999_999 + b"b"):
        weights.write_bytes(content)
        marks.add(mark_of(tmp_path, ["vae"]))
    assert len(marks) == 4


def test_sizes_are_multiples_of_16():
    with pytest.raises(UserError, match="500 × 512 pixels: give multiples of 16"):
        Settings((500, 512))
