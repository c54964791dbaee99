"""The whole recipe at its smallest: from nothing to a pipeline that draws."""

import numpy as np
import pytest
import torch

from gen_affect_lib import recipe
from gen_affect_lib.avatars import pairs
from gen_affect_lib.avatars.folder import FaceFolder
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import DATA
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.profiles import PROFILES, default_profile, get_profile

SMOKE = PROFILES["smoke"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(pairs, "CACHE", tmp_path_factory.mktemp("cache"))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, recipe.train_profile(SMOKE, out)


def test_a_run_leaves_a_pipeline_that_draws_the_same(run):
    out, pipeline = run
    again = GenAffectPipeline.from_pretrained(out / "pipeline")
    again.set_progress_bar_config(disable=True)
    reference = np.full((64, 64, 3), 128, np.uint8)
    images = again(reference, ["joy", "anger"], generator=torch.Generator().manual_seed(0)).images
    assert [image.size for image in images] == [(64, 64)] * 2
    assert (out / "codec" / "config.json").is_file()


def test_a_run_that_is_over_goes_on_from_its_end(run, tmp_path):
    out, _ = run
    trainer, _ = recipe.make_trainer(SMOKE, out)
    history = trainer.fit(max_steps=SMOKE.steps + 5, resume=True)
    assert trainer.step == SMOKE.steps + 5 and history[0]["step"] == 5


def test_a_batch_is_a_function_of_its_step(run):
    out, _ = run
    data = recipe.make_trainer(SMOKE, out)[0].data
    a, b, c = data.batch(3, 8), data.batch(3, 8), data.batch(4, 8)
    assert all(torch.equal(a[name], b[name]) for name in a) and not torch.equal(a["target"], c["target"])
    assert a["reference"].shape == (8, 16, 8, 8) and a["expression"].shape == (8, 21)
    assert torch.equal(data.validation(4)["target"], data.validation(4)["target"])


def test_a_users_own_folder_can_be_trained_on(tmp_path):
    recipe.train_profile(SMOKE, tmp_path, data=DATA / "sample_folder")
    assert (tmp_path / "pipeline" / "model_index.json").is_file()


def test_with_five_people_one_of_them_is_held_out():
    folder = FaceFolder(DATA / "sample_folder", 64)
    codec = LatentCodec(**SMOKE.codec)
    trained, held_out = (recipe._gather(split, np.random.default_rng(0), 200) for split in recipe.folder_splits(folder, codec))
    assert trained["target"].shape == held_out["target"].shape == (200, 16, 8, 8)


def test_a_profile_without_its_checkpoint_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "SHIPPED", tmp_path / "nothing")
    monkeypatch.setattr(recipe.PairCache, "open", lambda config: None)
    with pytest.raises(UserError, match="restore it from the repository, or train from nothing with --from-nothing"):
        recipe.make_trainer(PROFILES["laptop"], tmp_path)


def test_profiles_are_found_by_name_or_by_the_environment(monkeypatch):
    monkeypatch.setenv("GEN_AFFECT_PROFILE", "smoke")
    assert default_profile() == "smoke" and get_profile() is SMOKE
    monkeypatch.delenv("GEN_AFFECT_PROFILE")
    assert default_profile() == ("gpu" if torch.cuda.is_available() else "laptop")
    with pytest.raises(UserError, match="did you mean laptop"):
        get_profile("labtop")
