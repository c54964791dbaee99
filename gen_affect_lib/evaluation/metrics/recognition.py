"""Face recognition from embeddings: retrieval (who is it?) and verification (is it this person?).

All functions take embeddings (N, E) of N people: one picture of each as the reference, another as the probe.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def similarities(reference: Tensor, probe: Tensor) -> Tensor:
    """Cosines (N, N), a row for each probe, a column for each reference; the diagonal compares the same people."""
    return F.normalize(probe, dim=1) @ F.normalize(reference, dim=1).T


def hits(reference: Tensor, probe: Tensor) -> Tensor:
    """For each probe, whether the nearest reference shows the same person: bool (N,)."""
    table = similarities(reference, probe)
    return table.argmax(dim=1) == torch.arange(len(table))


def retrieval(reference: Tensor, probe: Tensor) -> float:
    """Top-1 accuracy: the share of `hits`. Chance is 1 / N."""
    return hits(reference, probe).float().mean().item()


def threshold_at(reference: Tensor, probe: Tensor, false_accepts: float) -> float:
    """The cosine that at most a share `false_accepts` of the pairs of different people exceeds."""
    table = similarities(reference, probe)
    wrong = table[~torch.eye(len(table), dtype=torch.bool)].sort(descending=True).values
    return wrong[int(false_accepts * len(wrong))].item()


def verification(reference: Tensor, probe: Tensor, false_accepts: float = 1e-3) -> float:
    """TAR at FAR: the share of pairs of the same person above the threshold at this false accept rate."""
    own = similarities(reference, probe).diagonal()
    return (own > threshold_at(reference, probe, false_accepts)).float().mean().item()
