"""Accuracy of the face pack in detection and recognition, with every figure also by skin tone.

The people are those from a first seed on: 1,000,000 for validation, 2,000,000 for reported figures.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gen_affect_lib.avatars import Identity
from gen_affect_lib.avatars.landmarks import landmarks
from gen_affect_lib.avatars.scenes import scene
from gen_affect_lib.encoders.detector import FaceDetector, decode, to_input
from gen_affect_lib.encoders.identity import ArcFaceNet, embed
from gen_affect_lib.encoders.landmark_net import LandmarkNet, find_landmarks
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.evaluation.metrics.detection import average_precision, ious, landmark_errors, match
from gen_affect_lib.evaluation.metrics.recognition import hits, similarities, threshold_at
from gen_affect_lib.evaluation.metrics.skin import means_by_third, third
from gen_affect_lib.training.identity_data import draw, portrait

SCORE_THRESHOLD = 0.5  # detections with at least this score count, as in insightface


def recognition_figures(reference: Tensor, probe: Tensor, skins: np.ndarray) -> dict:
    """Retrieval and verification from embeddings (N, E) of two pictures of each of N people with skin tones (N,)."""
    found = hits(reference, probe).numpy()
    accepted = (similarities(reference, probe).diagonal() > threshold_at(reference, probe, 1e-3)).numpy()
    thirds = third(skins)
    return {
        "people": len(found),
        "top1": float(found.mean()),
        "top1_by_tone": means_by_third(found, thirds),
        "tar_at_far_1e-3": float(accepted.mean()),
        "tar_by_tone": means_by_third(accepted, thirds),
    }


def measure_recognizer(net: ArcFaceNet, first_seed: int, people: int = 1000) -> dict:
    """`recognition_figures` of the recognizer, for each of the views "crop" and "wide".

    Each person has two pictures of 64 to 192 pixels a side, with different expressions and appearances. They are
    aligned by the true landmarks with the jitter of training.
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
    """Recognition as at inference: insightface detects, aligns and embeds the faces of two portraits of each person.

    "found" is the share of portraits with a detected face, "landmark_error" the mean error as of `landmark_errors`, the
    rest `recognition_figures`. A person with a portrait without a detected face counts as not recognised.
    """
    seeds = range(first_seed, first_seed + people)
    skins = np.array([Identity.sample(seed).skin for seed in seeds])
    embeddings, errors = np.zeros((people, 2, 512), np.float32), []
    for n, seed in enumerate(seeds):
        for k in range(2):
            avatar, side = portrait(seed, k)
            found = faces.read(avatar.render(side))
            if found:
                best = max(found, key=lambda face: face.score)
                embeddings[n, k] = best.embedding
                errors.append(landmark_errors(best.landmarks[None], landmarks(avatar)[None] * side)[0])
    reference, probe = torch.from_numpy(embeddings).unbind(1)
    return {
        "found": float((np.linalg.norm(embeddings, axis=2) > 0).mean()),
        "landmark_error": float(np.mean(errors)),
        **recognition_figures(reference, probe, skins),
    }


@torch.no_grad()
def detect(
    net: FaceDetector, image: np.ndarray, min_score: float = 0.02, max_iou: float = 0.4, max_faces: int = 300
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detect the faces of a picture, with non-maximum suppression.

    Args:
        image: uint8 RGB (H, W, 3), H and W multiples of 32.
        min_score: weaker detections are dropped.
        max_iou: of two boxes that overlap by more, the one with the lower score is dropped, as in insightface.
        max_faces: detections considered, the best first.
    Returns:
        Scores (D,), boxes (D, 4) and landmarks (D, 5, 2), the best first.
    """
    scores, boxes, points = (x[0].numpy() for x in decode(net(to_input(image[None])), *image.shape[:2]))
    order = np.argsort(-scores, kind="stable")
    order, kept = order[scores[order] >= min_score][:max_faces], []
    while len(order):
        kept.append(order[0])
        order = order[1:][ious(boxes[order[:1]], boxes[order[1:]])[0] <= max_iou]
    return scores[kept], boxes[kept], points[kept]


def measure_detector(
    net: FaceDetector, first_person: int, scenes: int = 500, landmark_net: LandmarkNet | None = None
) -> dict:
    """Detection on scenes of 256 pixels with people from `first_person` on.

    Landmarks are those of the detector, or with `landmark_net` those that this network finds in the detected boxes.
    """
    scores, matches, found, errors, tones, found_tones, false = [], [], [], [], [], [], 0
    for k in range(scenes):
        s = scene(k, first_person, people=500_000)
        score, boxes, points = detect(net, s.image)
        pairs = match(boxes, score, s.boxes)
        scores.append(score)
        matches.append(pairs)
        right = (pairs >= 0) & (score >= SCORE_THRESHOLD)
        false += int(((pairs < 0) & (score >= SCORE_THRESHOLD)).sum())
        points = points[right] if landmark_net is None else find_landmarks(landmark_net, s.image, boxes[right])
        errors.append(landmark_errors(points, s.points[pairs[right]]))
        found_tones.append(third(s.skins)[pairs[right]])
        found.append(np.isin(np.arange(len(s.boxes)), pairs[right]))
        tones.append(third(s.skins))
    errors, tones = np.concatenate(errors), np.concatenate(tones)
    return {
        "scenes": scenes,
        "faces": len(tones),
        "ap50": average_precision(scores, matches, len(tones)),
        "found": float(np.concatenate(found).mean()),
        "found_by_tone": means_by_third(np.concatenate(found), tones),
        "false_alarms": false,
        "landmark_error": float(errors.mean()) if len(errors) else float("nan"),
        "landmark_error_by_tone": means_by_third(errors, np.concatenate(found_tones)) if len(errors) else {},
    }
