"""The face pack: our detector, landmark network and recognizer in a folder that insightface loads, and its reader.

Other programs load the folder with `insightface.app.FaceAnalysis(name=FOLDER)`. `FacePack` also takes pictures of
any kind, and its errors are one line.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gen_affect_lib.encoders.detector import FaceDetector
from gen_affect_lib.encoders.identity import ArcFaceNet, to_tokens
from gen_affect_lib.encoders.landmark_net import NAME, LandmarkNet
from gen_affect_lib.encoders.landmark_net import SIZE as LANDMARK_SIZE
from gen_affect_lib.encoders.onnx_files import export, load_weights
from gen_affect_lib.encoders.views import ALIGNMENT, SIZE, VIEWS, aligned
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import write_json
from gen_affect_lib.keys import Producer, fingerprint
from gen_affect_lib.paths import CHECKPOINTS
from gen_affect_lib.pictures import choose_face, open_picture

FACE_READING = Producer("face reading", 1, uses=(ALIGNMENT,))

FOLDER = CHECKPOINTS / "insightface_pack"
RECOGNIZER, DETECTOR, LANDMARKS = "arcface.onnx", "detector.onnx", "landmarks.onnx"
SMALLEST, LARGEST = 32, 2048  # pixels a side: smaller pictures are refused, larger ones scaled down
DOWNLOADS = Path("~/.insightface/models")  # where insightface keeps its packs
NON_COMMERCIAL = (
    "insightface's own packs are licensed for non-commercial research only; the kit's own pack has no such limit"
)


@dataclass(frozen=True)
class FaceReading:
    """One face of a picture.

    Attributes:
        box: float32 (4,), x0 y0 x1 y1 in pixels.
        landmarks: float32 (5, 2) in pixels: eyes, tip of the nose, corners of the mouth; left as in the picture.
        score: the confidence of the detector, in [0, 1].
        views: uint8 (V, 112, 112, 3), RGB: the aligned crop, and in the kit's own pack the wider view, see
            `views.VIEWS`.
        embeddings: float32 (V, 512), one per view, of norm 1: a dot product of two is their cosine.
    """

    box: np.ndarray
    landmarks: np.ndarray
    score: float
    views: np.ndarray
    embeddings: np.ndarray

    @property
    def embedding(self) -> np.ndarray:
        """The embedding for recognition, of the aligned crop: float32 (512,)."""
        return self.embeddings[0]

    @property
    def tokens(self) -> np.ndarray:
        """The identity tokens for conditioning, one per view: float32 (V, 512), see `identity.to_tokens`."""
        return to_tokens(self.embeddings)


class FacePack:
    """Reads faces with insightface.

    Args:
        name: the folder of a pack, by default the kit's own; or the name of one of insightface's packs, such as
            "buffalo_l", which is then downloaded and must not be used commercially.
        least_score: the minimum score of a detection, in [0, 1].
        providers: of onnxruntime; by default the CPU.
        views: the views that the recognizer reads, names of `views.VIEWS`. Recognizers of other packs were trained on
            aligned crops alone: give ("crop",).

    Raises UserError if the folder is not a pack or the name cannot be loaded.
    """

    def __init__(
        self,
        name: str | Path = FOLDER,
        least_score: float = 0.5,
        providers=("CPUExecutionProvider",),
        views: Sequence[str] = tuple(VIEWS),
    ):
        # with which other processes construct their own
        self.arguments = str(name), least_score, tuple(providers), tuple(views)
        self.views = tuple(views)
        folder = Path(name)
        if not folder.is_dir():
            if folder.parent != Path("."):
                raise UserError(f"{name} is not a folder: give one with {DETECTOR} and {RECOGNIZER}, or leave it out")
            warnings.warn(NON_COMMERCIAL, stacklevel=2)
        try:
            self.models = _load_models(name, providers)
            self.detector, self.recognizer = self.models["detection"], self.models["recognition"]
        except Exception as error:  # insightface raises all kinds of errors for missing and damaged files
            reason = str(error) or type(error).__name__
            raise UserError(
                f"the face pack {name} cannot be loaded ({' '.join(reason.split())[:120]}): give the kit's own, "
                f"{FOLDER.name}, or with a connection the name of one of insightface's"
            ) from error
        for model in self.models.values():
            model.prepare(-1 if tuple(providers) == ("CPUExecutionProvider",) else 0, det_thresh=least_score)
        self.landmark_net = self.models.get(NAME)  # insightface's own packs have none with five points
        self.least_score = least_score

    @property
    def mark(self) -> str:
        """The fingerprint of the recognizer. A generator trained with one recognizer cannot use another."""
        return fingerprint(Path(self.recognizer.model_file))

    @property
    def weights(self) -> tuple[str, ...]:
        """The fingerprints of all networks that take part in a reading, and the threshold of the detector."""
        networks = [fingerprint(Path(model.model_file)) for _, model in sorted(self.models.items())]
        views = () if self.views == tuple(VIEWS) else (f"views {' '.join(self.views)}",)
        return *networks, f"least score {self.least_score}", *views

    def read(self, picture) -> list[FaceReading]:
        """All faces of a picture, from left to right; an empty list if there is none.

        Args:
            picture: a path, a PIL image or a uint8 array, see `pictures.open_picture`.

        Raises UserError for a file that is missing or damaged, for anything that is not a picture, and for one smaller
        than 32 pixels a side. A picture without colours gives a warning, since recognition is less reliable then.
        """
        from insightface.app.common import Face

        image, ratio = load(picture)
        bgr = np.ascontiguousarray(image[:, :, ::-1])  # the channel order of insightface
        boxes, points = self.detector.detect(bgr, input_size=(detection_size(image),) * 2)
        readings = []
        for box, five in zip(boxes, points):
            if self.landmark_net is not None:
                five = self.landmark_net.get(bgr, Face(bbox=box[:4]))
            views = np.stack([aligned(image, five, view) for view in self.views])
            embeddings = self.recognizer.get_feat([np.ascontiguousarray(view[:, :, ::-1]) for view in views])
            embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
            if not np.isfinite(embeddings).all():
                raise UserError("the recognizer returns numbers that are not finite: restore the face pack")
            readings.append(FaceReading(box[:4] / ratio, five / ratio, float(box[4]), views, embeddings))
        return sorted(readings, key=lambda face: face.box[0] + face.box[2])

    def one(self, picture, which: int | str | None = None, name: str = "the picture") -> FaceReading:
        """The one face of a picture.

        Args:
            picture: as for `read`.
            which: for pictures with several faces "largest", or a number from 0, counted from left to right.
            name: name of the picture in error messages, unless it is a file.

        Raises UserError if there is no face, or several and no valid `which`.
        """
        faces = self.read(picture)
        what = str(picture) if isinstance(picture, (str, Path)) else name
        if not faces:
            raise UserError(
                f"no face found in {what}: give a picture with a frontal face of at least a tenth of its width"
            )
        return choose_face(faces, which, what)


def _load_models(name: str | Path, providers) -> dict:
    """The models of a pack: the name of a task -> insightface's model."""
    import onnxruntime
    import torch
    from insightface.app import FaceAnalysis  # takes seconds, and training does not need it
    from insightface.model_zoo import get_model, has_model_package_manifest

    onnxruntime.set_default_logger_severity(3)  # errors, as FaceAnalysis does
    options = onnxruntime.SessionOptions()
    # By default onnxruntime binds one thread to each core and waits if another program uses that core.
    options.intra_op_num_threads = torch.get_num_threads()
    settings: dict[str, Any] = dict(providers=list(providers), sess_options=options)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        try:
            return FaceAnalysis(name=str(name), **settings).models
        except AssertionError:  # it has looked for the files one folder too high
            folder = DOWNLOADS.expanduser() / name
    if not any(folder.glob("*.onnx")):  # the archive of antelopev2 has its files in a folder of its own
        folder = next((one.parent for one in sorted(folder.glob("*/*.onnx"))), folder)
    if has_model_package_manifest(str(folder)):
        return FaceAnalysis(name=str(folder), **settings).models
    # FaceAnalysis takes [brackets] in the path of a folder as a pattern, and then finds no files in it.
    found: list[Any] = [get_model(str(file), **settings) for file in sorted(folder.resolve().glob("*.onnx"))]
    return {model.taskname: model for model in reversed(found) if model is not None}  # the first of a task counts


def detection_size(image: np.ndarray) -> int:
    """The side to which a picture (H, W, 3) is scaled for the detector, a multiple of 32 in 128 … 640.

    Landmarks are most exact near the picture's own size. Below 128 pixels the detector would miss small faces.
    """
    return int(np.clip(-(-max(image.shape[:2]) // 32) * 32, 128, 640))


def load(picture) -> tuple[np.ndarray, float]:
    """A picture as uint8 RGB (H, W, 3) with no side above `LARGEST`, and the factor by which it was scaled (at most 1).

    Raises UserError for anything that is not a picture, and if a side is below `SMALLEST` after scaling.
    """
    image = np.asarray(open_picture(picture, "the picture"))
    height, width = image.shape[:2]
    ratio = min(1.0, LARGEST / max(height, width))
    if min(height, width) * ratio < SMALLEST:
        raise UserError(
            f"the picture has {width} x {height} pixels: give one with at least {SMALLEST} a side, and at most "
            f"{LARGEST // SMALLEST} times as long as wide"
        )
    if (image == image[:, :, :1]).all():
        warnings.warn(
            "the picture has no colours: only the brightness of hair, skin and eyes is left, so recognition is less "
            "reliable than in colour",
            stacklevel=3,
        )
    if ratio < 1:
        size = max(1, round(width * ratio)), max(1, round(height * ratio))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image, ratio


def save_recognizer(net: ArcFaceNet, folder: Path) -> None:
    """Write the recognizer, with rounded weights, as insightface loads an ArcFace."""
    import torch

    export(net, folder / RECOGNIZER, torch.zeros(1, 3, SIZE, SIZE), ["embedding"], {0: "batch"})
    update_json(folder / "config.json", "recognizer", net.sizes)


def save_detector(net: FaceDetector, folder: Path) -> None:
    """Write the detector, with rounded weights; insightface recognizes it by its nine outputs."""
    import torch

    names = [f"{kind}_{stride}" for kind in ("score", "box", "points") for stride in (8, 16, 32)]
    export(net, folder / DETECTOR, torch.zeros(1, 3, 128, 160), names, {2: "height", 3: "width"})
    update_json(folder / "config.json", "detector", net.sizes)


def save_landmarks(net: LandmarkNet, folder: Path) -> None:
    """Write the landmark network, with rounded weights; insightface recognizes it by its input of 192 pixels."""
    import torch

    export(net, folder / LANDMARKS, torch.zeros(1, 3, LANDMARK_SIZE, LANDMARK_SIZE), ["points"], {0: "batch"})
    update_json(folder / "config.json", "landmarks", net.sizes)


def update_json(path: Path, part: str, content: dict) -> None:
    """Set the entry of one part of a pack in a JSON file and keep those of the others."""
    try:
        known = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # missing or damaged
        known = {}
    write_json(path, dict(sorted({**known, part: dict(sorted(content.items()))}.items())), indent=2)


def load_recognizer(folder: Path = FOLDER) -> ArcFaceNet:
    """The recognizer of a pack as a torch network. Raises UserError if the pack has none."""
    return load_weights(ArcFaceNet(**_sizes(folder, "recognizer")), folder / RECOGNIZER)


def load_detector(folder: Path = FOLDER) -> FaceDetector:
    """The detector of a pack as a torch network. Raises UserError if the pack has none."""
    return load_weights(FaceDetector(**_sizes(folder, "detector")), folder / DETECTOR)


def load_landmarks(folder: Path = FOLDER) -> LandmarkNet:
    """The landmark network of a pack as a torch network. Raises UserError if the pack has none."""
    return load_weights(LandmarkNet(**_sizes(folder, "landmarks")), folder / LANDMARKS)


def _sizes(folder: Path, part: str) -> dict:
    try:
        return json.loads((Path(folder) / "config.json").read_text())[part]
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise UserError(
            f"{folder} has no config.json that names a {part} ({type(error).__name__}): give the folder of "
            "a pack, or train one with `python -m gen_affect_lib train-encoder identity`"
        ) from None
