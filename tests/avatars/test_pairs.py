"""The cache of pairs: rendered once, resumed, checked, rebuilt."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity, pairs, splits
from gen_affect_lib.avatars.drawing import DRAWING
from gen_affect_lib.avatars.pairs import PairCache, PairsConfig
from gen_affect_lib.errors import UserError

CONFIG = PairsConfig("validation", identities=20, images=3, size=16)


@pytest.fixture
def drawn(monkeypatch):
    """Counts what is rendered, chunk by chunk."""
    starts = []
    render = pairs._render_chunk

    def counted(folder, config, start):
        starts.append(start)
        return render(folder, config, start)

    monkeypatch.setattr(pairs, "_render_chunk", counted)
    return starts


def test_the_cache_holds_what_the_factors_draw(tmp_path):
    cache = PairCache.open(CONFIG, tmp_path / "c")
    seed, k = int(cache.seeds[17]), 2
    picture = seed * 1000 + k
    avatar = Avatar(Identity.sample(seed), Expression.sample(picture), Appearance.sample(picture))
    assert (cache.images[17, k] == avatar.render(16)).all()
    np.testing.assert_array_equal(cache.vectors[17, k], avatar.expression.to_vector())
    np.testing.assert_array_equal(cache.identities[17], avatar.identity.to_vector())
    assert cache.images.filename  # memory-mapped


def test_a_second_opening_renders_nothing(tmp_path, drawn):
    PairCache.open(CONFIG, tmp_path / "c")
    assert drawn == [0, 16]
    PairCache.open(CONFIG, tmp_path / "c")
    assert drawn == [0, 16]


def test_an_interrupted_rendering_goes_on_where_it_stopped(tmp_path, drawn, monkeypatch):
    whole = PairCache.open(CONFIG, tmp_path / "whole")
    expected = np.array(whole.images)
    counted = pairs._render_chunk

    def breaks(folder, config, start):
        if start == 16:
            raise KeyboardInterrupt
        return counted(folder, config, start)

    monkeypatch.setattr(pairs, "_render_chunk", breaks)
    with pytest.raises(KeyboardInterrupt):
        PairCache.open(CONFIG, tmp_path / "c")
    monkeypatch.setattr(pairs, "_render_chunk", counted)
    drawn.clear()
    assert (PairCache.open(CONFIG, tmp_path / "c").images == expected).all()
    assert drawn == [16]


def test_a_damaged_chunk_is_noticed_and_rendered_again(tmp_path, drawn):
    expected = np.array(PairCache.open(CONFIG, tmp_path / "c").images)
    damaged = np.load(tmp_path / "c" / "images.npy", mmap_mode="r+")
    damaged[18, 1, 3, 3] ^= 1
    damaged.flush()
    drawn.clear()
    assert (PairCache.open(CONFIG, tmp_path / "c").images == expected).all()
    assert drawn == [16]


@pytest.mark.parametrize("name", ["images.npy", "expressions.npy", "manifest.json"])
@pytest.mark.parametrize(
    "content", [b"", b"half", b"[1, 2]", b'{"key": 1}', b"\x93NUMPY\x01\x00v\x00", "half", "zeros"]
)
def test_a_damaged_file_of_a_cache_is_made_anew(tmp_path, name, content):
    expected = PairCache.open(CONFIG, tmp_path / "c")
    images, vectors = np.array(expected.images), expected.vectors
    whole = (tmp_path / "c" / name).read_bytes()
    content = {"half": whole[: len(whole) // 2], "zeros": bytes(len(whole))}.get(content, content)
    (tmp_path / "c" / name).unlink()  # the array above still has the old file
    (tmp_path / "c" / name).write_bytes(content)
    again = PairCache.open(CONFIG, tmp_path / "c")
    assert np.array_equal(again.images, images) and np.array_equal(again.vectors, vectors)


def test_a_manifest_without_its_chunks_and_a_file_in_place_of_a_cache_are_made_anew(tmp_path):
    images = np.array(PairCache.open(CONFIG, tmp_path / "c").images)
    (tmp_path / "c" / "manifest.json").write_text(json.dumps({"key": CONFIG.key, "chunks": [1, 2]}))
    assert np.array_equal(PairCache.open(CONFIG, tmp_path / "c").images, images)
    (tmp_path / "file").write_text("")
    assert np.array_equal(PairCache.open(CONFIG, tmp_path / "file").images, images)


@pytest.mark.parametrize("change", ["version", "key", "config", "manifest"])
def test_a_cache_with_another_key_is_rendered_again(tmp_path, drawn, monkeypatch, change):
    PairCache.open(CONFIG, tmp_path / "c")
    manifest, config = tmp_path / "c" / "manifest.json", CONFIG
    if change == "version":
        monkeypatch.setattr(DRAWING, "version", DRAWING.version + 1)
    elif change == "key":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"key": "another"}))
    elif change == "config":
        config = PairsConfig("validation", identities=20, images=4, size=16)
    else:
        manifest.write_text("{")
    drawn.clear()
    PairCache.open(config, tmp_path / "c")
    assert drawn == [0, 16]


def test_a_pair_is_one_person_in_two_pictures(tmp_path):
    cache = PairCache.open(CONFIG, tmp_path / "c")
    reference, target = cache.pick(np.random.default_rng(0), 500)
    assert (reference // 3 == target // 3).all() and (reference != target).all()
    assert set(reference // 3) == set(range(20))


def test_the_splits_share_no_identity_with_each_other_and_the_judges():
    ranges = [range(first, first + splits.PEOPLE[split]) for split, first in splits.FIRST_SEED.items()]
    ranges = sorted([*ranges, range(splits.JUDGES_SEED, splits.VALIDATION_SEED)], key=lambda seeds: seeds[0])
    assert all(a[-1] < b[0] for a, b in zip(ranges, ranges[1:]))


def test_no_training_set_is_so_large_that_it_has_people_of_the_judges():
    assert PairsConfig("train", identities=splits.JUDGES_SEED).identities == splits.JUDGES_SEED
    with pytest.raises(UserError, match="500,001 identities: the split train has 1 to 500,000"):
        PairsConfig("train", identities=splits.JUDGES_SEED + 1)


def test_several_processes_draw_the_same(tmp_path):
    config = PairsConfig("train", identities=64, images=40, size=16)
    one = np.array(PairCache.open(config, tmp_path / "one", workers=1).images)
    assert (PairCache.open(config, tmp_path / "two", workers=2).images == one).all()


@pytest.mark.parametrize(
    "arguments, says",
    [(("test",), "split 'test' does not exist"), (("train", 0), "0 identities"), (("train", 5, 1), "make no pair")],
)
def test_an_impossible_request_is_refused(arguments, says):
    with pytest.raises(UserError, match=says):
        PairsConfig(*arguments)


def test_too_small_a_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="free: choose a smaller profile"):
        PairCache.open(CONFIG, tmp_path / "c")
    assert not (tmp_path / "c").exists()
