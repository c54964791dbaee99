"""The face pack: a detector, a second look at the landmarks and a recognizer of our own in a folder that insightface
loads, and a reader around it.

`insightface.app.FaceAnalysis(name=FOLDER)` is all that an outside program needs. `FacePack` adds what a kit needs: any
picture goes in, and whatever is wrong with it is said in one line.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gen_affect_lib.encoders.detector import FaceDetector
from gen_affect_lib.encoders.identity import ArcFaceNet
from gen_affect_lib.encoders.landmark_net import NAME, LandmarkNet
from gen_affect_lib.encoders.landmark_net import SIZE as LOOK
from gen_affect_lib.encoders.onnx_files import export, load_weights
from gen_affect_lib.encoders.views import SIZE, VIEWS, aligned
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import CHECKPOINTS
from gen_affect_lib.pictures import on_white, open_picture

FOLDER = CHECKPOINTS / "insightface_pack"
RECOGNIZER, DETECTOR, LANDMARKS = "arcface.onnx", "detector.onnx", "landmarks.onnx"
SMALLEST, LARGEST = 32, 2048  # pixels a side: what is smaller shows no face, what is larger is made smaller
NON_COMMERCIAL = (
    "insightface's own packs are licensed for non-commercial research only; the kit's own pack has no such limit"
)


@dataclass(frozen=True)
class FaceReading:
    """One face of a picture.

    Attributes:
        box: float32 (4,), x0 y0 x1 y1 in pixels.
        landmarks: float32 (5, 2) in pixels: eyes, tip of the nose, corners of the mouth; left is the picture's left.
        score: how sure the detector is, in [0, 1].
        views: uint8 (2, 112, 112, 3), RGB: the aligned crop and the wider view, see `views.VIEWS`.
        embeddings: float32 (2, 512), of each view, of length 1: products of two are the cosines of their angles.
    """

    box: np.ndarray
    landmarks: np.ndarray
    score: float
    views: np.ndarray
    embeddings: np.ndarray

    @property
    def embedding(self) -> np.ndarray:
        """Who it is, as recognition compares it: float32 (512,), that of the aligned crop."""
        return self.embeddings[0]

    @property
    def tokens(self) -> np.ndarray:
        """Who it is, as a condition sees it: float32 (2, 512) about unit scale, what `identity.IdentityEncoder` gives."""
        return self.embeddings * self.embeddings.shape[1] ** 0.5


class FacePack:
    """Reads faces with insightface.

    Args:
        name: a folder with a pack, by default the kit's own; or the name of one of insightface's, such as "buffalo_l",
            which is downloaded then, and must not be used commercially.
        least_score: below this a detection does not count.
        providers: onnxruntime's, by default the processor alone.

    Raises UserError where the folder holds no pack or the name cannot be had.
    """

    def __init__(self, name: str | Path = FOLDER, least_score: float = 0.5, providers=("CPUExecutionProvider",)):
        import onnxruntime
        import torch
        from insightface.app import FaceAnalysis  # takes seconds, and who trains needs none of it

        self.arguments = str(name), least_score, tuple(providers)  # another process makes its own from them
        folder = Path(name)
        if not folder.is_dir():
            if folder.parent != Path("."):
                raise UserError(f"{name} is no folder: give one with {DETECTOR} and {RECOGNIZER}, or leave it out")
            warnings.warn(NON_COMMERCIAL, stacklevel=2)
        options = onnxruntime.SessionOptions()
        # By default it takes a thread for every core, each bound to one, and waits where another program uses that core.
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.analysis = FaceAnalysis(name=str(name), providers=list(providers), sess_options=options)
            self.analysis.models["recognition"]
        except Exception as error:  # a network that is not there, a damaged file: insightface lets all kinds through
            reason = str(error) or type(error).__name__
            raise UserError(
                f"the face pack {name} cannot be loaded ({' '.join(reason.split())[:120]}): give the kit's own, "
                f"{FOLDER.name}, or the name of one of insightface's where there is a network"
            ) from error
        self.analysis.prepare(ctx_id=-1 if tuple(providers) == ("CPUExecutionProvider",) else 0, det_thresh=least_score)
        self.detector, self.recognizer = self.analysis.det_model, self.analysis.models["recognition"]
        self.second_look = self.analysis.models.get(NAME)  # insightface's own packs have none with five points

    @cached_property
    def mark(self) -> str:
        """Twelve hexadecimal digits that change with the recognizer: what learned from one cannot use another."""
        return hashlib.sha256(Path(self.recognizer.model_file).read_bytes()).hexdigest()[:12]

    def read(self, picture) -> list[FaceReading]:
        """All faces of a picture, from left to right; an empty list where there is none.

        Args:
            picture: a path, a PIL image, or a uint8 array (H, W, 3) in RGB or (H, W) in grey.

        Raises UserError where it is missing, damaged, no picture, or smaller than 32 pixels a side. One larger than
        2048 is scaled down to be read. One without colours is read, with a warning that people are told apart less
        surely.
        """
        from insightface.app.common import Face

        image, ratio = load(picture)
        bgr = np.ascontiguousarray(image[:, :, ::-1])  # as insightface wants it
        boxes, points = self.detector.detect(bgr, input_size=(detection_size(image),) * 2)
        readings = []
        for box, five in zip(boxes, points):
            if self.second_look is not None:
                five = self.second_look.get(bgr, Face(bbox=box[:4]))
            views = np.stack([aligned(image, five, view) for view in VIEWS])
            embeddings = self.recognizer.get_feat([np.ascontiguousarray(view[:, :, ::-1]) for view in views])
            embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
            readings.append(FaceReading(box[:4] / ratio, five / ratio, float(box[4]), views, embeddings))
        return sorted(readings, key=lambda face: face.box[0] + face.box[2])

    def one(self, picture, which: int | str | None = None, name: str = "the picture") -> FaceReading:
        """The one face of a picture.

        Args:
            which: where there are several, "largest", or a number from 0, counted from left to right.
            name: what an error calls the picture, unless it is a file.

        Raises UserError where there is no face, or several and `which` does not say which.
        """
        faces = self.read(picture)
        what = str(picture) if isinstance(picture, (str, Path)) else name
        if not faces:
            raise UserError(
                f"no face found in {what}: give one where a face looks at you and takes a tenth of the width or more"
            )
        if which == "largest":
            return max(faces, key=lambda face: float(np.prod(face.box[2:] - face.box[:2])))
        if which is None and len(faces) == 1:
            return faces[0]
        if which is None:
            raise UserError(
                f'{len(faces)} faces found in {what}: say which with which="largest", or which=0 to '
                f"{len(faces) - 1} from left to right"
            )
        if isinstance(which, bool) or not isinstance(which, int) or not 0 <= which < len(faces):
            raise UserError(
                f'which is {which!r}, but {what} has {len(faces)} face(s): give "largest" or a number '
                "from 0, counted from left to right"
            )
        return faces[which]


def detection_size(image: np.ndarray) -> int:
    """To which side a picture (H, W, 3) is brought for the detector: about its own, in multiples of 32, since that is
    where its landmarks are the most exact; at least 128, or small faces would be missed, and at most 640."""
    return int(np.clip(-(-max(image.shape[:2]) // 32) * 32, 128, 640))


def load(picture) -> tuple[np.ndarray, float]:
    """A picture as uint8 RGB (H, W, 3), no side above `LARGEST`, and by how much it was scaled for that (at most 1)."""
    if not isinstance(picture, np.ndarray):
        picture = open_picture(picture)
    if isinstance(picture, Image.Image):
        grey = picture.mode in ("1", "L", "LA", "I", "I;16", "F")
        if picture.mode in ("I", "I;16", "F"):  # more than 8 bits: PIL would clip what is above 255
            values = np.asarray(picture, np.float32)
            picture = Image.fromarray((255 * values / max(1.0, float(values.max()))).astype(np.uint8))
        image = np.array(on_white(picture))
    else:
        image = picture
        if image.dtype != np.uint8 or not (image.ndim == 2 or image.ndim == 3 and image.shape[2] in (1, 3)):
            raise UserError(
                f"a picture came as {image.dtype} {image.shape}: give uint8 (H, W, 3) in RGB, a PIL image, or a path"
            )
        grey = image.ndim == 2 or image.shape[2] == 1
        image = np.repeat(image.reshape(*image.shape[:2], -1), 3, axis=2) if grey else image  # (H, W[, 1]) -> (H, W, 3)
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST:
        raise UserError(f"the picture has {width} x {height} pixels: give one with at least {SMALLEST} a side")
    if grey or (image == image[:, :, :1]).all():
        warnings.warn(
            "the picture has no colours: hair, skin and eyes are told by their brightness alone, and people "
            "less surely than in colour",
            stacklevel=3,
        )
    ratio = min(1.0, LARGEST / max(height, width))
    if ratio < 1:
        size = max(1, round(width * ratio)), max(1, round(height * ratio))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image, ratio


def save_recognizer(net: ArcFaceNet, folder: Path) -> None:
    """Write the recognizer, with rounded weights, so that insightface takes it for an ArcFace."""
    import torch

    export(net, folder / RECOGNIZER, torch.zeros(1, 3, SIZE, SIZE), ["embedding"], {0: "batch"})
    note(folder / "config.json", "recognizer", net.sizes)


def save_detector(net: FaceDetector, folder: Path) -> None:
    """Write the detector, with rounded weights; insightface knows it by its nine outputs."""
    import torch

    names = [f"{kind}_{stride}" for kind in ("score", "box", "points") for stride in (8, 16, 32)]
    export(net, folder / DETECTOR, torch.zeros(1, 3, 128, 160), names, {2: "height", 3: "width"})
    note(folder / "config.json", "detector", net.sizes)


def save_landmarks(net: LandmarkNet, folder: Path) -> None:
    """Write the second look, with rounded weights; insightface knows it by its input of 192 pixels."""
    import torch

    export(net, folder / LANDMARKS, torch.zeros(1, 3, LOOK, LOOK), ["points"], {0: "batch"})
    note(folder / "config.json", "landmarks", net.sizes)


def note(path: Path, part: str, content: dict) -> None:
    """Keep what belongs to one part of a pack in a JSON file, beside what is there already of the others."""
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**known, part: content}, indent=2, sort_keys=True) + "\n")


def load_recognizer(folder: Path = FOLDER) -> ArcFaceNet:
    """The recognizer of a pack as a torch network. Raises UserError where it is not there."""
    return load_weights(ArcFaceNet(**_sizes(folder, "recognizer")), folder / RECOGNIZER)


def load_detector(folder: Path = FOLDER) -> FaceDetector:
    """The detector of a pack as a torch network. Raises UserError where it is not there."""
    return load_weights(FaceDetector(**_sizes(folder, "detector")), folder / DETECTOR)


def load_landmarks(folder: Path = FOLDER) -> LandmarkNet:
    """The second look of a pack as a torch network. Raises UserError where it is not there."""
    return load_weights(LandmarkNet(**_sizes(folder, "landmarks")), folder / LANDMARKS)


def _sizes(folder: Path, part: str) -> dict:
    try:
        return json.loads((Path(folder) / "config.json").read_text())[part]
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise UserError(
            f"{folder} has no config.json that names a {part} ({type(error).__name__}): give the folder of "
            "a pack, or train one with `python -m gen_affect_lib train-encoder identity`"
        ) from None
