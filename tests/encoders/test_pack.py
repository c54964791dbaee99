"""The pack in insightface, its readings of any picture, and the figures of the shipped weights."""

import json
import shutil
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from insightface.app import FaceAnalysis
from insightface.model_zoo import get_model
from PIL import Image

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.landmarks import landmarks
from gen_affect_lib.avatars.scenes import scene
from gen_affect_lib.encoders import pack
from gen_affect_lib.encoders.detector import FaceDetector, decode, to_input
from gen_affect_lib.encoders.identity import ArcFaceNet
from gen_affect_lib.encoders.onnx_files import export, round_weights
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.encoders.face_pack import measure_detector, measure_pack, measure_recognizer
from gen_affect_lib.paths import CHECKPOINTS

VALIDATION = 1_400_000  # people on whom nothing was chosen while training
CPU = ["CPUExecutionProvider"]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A pack that was never trained, with its networks: tests that pass with it hold for any weights."""
    torch.manual_seed(0)
    recognizer = ArcFaceNet(widths=(8, 16, 32), blocks=(0, 1, 1), squeeze=8)
    recognizer(torch.randn(16, 3, 112, 112))
    detector = FaceDetector(widths=(8, 8, 16, 16), neck=8)
    detector(torch.randn(2, 3, 64, 64))
    folder = tmp_path_factory.mktemp("pack")
    pack.save_recognizer(round_weights(recognizer), folder)
    pack.save_detector(round_weights(detector), folder)
    return folder, recognizer, detector


@pytest.fixture(scope="module")
def faces():
    return pack.FacePack()


@cache
def portrait(seed: int = VALIDATION, moment: int = 1, size: int = 256) -> np.ndarray:
    return Avatar(Identity.sample(seed), Expression.sample(moment), Appearance.sample(moment)).render(size)


# --- files and insightface -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shipped", [False, True])
def test_insightface_computes_what_torch_does(untrained, shipped):
    folder = pack.FOLDER if shipped else untrained[0]
    recognizer = pack.load_recognizer(folder)
    arcface = get_model(str(folder / pack.RECOGNIZER), providers=CPU)
    assert type(arcface).__name__ == "ArcFaceONNX"
    images = np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3), np.uint8)
    theirs = arcface.get_feat([np.ascontiguousarray(image[:, :, ::-1]) for image in images])
    with torch.no_grad():
        ours = recognizer(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1).numpy()
    assert np.abs(theirs - ours).max() < 1e-5


@pytest.mark.parametrize("shipped", [False, True])
def test_insightface_decodes_the_detector_as_we_do(untrained, shipped):
    folder = pack.FOLDER if shipped else untrained[0]
    detector, scrfd = pack.load_detector(folder), get_model(str(folder / pack.DETECTOR), providers=CPU)
    assert type(scrfd).__name__ == "SCRFD" and scrfd.use_kps
    scrfd.prepare(-1)
    for height, width in ((96, 160), (256, 256)):
        image = scene(1, VALIDATION, 1000, 256).image[:height, :width]
        theirs = [np.concatenate(parts) for parts in scrfd.forward(np.ascontiguousarray(image[:, :, ::-1]), 0.0)]
        with torch.no_grad():
            ours = [part[0].numpy() for part in decode(detector(to_input(image[None])), height, width)]
        assert np.abs(theirs[0].ravel() - ours[0]).max() < 1e-5
        assert np.abs(theirs[1] - ours[1]).max() < 1e-2 and np.abs(theirs[2] - ours[2]).max() < 1e-2


def test_a_file_gives_the_weights_back(untrained):
    folder, recognizer, detector = untrained
    for ours, read in ((recognizer, pack.load_recognizer(folder)), (detector, pack.load_detector(folder))):
        for name, weight in ours.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(weight, read.state_dict()[name]), name


def test_weights_must_be_rounded_before_they_are_written(tmp_path):
    with pytest.raises(ValueError, match="round_weights"):
        export(torch.nn.Linear(3, 3), tmp_path / "x.onnx", torch.zeros(1, 3), ["y"], {})


def test_a_pack_of_other_sizes_is_refused(untrained, tmp_path):
    for file in untrained[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["recognizer"]["squeeze"] = 16
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="another network"):
        pack.load_recognizer(tmp_path)


def test_a_damaged_file_is_refused(untrained, tmp_path):
    for file in untrained[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: None if file.suffix == ".json" else 5000])
    with pytest.raises(UserError, match="ONNX"):
        pack.load_recognizer(tmp_path)
    with pytest.raises(UserError, match="cannot be loaded"):
        pack.FacePack(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        pack.FacePack(tmp_path / "nothing")
    with pytest.raises(UserError, match="config.json"):
        pack.load_detector(tmp_path)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_insightface_loads_the_shipped_folder_and_reads_a_face():
    analysis = FaceAnalysis(name=str(pack.FOLDER), providers=CPU)
    analysis.prepare(ctx_id=-1)
    found = analysis.get(np.ascontiguousarray(portrait()[:, :, ::-1]))
    assert len(found) == 1
    assert found[0].kps.shape == (5, 2) and found[0].embedding.shape == (512,)


def test_the_pack_is_small():
    assert sum(file.stat().st_size for file in pack.FOLDER.iterdir()) < 4.5e6
    assert {"config.json", "figures.json", "README.md"} <= {file.name for file in pack.FOLDER.iterdir()}
    assert CHECKPOINTS in pack.FOLDER.parents


# --- any picture gets a clear answer ---------------------------------------------------------------------------------


def test_a_portrait_is_read(faces):
    reading = faces.one(portrait())
    truth = landmarks(Avatar(Identity.sample(VALIDATION), Expression.sample(1), Appearance.sample(1))) * 256
    eyes = np.linalg.norm(truth[1] - truth[0])
    assert np.linalg.norm(reading.landmarks - truth, axis=1).mean() < 0.06 * eyes
    assert np.linalg.norm(reading.embedding) == pytest.approx(1, abs=1e-5)
    assert reading.views.shape == (2, 112, 112, 3) and 0.5 <= reading.score <= 1


def test_paths_pil_and_arrays_are_read_alike(faces, tmp_path):
    Image.fromarray(portrait()).save(tmp_path / "face.png")
    expected = faces.one(portrait())
    for picture in (tmp_path / "face.png", str(tmp_path / "face.png"), Image.fromarray(portrait())):
        assert np.allclose(faces.one(picture).embedding, expected.embedding, atol=1e-6)


def test_no_face_is_said(faces, tmp_path):
    empty = np.full((120, 160, 3), (30, 120, 200), np.uint8)
    assert faces.read(empty) == []
    Image.fromarray(empty).save(tmp_path / "wall.png")
    with pytest.raises(UserError, match="no face found in .*wall.png"):
        faces.one(tmp_path / "wall.png")


def test_several_faces_ask_which(faces):
    small, large = portrait(VALIDATION + 2, 5, 200), portrait(VALIDATION + 3, 6, 300)
    both = np.full((300, 500, 3), (90, 140, 90), np.uint8)
    both[50:250, :200], both[:, 200:] = small, large
    assert len(faces.read(both)) == 2
    with pytest.raises(UserError, match="2 faces found .*which"):
        faces.one(both)
    assert faces.one(both, which=0).box[2] < 210 < faces.one(both, which=1).box[0]
    assert np.array_equal(faces.one(both, which=np.int64(1)).box, faces.one(both, which=1).box)
    assert np.array_equal(faces.one(both, which=" Largest").box, faces.one(both, which="largest").box)
    assert np.array_equal(faces.one(both, which="largest").box, faces.one(both, which=1).box)
    for which in (2, -1, "left", True):
        with pytest.raises(UserError, match="which is"):
            faces.one(both, which=which)


def test_a_grey_picture_is_read_with_a_warning(faces):
    grey = Image.fromarray(portrait()).convert("L")
    for picture in (grey, np.asarray(grey), Image.fromarray(np.asarray(grey, np.uint16) * 200)):
        with pytest.warns(UserWarning, match="no colours"):
            faces.read(picture)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faces.read(portrait())


def test_a_see_through_picture_stands_on_white(faces):
    picture = Image.fromarray(np.dstack([portrait(), np.full((256, 256), 255, np.uint8)]))
    assert np.allclose(faces.one(picture).embedding, faces.one(portrait()).embedding, atol=1e-6)
    nothing = Image.new("RGBA", (64, 64), (200, 30, 30, 0))
    assert (pack.load(nothing.copy())[0] == 255).all()


@pytest.mark.parametrize("shape", [(32, 30_000), (30_000, 32), (33, 2200)])
def test_a_thin_picture_is_measured_after_it_is_scaled(faces, shape):
    with pytest.raises(UserError, match=f"{shape[1]} x {shape[0]} pixels: give one with at least 32 a side"):
        faces.read(np.zeros((*shape, 3), np.uint8))


def test_the_thinnest_picture_is_read(faces):
    assert faces.read(np.full((32, 2048, 3), (200, 90, 20), np.uint8)) == []


def test_an_upside_down_photo_in_memory_is_the_same_person(faces, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(portrait()[::-1, ::-1]).save(tmp_path / "face.png", exif=exif)
    for picture in (tmp_path / "face.png", Image.open(tmp_path / "face.png")):
        assert np.allclose(faces.one(picture).embedding, faces.one(portrait()).embedding, atol=1e-6)


def test_16_bits_of_grey_are_the_person_of_8(faces, tmp_path):
    grey = Image.fromarray(portrait()).convert("L")
    Image.fromarray(np.asarray(grey, np.uint16) * 257).save(tmp_path / "face.png")
    with pytest.warns(UserWarning, match="no colours"):
        assert faces.one(tmp_path / "face.png").embedding @ faces.one(grey).embedding > 0.9999


@pytest.mark.parametrize("name", ["kit [copy]", "a*b?", "Ünï kit"])
def test_a_pack_may_lie_anywhere(faces, tmp_path, name):
    folder = shutil.copytree(pack.FOLDER, tmp_path / name / "pack")
    moved = pack.FacePack(folder)
    assert np.array_equal(moved.one(portrait()).embedding, faces.one(portrait()).embedding)
    assert moved.weights == faces.weights


def test_a_pack_unpacked_into_a_folder_in_its_folder_is_found(faces, tmp_path, monkeypatch):
    """The archive of antelopev2 is of this kind, and insightface itself then finds no detector."""
    shutil.copytree(pack.FOLDER, tmp_path / "models" / "antelopev2" / "antelopev2")
    with pytest.raises(AssertionError):
        FaceAnalysis(name=str(tmp_path / "models" / "antelopev2"), providers=CPU)
    expected = faces.one(portrait()).embedding
    assert np.array_equal(pack.FacePack(tmp_path / "models" / "antelopev2").one(portrait()).embedding, expected)

    monkeypatch.setattr(pack, "DOWNLOADS", tmp_path / "models")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shutil.copytree(tmp_path / "models", tmp_path / "home" / ".insightface" / "models")
    with pytest.warns(UserWarning, match="non-commercial"):
        named = pack.FacePack("antelopev2")
    assert np.array_equal(named.one(portrait()).embedding, expected)


def test_a_recognizer_of_aligned_crops_has_one_view(faces):
    alone = pack.FacePack(views=("crop",))
    reading, both = alone.one(portrait()), faces.one(portrait())
    assert reading.tokens.shape == (1, 512)
    assert np.allclose(reading.tokens, both.tokens[:1], atol=1e-5)
    assert alone.mark == faces.mark and alone.weights != faces.weights


def test_a_tiny_picture_is_refused(faces):
    with pytest.raises(UserError, match="12 x 9 pixels"):
        faces.read(np.zeros((9, 12, 3), np.uint8))


def test_a_huge_picture_is_scaled_down_and_answered_in_its_own_pixels(faces):
    expected = faces.one(portrait(size=512))
    huge = Image.fromarray(portrait(size=512)).resize((4096, 4096), Image.Resampling.BICUBIC)
    reading = faces.one(huge)
    assert np.abs(reading.box / 8 - expected.box).max() < 8
    assert reading.embedding @ expected.embedding > 0.8


@pytest.mark.parametrize("content, words", [(b"no picture at all", "no picture"), (None, "no picture")])
def test_a_corrupt_file_is_refused(faces, tmp_path, content, words):
    file = tmp_path / "face.png"
    if content is None:
        Image.fromarray(portrait()).save(file)
        content = file.read_bytes()[:2000]
    file.write_bytes(content)
    with pytest.raises(UserError, match=words):
        faces.read(file)


def test_a_missing_file_and_other_arrays_are_refused(faces, tmp_path):
    with pytest.raises(UserError, match="no file"):
        faces.read(tmp_path / "nobody.png")
    for array in (np.zeros((64, 64, 3)), np.zeros((64, 64, 4), np.uint8), np.zeros(64, np.uint8)):
        with pytest.raises(UserError, match="uint8"):
            faces.read(array)
    with pytest.raises(UserError, match="dict"):
        faces.read({})


# --- the shipped weights ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stated():
    """The reported figures of the weights in the folder, measured on people that no test draws."""
    return json.loads((pack.FOLDER / "figures.json").read_text())


def test_people_are_recognized_as_well_as_the_card_says(stated):
    """Among 200 people identification is a little easier than among the 1,000 of the model card."""
    measured = measure_recognizer(pack.load_recognizer(), VALIDATION, 200)
    for view, figures in measured.items():
        assert figures["top1"] >= max(0.96, stated["recognizer"][view]["top1"] - 0.02)
        assert figures["tar_at_far_1e-3"] >= max(0.95, stated["recognizer"][view]["tar_at_far_1e-3"] - 0.04)


def test_faces_are_found_as_well_as_the_card_says(stated):
    measured = measure_detector(pack.load_detector(), VALIDATION, 50, pack.load_landmarks())
    assert measured["ap50"] >= 0.98 and stated["detector"]["ap50"] >= 0.98
    assert measured["landmark_error"] <= 0.035 and stated["landmarks"]["landmark_error"] <= 0.03


def test_the_whole_pack_finds_aligns_and_recognizes(faces, stated):
    measured = measure_pack(faces, VALIDATION, 60)
    assert measured["found"] >= 0.98 and measured["top1"] >= 0.95
    assert measured["landmark_error"] <= 0.03 and stated["pack"]["landmark_error"] <= 0.03


def test_the_card_speaks_of_reported_people_in_three_tones(stated):
    assert stated["recognizer"]["crop"]["people"] == 1000
    for figures in (*stated["recognizer"].values(),):
        assert {"light", "middle", "dark", "gap"} == set(figures["top1_by_tone"])
    card = (pack.FOLDER / "README.md").read_text()
    assert f"{100 * stated['recognizer']['crop']['top1']:.1f} %" in card and f"{stated['detector']['ap50']:.3f}" in card
