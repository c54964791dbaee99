"""A kept result is computed again if something that it depends on changes, and only then."""

import json
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

from gen_affect_lib.avatars.pairs import PairCache
from gen_affect_lib.evaluation import evaluate as evaluation
from gen_affect_lib.evaluation.judges.data import Drawings
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.evaluation.studies.sharing import SHARED_SETS
from gen_affect_lib.evaluation.studies.variants import VARIANT_SETS
from gen_affect_lib.fullscale.prepare import PREPARED
from gen_affect_lib.keys import Producer, digest, fingerprint, key
from gen_affect_lib.paths import ROOT, SHIPPED
from gen_affect_lib.training import assembly
from gen_affect_lib.training.detector import Scenes
from gen_affect_lib.training.identity_data import IdentityPictures
from gen_affect_lib.training.photo import RENDERED
from tests.producers import CONFIG, RECORDED, SAMPLES, declared, versions

PRODUCERS = declared()
RECORDS = json.loads(RECORDED.read_text())
DRAWN = {"pairs", "latents", "identities", "scenes", "identity pictures", "judges' drawings"}
GENERATED = {"evaluated sets", "shared sets", "variants' sets"}
# Producer → the results that become outdated when its version is raised.
STALE = {
    "emotion table": DRAWN | GENERATED | {"heads"},
    "factors": DRAWN | GENERATED | {"heads"},
    "drawing": DRAWN | GENERATED,
    "landmarks": {"scenes", "identity pictures"},
    "scenes": {"scenes"},
    "pairs": {"pairs", "latents", "identities"},
    "aligned views": {"identity pictures", "identities", "photographs"} | GENERATED,
    "identity pictures": {"identity pictures"},
    "drawings for judges": {"judges' drawings"},
    "rendered heads": {"heads"},
    "expression meaning": GENERATED,
    "face reading": {"identities", "photographs"} | GENERATED,
    "codec": {"latents"} | GENERATED,
    "latents of pairs": {"latents"},
    "identities of pairs": {"identities"},
    "prepared photographs": {"photographs"},
    "sampler": GENERATED,
    "consistent attention": GENERATED,
    "pipeline": GENERATED,
    "evaluation plan": GENERATED,
    "generated sets": {"evaluated sets"},
    "sets of the sharing study": {"shared sets"},
    "sets of trained variants": {"variants' sets"},
}


class Place(Exception):
    """Raised instead of generating pictures, with the folder that they would be kept in."""


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """A function that computes a small example of each kept result and returns the keys by name."""
    faces = SimpleNamespace(weights=("detector", "recognizer"))
    codec = SimpleNamespace(mark="weights", encoded=lambda _, path: path.touch())
    pipeline = SimpleNamespace(set_progress_bar_config=lambda **_: None)
    pipeline.to = lambda device: pipeline
    reading = SimpleNamespace(score=1.0, tokens=np.zeros((2, 4)))

    def stop(draw, plan, folder):
        raise Place(folder.name)

    monkeypatch.setattr(faces, "read", lambda image: [reading], raising=False)
    monkeypatch.setattr(evaluation, "draw_sets", stop)
    monkeypatch.setattr(evaluation, "FacePack", lambda: faces)
    monkeypatch.setattr(evaluation.GenAffectPipeline, "from_pretrained", lambda folder: pipeline)

    def make(folder) -> dict[str, str]:
        for module in ("avatars.pairs", "training.detector", "training.identity_data", "evaluation.judges.data"):
            monkeypatch.setattr(f"gen_affect_lib.{module}.CACHE", folder)
        Scenes.cached(0, 5, 1, size=32)
        IdentityPictures.cached(0, 1, 1)
        Drawings.cached(0, 1, 1)
        pairs = PairCache.open(CONFIG)
        assembly.cache_split(pairs, codec, faces, 1)
        with pytest.raises(Place) as place:
            evaluation.evaluate(SHIPPED, Plan(2, 2, 1))
        names = {"scenes": "scenes/*", "identity pictures": "identity/*", "judges' drawings": "judges/*"}
        names |= {"latents": "pairs/*/latents-*", "identities": "pairs/*/identities-*"}
        found = {name: [path.name for path in folder.glob(pattern)] for name, pattern in names.items()}
        assert all(len(paths) == 1 for paths in found.values())
        return {name: paths[0] for name, paths in found.items()} | {
            "pairs": json.loads((pairs.folder / "manifest.json").read_text())["key"],
            "evaluated sets": str(place.value),
            "photographs": key(PREPARED, {}),
            "shared sets": key(SHARED_SETS, {}),
            "variants' sets": key(VARIANT_SETS, {}),
            "heads": key(RENDERED, {}),
        }

    return lambda name: make(tmp_path / name)


@pytest.mark.parametrize("name", PRODUCERS)
def test_a_raised_version_makes_exactly_its_dependants_stale(name, kept, monkeypatch):
    before = kept("before")
    monkeypatch.setattr(PRODUCERS[name], "version", PRODUCERS[name].version + 1)
    after = kept("after")
    assert {one for one in before if before[one] != after[one]} == STALE[name]


def test_without_a_change_everything_is_found_again(kept):
    assert kept("before") == kept("after")


def test_the_emotion_table_counts_by_its_content(kept, monkeypatch, tmp_path):
    before, table = kept("before"), PRODUCERS["emotion table"]
    copy = tmp_path / "emotions.csv"
    copy.write_bytes(table.data[0].read_bytes())
    monkeypatch.setattr(table, "data", (copy,))
    assert kept("copied") == before
    copy.write_bytes(copy.read_bytes().replace(b"0.6", b"0.7", 1))
    after = kept("changed")
    assert {one for one in before if before[one] != after[one]} == STALE["emotion table"]


def test_a_comment_changes_no_key(tmp_path):
    """A copy of the library with a comment in each file has the same versions of all producers."""
    program = (
        "import json; from tests.producers import declared; "
        "print(json.dumps({name: producer.versions for name, producer in declared().items()}))"
    )
    copy = tmp_path / "gen_affect_lib"
    for path in (ROOT / "gen_affect_lib").rglob("*.py"):
        there = copy / path.relative_to(ROOT / "gen_affect_lib")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(path.read_text(encoding="utf-8") + "\n# a comment\n", encoding="utf-8")
    for name in ("tests", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    out = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout) == {name: producer.versions for name, producer in PRODUCERS.items()}


@cache
def changed(name: str) -> bool:
    """Whether a sample differs from the recorded one although its versions do not."""
    return RECORDS[name]["versions"] == versions(name) and RECORDS[name]["digest"] != digest(SAMPLES[name]())


@pytest.mark.parametrize("name", PRODUCERS)
def test_whoever_changes_what_a_producer_makes_raises_its_version(name):
    assert name in SAMPLES, f"{name!r} has no sample: add one to tests/producers.py"
    assert name in RECORDS and RECORDS[name]["versions"] == versions(name), (
        f"{name!r} has a new version: run `python -m tests.producers` and commit tests/digests.json"
    )
    for other in versions(name):
        if other != name and other in SAMPLES and changed(other):
            pytest.skip(f"uses {other!r}, which fails itself")
    assert not changed(name), (
        f"{name!r} makes something else than its version {PRODUCERS[name].version} did: raise the version where the "
        "producer is declared, then run `python -m tests.producers` and commit tests/digests.json"
    )


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_changes_with_the_configuration_the_weights_and_every_version():
    inner = Producer("inner", 1)
    outer = Producer("outer", 1, uses=(Producer("middle", 1, uses=(inner,)),))
    first = key(outer, asdict(CONFIG), "a")
    others = {
        key(outer, asdict(CONFIG) | {"size": 17}, "a"),
        key(outer, asdict(CONFIG), "b"),
        key(outer, asdict(CONFIG)),
    }
    inner.version = 2
    others |= {key(outer, asdict(CONFIG), "a"), key(inner, asdict(CONFIG), "a")}
    assert len({first, *others}) == 6 and all(len(one) == 12 and int(one, 16) >= 0 for one in others)
    assert outer.versions == {"outer": "1", "middle": "1", "inner": "2"}


def test_the_order_of_a_configuration_does_not_matter():
    producer = Producer("one", 1)
    assert key(producer, {"a": 1, "b": (2, 3)}) == key(producer, {"b": [2, 3], "a": 1})


def test_a_folder_counts_by_its_weights_and_configurations(tmp_path):
    for name in ("a.safetensors", "part/config.json", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    before = fingerprint(tmp_path)
    (tmp_path / "README.md").write_text("another text")
    assert fingerprint(tmp_path) == before
    (tmp_path / "part" / "config.json").write_text("{}")
    assert fingerprint(tmp_path) != before
    assert fingerprint(tmp_path / "part" / "config.json") == digest(b"{}")
