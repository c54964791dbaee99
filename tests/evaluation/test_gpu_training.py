"""What is said of the run on a GPU is what was measured there."""

import json
import re

import pytest

from gen_affect_lib.paths import REFERENCE, ROOT
from gen_affect_lib.profiles import PROFILES

RUN = json.loads((REFERENCE / "gpu_training.json").read_text())
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAID = " ".join(re.search(r"(?ms)^As an example of `gpu`:.*?^$", README)[0].split())


def test_the_readme_says_how_long_it_took():
    seconds = RUN["seconds"]
    assert f"{sum(seconds.values()) / 60:.1f} minutes" in SAID
    for part in ("drawing 262,144 pictures", "autoencoder, 6,000 steps", "training"):
        assert f"{seconds[part]} s" in SAID, part
    assert f"{seconds['encoding the pictures'] + seconds['reading 65,536 references']} s" in SAID
    assert (
        f"{RUN['history'][-1]['step']:,} training steps of a network with {RUN['parameters'] / 1e6:.1f} million" in SAID
    )
    assert all(f"{took:.0f} ms" in SAID for took in RUN["milliseconds_a_step"].values())


@pytest.mark.parametrize("figure", ["expression_top1_25", "action_unit_error", "identity_top1"])
def test_the_readme_says_what_it_drew(figure):
    one = RUN["evaluation"]["figures"][figure]
    assert (
        f"{one['value']:.3f}" in SAID and f"({'true drawings ' if '25' in figure else ''}{one['ceiling']:.3f})" in SAID
    )
    other = RUN["shipped_on_the_same"]["figures"][figure]
    assert one["low"] <= other["high"] and other["low"] <= one["high"], (
        "notebook 08 says that no difference is beyond chance"
    )


def test_it_is_the_profile_as_it_stands():
    profile = PROFILES["gpu"]
    pictures = profile.pairs.identities * profile.pairs.images
    assert (
        f"drawing {pictures:,} pictures" in RUN["seconds"]
        and f"autoencoder, {profile.codec_steps:,} steps" in RUN["seconds"]
    )
    assert f"reading {profile.pairs.identities * profile.references:,} references" in RUN["seconds"]
    assert RUN["seconds"]["training"] == 60 * profile.training.minutes
