"""Measures of face detection: average precision of the boxes, and the error of the landmarks.

Letters: F true faces and D detections of one picture. Boxes are x0, y0, x1, y1 in pixels.
"""

from __future__ import annotations

import numpy as np


def ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (D, 4) with boxes (F, 4): (D, F)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=-1)
    area_a, area_b = np.prod(a[:, 2:] - a[:, :2], axis=-1), np.prod(b[:, 2:] - b[:, :2], axis=-1)
    return both / np.maximum(area_a[:, None] + area_b[None] - both, 1e-9)


def match(found: np.ndarray, scores: np.ndarray, truth: np.ndarray, min_iou: float = 0.5) -> np.ndarray:
    """The true face (F, 4) that each detection (D, 4) is matched with, or -1: int (D,).

    Detections are matched in the order of their scores (D,), each with the free face of the largest overlap.
    """
    result, free = np.full(len(found), -1), np.ones(len(truth), bool)
    if not len(truth):
        return result
    table = ious(found, truth)
    for d in np.argsort(-scores, kind="stable"):
        row = np.where(free, table[d], -1)
        if row.max() >= min_iou:
            result[d] = row.argmax()
            free[result[d]] = False
    return result


def average_precision(scores: list[np.ndarray], matches: list[np.ndarray], faces: int) -> float:
    """Area under the precision-recall curve of all pictures, with precision made monotonic as in PASCAL VOC.

    Args:
        scores: (D,) for each picture.
        matches: what `match` returns for it.
        faces: number of true faces in all pictures.
    """
    order = np.argsort(-np.concatenate(scores), kind="stable")
    right = np.concatenate(matches)[order] >= 0
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(precision[right].sum() / faces)


def landmark_errors(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean distance of five landmarks (M, 5, 2) to the true ones, as a share of the true distance of the eyes: (M,)."""
    eyes = np.linalg.norm(truth[:, 1] - truth[:, 0], axis=-1)
    return np.linalg.norm(found - truth, axis=-1).mean(axis=1) / eyes
