"""How well embeddings tell people apart: finding a person among many, and accepting or refusing a claim.

Both take embeddings (N, E) of N people, one picture of each as the reference and another as the probe.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def similarities(reference: Tensor, probe: Tensor) -> Tensor:
    """Cosines, (N, N): row = probe, column = reference; the diagonal compares everybody with themselves."""
    return F.normalize(probe, dim=1) @ F.normalize(reference, dim=1).T


def hits(reference: Tensor, probe: Tensor) -> Tensor:
    """For each probe, whether the nearest reference is of the same person: bool (N,)."""
    table = similarities(reference, probe)
    return table.argmax(dim=1) == torch.arange(len(table))


def retrieval(reference: Tensor, probe: Tensor) -> float:
    """Top-1: the share of probes whose nearest reference among all N is the right one. Chance is 1 / N."""
    return hits(reference, probe).float().mean().item()


def threshold_at(reference: Tensor, probe: Tensor, false_accepts: float) -> float:
    """The cosine above which at most that share of the pairs of different people lies."""
    table = similarities(reference, probe)
    wrong = table[~torch.eye(len(table), dtype=torch.bool)].sort(descending=True).values
    return wrong[int(false_accepts * len(wrong))].item()


def verification(reference: Tensor, probe: Tensor, false_accepts: float = 1e-3) -> float:
    """TAR at FAR: the share of true claims accepted where that share of false claims is."""
    own = similarities(reference, probe).diagonal()
    return (own > threshold_at(reference, probe, false_accepts)).float().mean().item()
