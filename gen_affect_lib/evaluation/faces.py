"""The figures of the face pack: how well it finds faces, and how well it knows people, each also by skin tone.

Which people are meant is said by the first seed: 1,000,000 on for choosing anything, 2,000,000 on for what is reported.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gen_affect_lib.avatars import Identity
from gen_affect_lib.avatars.landmarks import landmarks
from gen_affect_lib.avatars.scenes import scene
from gen_affect_lib.avatars.splits import SEEDS_PER_SPLIT
from gen_affect_lib.encoders.detector import FaceDetector, decode, to_input
from gen_affect_lib.encoders.identity import ArcFaceNet, embed
from gen_affect_lib.encoders.landmark_net import LandmarkNet, find_landmarks
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.evaluation.metrics.detection import average_precision, ious, landmark_errors, match
from gen_affect_lib.evaluation.metrics.recognition import hits, similarities, threshold_at
from gen_affect_lib.evaluation.metrics.skin import THIRDS, third
from gen_affect_lib.training.identity_data import draw, portrait

SURE = 0.5  # a detection that counts as one, as in insightface


def by_tone(values: np.ndarray, tones: np.ndarray) -> dict[str, float]:
    """Means of values (M,) for each third of the tones that occurs, and the gap between the best and the worst."""
    means = {name: float(np.mean(values[tones == k])) for k, name in enumerate(THIRDS) if (tones == k).any()}
    return {**means, "gap": max(means.values()) - min(means.values())}


def recognition_figures(reference: Tensor, probe: Tensor, skins: np.ndarray) -> dict:
    """Retrieval and verification of N people from embeddings (N, E) of two pictures each."""
    found = hits(reference, probe).numpy()
    accepted = (similarities(reference, probe).diagonal() > threshold_at(reference, probe, 1e-3)).numpy()
    tones = third(skins)
    return {
        "people": len(found),
        "top1": float(found.mean()),
        "top1_by_tone": by_tone(found, tones),
        "tar_at_far_1e-3": float(accepted.mean()),
        "tar_by_tone": by_tone(accepted, tones),
    }


def measure_recognizer(net: ArcFaceNet, first_seed: int, people: int = 1000) -> dict:
    """Recognition on two pictures of each person, with other expression and appearance, for each of the two views.

    The pictures have 64 to 192 pixels a side, and the landmarks are the true ones, shaken as in training.
    """
    seeds = range(first_seed, first_seed + people)
    skins = np.array([Identity.sample(seed).skin for seed in seeds])
    pictures = np.stack([[draw(seed, k)[0] for k in range(2)] for seed in seeds])  # (N, 2, V, 112, 112, 3)
    figures = {}
    for v, view in enumerate(("crop", "wide")):
        reference, probe = (embed(net, np.ascontiguousarray(pictures[:, k, v])) for k in range(2))
        figures[view] = recognition_figures(reference, probe, skins)
    return figures


def measure_pack(faces: FacePack, first_seed: int, people: int = 1000) -> dict:
    """Recognition as it is in use: two portraits of each person, found, aligned and compared by insightface.

    A person with a portrait in which no face was found counts as not recognized.
    """
    seeds = range(first_seed, first_seed + people)
    skins = np.array([Identity.sample(seed).skin for seed in seeds])
    embeddings, errors = np.zeros((people, 2, 512), np.float32), []
    for n, seed in enumerate(seeds):
        for k in range(2):
            avatar, side = portrait(seed, k)
            found = faces.read(avatar.render(side))
            if found:
                surest = max(found, key=lambda face: face.score)
                embeddings[n, k] = surest.embedding
                errors.append(landmark_errors(surest.landmarks[None], landmarks(avatar)[None] * side)[0])
    return {
        "found": float((np.linalg.norm(embeddings, axis=2) > 0).mean()),
        "landmark_error": float(np.mean(errors)),
        **recognition_figures(*torch.from_numpy(embeddings).unbind(1), skins),
    }


@torch.no_grad()
def detect(net: FaceDetector, image: np.ndarray, least: float = 0.02, joint: float = 0.4, most: int = 300):
    """Faces of a picture, uint8 RGB (H, W, 3), both multiples of 32: scores (D,), boxes (D, 4), points (D, 5, 2).

    Of boxes that overlap by more than `joint`, the surest stays, as in insightface; `most` are looked at.
    """
    scores, boxes, points = (x[0].numpy() for x in decode(net(to_input(image[None])), *image.shape[:2]))
    order = np.argsort(-scores, kind="stable")
    order, kept = order[scores[order] >= least][:most], []
    while len(order):
        kept.append(order[0])
        order = order[1:][ious(boxes[order[:1]], boxes[order[1:]])[0] <= joint]
    return scores[kept], boxes[kept], points[kept]


def measure_detector(
    net: FaceDetector, first_person: int, scenes: int = 500, second_look: LandmarkNet | None = None
) -> dict:
    """Detection on scenes of 256 pixels with people from `first_person` on.

    With a second look, the landmarks are those that it gives for the boxes found.
    """
    scores, matches, sure, errors, tones, found_tones, false = [], [], [], [], [], [], 0
    for k in range(scenes):
        s = scene(k, first_person, SEEDS_PER_SPLIT // 2)
        score, boxes, points = detect(net, s.image)
        pairs = match(boxes, score, s.boxes)
        scores.append(score)
        matches.append(pairs)
        right = (pairs >= 0) & (score >= SURE)
        false += int(((pairs < 0) & (score >= SURE)).sum())
        points = points[right] if second_look is None else find_landmarks(second_look, s.image, boxes[right])
        errors.append(landmark_errors(points, s.points[pairs[right]]))
        found_tones.append(third(s.skins)[pairs[right]])
        sure.append(np.isin(np.arange(len(s.boxes)), pairs[right]))
        tones.append(third(s.skins))
    errors, tones = np.concatenate(errors), np.concatenate(tones)
    return {
        "scenes": scenes,
        "faces": len(tones),
        "ap50": average_precision(scores, matches, len(tones)),
        "found": float(np.concatenate(sure).mean()),
        "found_by_tone": by_tone(np.concatenate(sure), tones),
        "false_alarms": false,
        "landmark_error": float(errors.mean()) if len(errors) else float("nan"),
        "landmark_error_by_tone": by_tone(errors, np.concatenate(found_tones)) if len(errors) else {},
    }
