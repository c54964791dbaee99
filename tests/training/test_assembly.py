"""The whole recipe at its smallest: from nothing to a pipeline that draws."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gen_affect_lib import cli
from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity, pairs
from gen_affect_lib.avatars.folder import FaceFolder, write_folder
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import DATA
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.profiles import PROFILES, default_profile, get_profile
from gen_affect_lib.training import assembly, latent_pairs
from gen_affect_lib.training.checkpoint import read_last_checkpoint

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
    return out, assembly.train_profile(SMOKE, out)


def test_a_run_leaves_a_pipeline_that_draws_the_same(run):
    out, pipeline = run
    again = GenAffectPipeline.from_pretrained(out / "pipeline")
    again.set_progress_bar_config(disable=True)
    assert again.config.recognizer == FacePack().mark
    reference = Avatar(Identity.sample(1_000_000), Expression(), Appearance.sample(0)).render(64)
    images = again(reference, ["joy", "anger"], generator=torch.Generator().manual_seed(0)).images
    assert [image.size for image in images] == [(64, 64)] * 2
    assert (out / "codec" / "config.json").is_file()


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_at_another_size_is_the_same_but_for_its_pictures(name):
    size = PROFILES[name].pairs.size
    large = PROFILES[name].at(192)
    assert (
        large.pairs.size
        == large.validation.size
        == large.retrained().pairs.size
        == large.retrained().validation.size
        == 192
    )
    assert large.at(size) == PROFILES[name] and large.retrained().at(size) == PROFILES[name].retrained()


def test_a_run_at_128_pixels_leaves_a_pipeline_that_draws_128_pixels(tmp_path):
    assert cli.main(["train", "--profile", "smoke", "--size", "128", "--out", str(tmp_path)]) == 0
    pipeline = GenAffectPipeline.from_pretrained(tmp_path / "pipeline")
    reference = Avatar(Identity.sample(1_000_000), Expression(), Appearance.sample(0)).render(96)
    assert pipeline(reference, ["joy"]).images[0].size == (128, 128)
    assert pipeline.transformer.config.sample_size == 8


def test_the_shipped_checkpoint_is_not_trained_on_at_another_size(tmp_path):
    with pytest.raises(UserError, match="generates 128 pixels a side, not 64: train from nothing with --from-nothing"):
        assembly.make_trainer(PROFILES["laptop"].at(64), tmp_path, data=DATA / "sample_folder")


def test_a_run_that_is_over_goes_on_from_its_end(run, tmp_path):
    out, _ = run
    trainer, _ = assembly.make_trainer(SMOKE, out)
    history = trainer.fit(max_steps=SMOKE.training.steps + 5, resume=True)
    assert trainer.step == SMOKE.training.steps + 5 and history[0]["step"] == 5


def test_two_processes_leave_what_one_leaves(run, tmp_path, launch):
    out, _ = run
    done = launch("-m", "gen_affect_lib", "train", "--profile", "smoke", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "pipeline")], "one of them speaks"
    two, one = (read_last_checkpoint(folder)[1]["history"] for folder in (tmp_path, out))
    assert two[-1]["step"] == SMOKE.training.steps
    for mine, other in zip(two, one):
        for name in mine.keys() - {"seconds", "training/images_per_second"}:
            assert mine[name] == pytest.approx(other[name], rel=1e-4), name
    one, two = (
        load_file(path / "pipeline" / "codec" / "diffusion_pytorch_model.safetensors") for path in (tmp_path, out)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_batch_is_a_function_of_its_step(run):
    out, _ = run
    data = assembly.make_trainer(SMOKE, out)[0].data
    a, b, c = data.batch(3, 8), data.batch(3, 8), data.batch(4, 8)
    assert all(torch.equal(a[name], b[name]) for name in a) and not torch.equal(a["target"], c["target"])
    assert a["target"].shape == (8, 16, 4, 4)
    assert a["identity"].shape == (8, 2, 512) and a["expression"].shape == (8, 48)
    assert torch.equal(data.validation(4)["target"], data.validation(4)["target"])


def test_a_users_own_folder_can_be_trained_on(tmp_path):
    assembly.train_profile(SMOKE, tmp_path, data=DATA / "sample_folder")
    assert (tmp_path / "pipeline" / "model_index.json").is_file()


def test_the_shipped_checkpoint_can_be_fitted_to_a_few_people(tmp_path):
    few = replace(PROFILES["laptop"].training, batch_size=16, warmup_steps=3, validation_size=24)
    trainer, _ = assembly.make_trainer(replace(PROFILES["laptop"], training=few), tmp_path, data=DATA / "sample_folder")
    trainer.preview = None  # takes as long as the rest
    before = trainer.validate()
    trainer.fit(max_steps=20)
    after = trainer.validate()
    for sigma in (0.2, 0.5):  # where clothes and background, which nothing tells the model, count least
        assert after[f"validation/sigma_{sigma}"] < 0.95 * before[f"validation/sigma_{sigma}"]
    assert sum(after.values()) < 0.96 * sum(before.values())


def test_of_people_with_one_picture_each_copies_are_learned_with_a_warning(tmp_path):
    faces = [
        (name, "joy", Avatar(Identity.sample(n), Expression(), Appearance.sample(n))) for n, name in enumerate("ab")
    ]
    with pytest.warns(UserWarning, match="2 of 2 people have one picture only"):
        pictures = assembly.UserPictures(write_folder(faces, tmp_path / "faces"), 64, assembly.FacePack())
    assert pictures.folder.copies.all()


def test_a_target_is_another_picture_of_the_person_on_its_reference(run):
    out, _ = run
    split, K = assembly.make_trainer(SMOKE, out)[0].data.train, SMOKE.pairs.images
    place, target = split.pick(np.random.default_rng(0), 500)
    reference = split.references[place]
    assert (reference // K == target // K).all() and (reference != target).all()
    assert set(reference % K) == set(range(SMOKE.references)) and set(target % K) == set(range(K))
    tokens = split.identities[place].astype(np.float32)
    assert np.abs(np.linalg.norm(tokens, axis=2) / 512**0.5 - 1).max() < 1e-2


def test_references_are_read_once(run, monkeypatch):
    out, _ = run
    monkeypatch.setattr(assembly.FacePack, "read", lambda *_: pytest.fail("read again"))
    assembly.make_trainer(SMOKE, out)


def test_several_processes_read_what_one_does(monkeypatch):
    cache, faces = pairs.PairCache.open(SMOKE.validation), FacePack()
    indices = np.arange(0, len(cache.flat_images), 2)
    alone = latent_pairs.read_references(cache, faces, indices)
    monkeypatch.setattr(latent_pairs, "FACES_PER_PROCESS", len(indices) // 2)
    monkeypatch.setattr(latent_pairs, "cores", lambda: 2)
    monkeypatch.setattr(latent_pairs, "_read_tokens", None)  # nothing is read in this process
    np.testing.assert_allclose(latent_pairs.read_references(cache, faces, indices), alone, atol=1e-5)


def test_a_picture_without_a_face_cannot_be_a_reference(tmp_path, monkeypatch):
    """It is passed over in drawn pairs; of a user's pictures it is named."""
    cache = pairs.PairCache.open(pairs.PairsConfig("train", 16, 4), tmp_path / "pairs")
    images = cache.images.copy()
    images[3, 0] = (20, 90, 200)
    cache.images = images
    split = latent_pairs.cache_split(cache, LatentCodec(**vars(SMOKE.codec)), FacePack(), 2)
    assert len(split.references) == 31 and 12 not in split.references

    folder = shutil.copytree(DATA / "sample_folder", tmp_path / "folder")
    name = FaceFolder(folder, 64).entries[2].path
    Image.new("RGB", (64, 64), "blue").save(name)
    with pytest.raises(UserError, match=f"line 3: no face found in the centred square of {name.name}"):
        latent_pairs.folder_identities(FaceFolder(folder, 64), FacePack())


def test_the_identity_is_read_from_the_square_that_is_learned_from(tmp_path):
    """The largest face of the whole picture stands to the left of its centred square."""
    folder = shutil.copytree(DATA / "sample_folder", tmp_path / "folder")
    entry = FaceFolder(folder, 64).entries[2]
    face, other = Image.open(entry.path), Image.open(FaceFolder(folder, 64).entries[8].path)
    wide = Image.new("RGB", (600, 128), "white")
    wide.paste(other.resize((192, 192)), (0, -32))
    wide.paste(face, (236, 0))
    wide.save(entry.path)
    tokens = latent_pairs.folder_identities(FaceFolder(folder, 64), FacePack())
    faces = FaceFolder(DATA / "sample_folder", 64).images[[2, 8]]
    likeness = [tokens[2].ravel() @ FacePack().one(image).tokens.ravel() / tokens[2].size for image in faces]
    assert likeness[0] > 0.98 and likeness[1] < 0.6


def test_a_face_outside_its_square_is_named_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(DATA / "sample_folder", tmp_path / "folder")
    entry = FaceFolder(folder, 64).entries[4]
    wide = Image.new("RGB", (600, 128), "teal")
    wide.paste(Image.open(entry.path), (0, 0))
    wide.save(entry.path)
    monkeypatch.setattr(assembly, "fit_codec", lambda *_: pytest.fail("trained"))
    out = tmp_path / "out"
    assert cli.main(["train", "--profile", "smoke", "--data", str(folder), "--out", str(out)]) == 2
    assert f"line 5: no face found in the centred square of {entry.path.name}" in capsys.readouterr().err
    assert not out.exists()


def test_with_five_people_one_of_them_is_held_out(tmp_path):
    people = [(name, Identity.sample(1_000_000 + n)) for n, name in enumerate("abcde")]
    faces = [
        (a, word, Avatar(who, Expression.named(word), Appearance.sample(0)))
        for a, who in people
        for word in ("joy", "rage")
    ]
    folder = FaceFolder(write_folder(faces, tmp_path), 64)
    identities = latent_pairs.folder_identities(folder, FacePack())
    splits = latent_pairs.folder_splits(folder, LatentCodec(**vars(SMOKE.codec)), identities)
    owner = np.array([entry.identity for entry in folder.entries])
    trained, held_out = (owner[split.pick(np.random.default_rng(0), 200)[1]] for split in splits)
    assert set(trained) | set(held_out) == set(owner) and not set(trained) & set(held_out)
    drawn = splits[1].draw(np.random.default_rng(0), 50)
    assert drawn["target"].shape == (50, 16, 4, 4) and drawn["identity"].shape == (50, 2, 512)


def test_a_profile_without_its_checkpoint_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(assembly, "SHIPPED", tmp_path / "nothing")
    monkeypatch.setattr(assembly.PairCache, "open", lambda config: None)
    with pytest.raises(UserError, match="restore it from the repository, or train from nothing with --from-nothing"):
        assembly.make_trainer(PROFILES["laptop"], tmp_path)


def test_a_shipped_checkpoint_that_learned_from_another_recognizer_is_not_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(assembly.FacePack, "mark", "0123456789ab")
    with pytest.raises(UserError, match="trained with recognizer .* has 0123456789ab: .*train the pipeline anew"):
        assembly.make_trainer(PROFILES["laptop"], tmp_path, data=DATA / "sample_folder")


def test_profiles_are_found_by_name_or_by_the_environment(monkeypatch):
    monkeypatch.setenv("GEN_AFFECT_PROFILE", "smoke")
    assert default_profile() == "smoke" and get_profile() is SMOKE
    monkeypatch.delenv("GEN_AFFECT_PROFILE")
    assert default_profile() == ("gpu" if torch.cuda.is_available() else "laptop")
    with pytest.raises(UserError, match="did you mean laptop"):
        get_profile("labtop")


# --- resumed and damaged runs -----------------------------------------------------------------------------------------


def test_trainings_killed_at_random_moments_end_as_one_never_interrupted(tmp_path):
    """A few of them; `killed_runs.py` alone does more."""
    program = [sys.executable, str(Path(__file__).with_name("killed_runs.py")), str(tmp_path), "2"]
    done = subprocess.run(program, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    for outcome in json.loads(done.stdout):
        assert outcome["same"], outcome


def test_a_stage_does_not_depend_on_the_random_numbers_of_those_before(tmp_path, monkeypatch):
    pictures = assembly.DrawnPictures(SMOKE)
    first = assembly.random_parts(SMOKE, pictures, tmp_path)  # trains the codec
    torch.rand(5)
    again = assembly.random_parts(SMOKE, pictures, tmp_path)  # reads it
    for name in ("codec", "transformer", "condition_encoder"):
        one, other = (getattr(parts, name).state_dict() for parts in (first, again))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_is_not_resumed_with_other_data(run, tmp_path, capsys):
    out = shutil.copytree(run[0], tmp_path / "run")
    before = (out / "last.safetensors").read_bytes(), (out / "codec" / "trained.json").read_bytes()
    options = ["train", "--profile", "smoke", "--out", str(out), "--resume"]
    assert cli.main([*options, "--data", str(DATA / "sample_folder")]) == 2
    assert re.search(r"cannot resume .*: data was drawn pairs .* and is now folder", capsys.readouterr().err)
    assert before == ((out / "last.safetensors").read_bytes(), (out / "codec" / "trained.json").read_bytes())


def test_a_state_marks_its_data_codec_and_recognizer(run, tmp_path, monkeypatch):
    out, pipeline = run
    settings = read_last_checkpoint(out)[1]["settings"]
    assert settings["codec"] == pipeline.codec.mark and settings["recognizer"] == FacePack().mark
    assert settings["data"].startswith("drawn pairs ")
    monkeypatch.setattr(assembly.FacePack, "mark", "0123456789ab")
    trainer, _ = assembly.make_trainer(SMOKE, shutil.copytree(out, tmp_path / "run"))
    with pytest.raises(UserError, match="recognizer was .* and is now 0123456789ab"):
        trainer.fit(resume=True)


def test_resuming_where_there_is_no_run_says_so(tmp_path, capsys):
    assert cli.main(["train", "--profile", "smoke", "--out", str(tmp_path / "none"), "--resume"]) == 2
    assert "none contains no run: leave out --resume" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["last", "previous", "damaged"])
def test_no_checkpoint_is_deleted_by_a_plain_training(tmp_path, capsys, name):
    (tmp_path / f"{name}.safetensors").write_bytes(b"hours of work")
    assert cli.main(["train", "--profile", "smoke", "--out", str(tmp_path)]) == 2
    assert "contains a run: continue it with --resume" in capsys.readouterr().err
    assert (tmp_path / f"{name}.safetensors").read_bytes() == b"hours of work"


def test_a_codec_is_kept_and_a_damaged_or_different_one_is_trained_again(tmp_path, monkeypatch):
    trained, pictures = [], assembly.DrawnPictures(SMOKE)
    monkeypatch.setattr(assembly, "fit_codec", lambda *_: trained.append(1))
    for _ in range(2):
        assembly.make_codec(SMOKE, pictures, tmp_path)
    assert len(trained) == 1
    (weights,) = (tmp_path / "codec").glob("*.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])  # the disk was full
    assembly.make_codec(SMOKE, pictures, tmp_path)
    assert len(trained) == 2 and weights.read_bytes() == whole
    assembly.make_codec(replace(SMOKE, codec_steps=31), pictures, tmp_path)
    assert len(trained) == 3
    (tmp_path / "last.safetensors").write_bytes(b"hours of work")
    with pytest.raises(UserError, match="cannot resume .*: codec_steps was 31 and is now 10;"):
        assembly.make_codec(SMOKE, pictures, tmp_path)


def test_a_full_disk_while_the_codec_is_saved_does_not_spoil_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(assembly, "fit_codec", lambda *_: None)
    pictures, save = assembly.DrawnPictures(SMOKE), LatentCodec.save_pretrained

    def full(self, folder):
        save(self, folder)
        next(folder.glob("*.safetensors")).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LatentCodec, "save_pretrained", full)
    with pytest.raises(UserError, match="cannot write to .*No space left on device"):
        assembly.make_codec(SMOKE, pictures, tmp_path)
    monkeypatch.setattr(LatentCodec, "save_pretrained", save)
    codec = assembly.make_codec(SMOKE, pictures, tmp_path)
    assert assembly.make_codec(SMOKE, pictures, tmp_path).mark == codec.mark


def test_damaged_latents_and_identities_are_computed_again(tmp_path, monkeypatch):
    cache, faces = pairs.PairCache.open(pairs.PairsConfig("train", 16, 4), tmp_path / "pairs"), FacePack()
    codec = LatentCodec(**vars(SMOKE.codec))
    split = latent_pairs.cache_split(cache, codec, faces, 1)
    expected = np.array(split.latents), split.identities
    del split
    (latents,), (identities,) = cache.folder.glob("latents-*.npy"), cache.folder.glob("identities-*.npz")
    whole = latents.read_bytes(), identities.read_bytes()
    for damaged in (
        (whole[0][:200] + bytes(len(whole[0]) - 200), whole[1][:500] + bytes(len(whole[1]) - 500)),  # zeroed
        (whole[0][:300], whole[1][:300]),
        (b"", b""),
    ):
        latents.write_bytes(damaged[0])
        identities.write_bytes(damaged[1])
        split = latent_pairs.cache_split(cache, codec, faces, 1)
        assert np.array_equal(split.latents, expected[0]) and np.array_equal(split.identities, expected[1])
        del split


def test_latents_that_are_not_finite_are_refused():
    codec = LatentCodec(**vars(SMOKE.codec))
    torch.nn.init.constant_(next(codec.encoder.parameters()), float("nan"))
    with pytest.raises(UserError, match="the latents are not finite"):
        codec.encode_all(np.zeros((2, 64, 64, 3), np.uint8))
