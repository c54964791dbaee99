"""Answers to the exercises of notebook 05, as students write them."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.course.checks.answers import Answers

# --- similarity ---


def umeyama(points, places, sign=True):
    mean_x, mean_y = points.mean(0), places.mean(0)
    x, y = points - mean_x, places - mean_y
    U, S, V = np.linalg.svd(y.T @ x / len(points))
    D = np.eye(2)
    if sign and np.linalg.det(U @ V) < 0:
        D[1, 1] = -1
    R = U @ D @ V
    scale = (S * np.diag(D)).sum() / (x**2).sum(axis=1).mean()
    return np.hstack([scale * R, (mean_y - scale * R @ mean_x)[:, None]])


def four_unknowns(points, places):
    rows, wanted = [], []
    for (x, y), (u, v) in zip(points, places):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        wanted += [u, v]
    p, q, s, t = np.linalg.lstsq(np.array(rows, float), np.array(wanted, float), rcond=None)[0]
    return np.array([[p, -q, s], [q, p, t]])


def polyfit(points, places):
    a, b = np.polyfit(points[:, 0] + 1j * points[:, 1], places[:, 0] + 1j * places[:, 1], 1)
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def mirroring(points, places):
    return umeyama(points, places, sign=False)


def six_unknowns(points, places):
    ones = np.c_[points, np.ones(len(points))]
    return (np.linalg.pinv(ones) @ places).T


def _parts(points, places):
    z, w = points[:, 0] + 1j * points[:, 1], places[:, 0] + 1j * places[:, 1]
    return z, w, z.mean(), w.mean()


def _rows(a, b):
    return np.array([[np.real(a), -np.imag(a), np.real(b)], [np.imag(a), np.real(a), np.imag(b)]])


def without_centring(points, places):
    z, w, mz, mw = _parts(points, places)
    a = (z.conj() * w).sum() / (abs(z) ** 2).sum()
    return _rows(a, mw - a * mz)


def no_conjugate(points, places):
    z, w, mz, mw = _parts(points, places)
    a = ((z - mz) @ (w - mw)) / (abs(z - mz) ** 2).sum()
    return _rows(a, mw - a * mz)


def conjugate_of_the_places(points, places):
    z, w, mz, mw = _parts(points, places)
    a = np.vdot(w - mw, z - mz) / (abs(z - mz) ** 2).sum()
    return _rows(a, mw - a * mz)


def shift_of_the_means(points, places):
    z, w, mz, mw = _parts(points, places)
    a = ((z - mz).conj() @ (w - mw)) / (abs(z - mz) ** 2).sum()
    return _rows(a, mw - mz)


def transposed(points, places):
    z, w, mz, mw = _parts(points, places)
    a = ((z - mz).conj() @ (w - mw)) / (abs(z - mz) ** 2).sum()
    b = mw - a * mz
    return np.array([[a.real, a.imag, b.real], [-a.imag, a.real, b.imag]])


def rigid(points, places):
    z, w, mz, mw = _parts(points, places)
    a = np.exp(1j * np.angle((z - mz).conj() @ (w - mw)))
    return _rows(a, mw - a * mz)


def the_way_back(points, places):
    return polyfit(places, points)


# --- ArcFaceLoss ---


class Base(nn.Module):
    def __init__(self, people, embedding=512, margin=0.4, scale=32.0):
        super().__init__()
        self.margin, self.scale = margin, scale
        self.directions = nn.Parameter(torch.randn(people, embedding) * 0.05)

    def cosines(self, embeddings):
        return F.linear(F.normalize(embeddings, dim=1), F.normalize(self.directions, dim=1))


class ByAcos(Base):
    def forward(self, embeddings, person, warmth=1.0):
        cosine, m, rows = self.cosines(embeddings), warmth * self.margin, torch.arange(len(person))
        angle = cosine[rows, person].clamp(-1 + 1e-6, 1 - 1e-6).acos()
        wanted = torch.where(angle + m < math.pi, (angle + m).cos(), angle.cos() - m * math.sin(m))
        logits = cosine.clone()
        logits[rows, person] = wanted
        return F.cross_entropy(logits * self.scale, person)


class ByOneHot(Base):
    def forward(self, embeddings, person, warmth=1.0):
        cosine = self.cosines(embeddings)
        mine, m = F.one_hot(person, cosine.shape[1]).bool(), self.margin * warmth
        safe = cosine.clamp(-0.999999, 0.999999)
        moved = safe * math.cos(m) - torch.sqrt(1 - safe**2) * math.sin(m)
        moved = torch.where(safe > math.cos(math.pi - m), moved, safe - m * math.sin(m))
        logits = self.scale * torch.where(mine, moved, cosine)
        return (logits.logsumexp(1) - logits[mine]).mean()


class CosFace(Base):
    def forward(self, embeddings, person, warmth=1.0):
        cosine = self.cosines(embeddings)
        return F.cross_entropy(
            self.scale * (cosine - warmth * self.margin * F.one_hot(person, cosine.shape[1])), person
        )


class AddedToTheCosine(Base):
    def forward(self, embeddings, person, warmth=1.0):
        cosine = self.cosines(embeddings)
        return F.cross_entropy(
            self.scale * (cosine + warmth * self.margin * F.one_hot(person, cosine.shape[1])), person
        )


class OnAllClasses(Base):
    def forward(self, embeddings, person, warmth=1.0):
        m, angle = warmth * self.margin, self.cosines(embeddings).clamp(-1 + 1e-6, 1 - 1e-6).acos()
        line = angle.cos() - m * math.sin(m)
        return F.cross_entropy(self.scale * torch.where(angle < math.pi - m, torch.cos(angle + m), line), person)


class NoScale(ByAcos):
    def forward(self, embeddings, person, warmth=1.0):
        self.scale = 1.0
        return super().forward(embeddings, person, warmth)


class NoLine(Base):
    def forward(self, embeddings, person, warmth=1.0):
        cosine = self.cosines(embeddings)
        harder = (cosine.gather(1, person[:, None]).clamp(-1 + 1e-6, 1 - 1e-6).acos() + warmth * self.margin).cos()
        return F.cross_entropy(self.scale * cosine.scatter(1, person[:, None], harder), person)


class Easier(Base):
    def forward(self, embeddings, person, warmth=1.0):
        cosine = self.cosines(embeddings)
        harder = (cosine.gather(1, person[:, None]).clamp(-1 + 1e-6, 1 - 1e-6).acos() - warmth * self.margin).cos()
        return F.cross_entropy(self.scale * cosine.scatter(1, person[:, None], harder), person)


class EasierWithItsLine(Base):
    def forward(self, embeddings, person, warmth=1.0):
        cosine, m = self.cosines(embeddings), warmth * self.margin
        right = cosine.gather(1, person[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        changed = right * math.cos(m) + (1 - right**2).sqrt() * math.sin(m)
        changed = torch.where(right > -math.cos(m), changed, right - m * math.sin(m))
        return F.cross_entropy(self.scale * cosine.scatter(1, person[:, None], changed), person)


class CosFaceWithALine(Base):
    def forward(self, embeddings, person, warmth=1.0):
        cosine, m = self.cosines(embeddings), warmth * self.margin
        right = cosine.gather(1, person[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        changed = torch.where(right > -math.cos(m), right - m, right - m * math.sin(m))
        return F.cross_entropy(self.scale * cosine.scatter(1, person[:, None], changed), person)


class OnAllClassesWithoutALine(Base):
    def forward(self, embeddings, person, warmth=1.0):
        angle = self.cosines(embeddings).clamp(-1 + 1e-6, 1 - 1e-6).acos()
        return F.cross_entropy(self.scale * torch.cos(angle + warmth * self.margin), person)


class ColumnsOfLength1(ByAcos):
    def cosines(self, embeddings):
        return F.normalize(embeddings, dim=0) @ F.normalize(self.directions, dim=0).T


class Cold(ByAcos):
    def forward(self, embeddings, person, warmth=1.0):
        return super().forward(embeddings, person)


class LongEmbeddings(ByAcos):
    def cosines(self, embeddings):
        return embeddings @ F.normalize(self.directions).T


class NoClamp(Base):
    def forward(self, embeddings, person, warmth=1.0):
        cosine, m = self.cosines(embeddings), warmth * self.margin
        right = cosine.gather(1, person[:, None])
        harder = right * math.cos(m) - (1 - right**2).sqrt() * math.sin(m)
        harder = torch.where(right > -math.cos(m), harder, right - m * math.sin(m))
        return F.cross_entropy(self.scale * cosine.scatter(1, person[:, None], harder), person)


class Detached(Base):
    def forward(self, embeddings, person, warmth=1.0):
        with torch.no_grad():
            return ByAcos.forward(self, embeddings, person, warmth)


# --- threshold_at ---


def by_topk(reference, probe, false_accepts):
    a, b = (x / x.norm(dim=1, keepdim=True) for x in (reference, probe))
    table = b @ a.T
    table.fill_diagonal_(-9)
    n = len(table) * (len(table) - 1)
    return table.flatten().topk(int(n * false_accepts) + 1).values[-1].item()


def by_numpy(reference, probe, false_accepts):
    table = torch.cosine_similarity(probe[:, None], reference[None], dim=2).numpy()
    strangers = sorted((table[i, j] for i in range(len(table)) for j in range(len(table)) if i != j), reverse=True)
    return float(strangers[math.floor(false_accepts * len(strangers))])


def _strangers(reference, probe):
    table = F.normalize(probe) @ F.normalize(reference).T
    return table[torch.eye(len(table)) == 0]


def all_pairs(reference, probe, false_accepts):
    x = (F.normalize(probe) @ F.normalize(reference).T).flatten().sort(descending=True)[0]
    return x[int(false_accepts * len(x))].item()


def true_claims(reference, probe, false_accepts):
    x = (F.normalize(probe) * F.normalize(reference)).sum(1).sort(descending=True)[0]
    return x[int(false_accepts * len(x))].item()


def any_length(reference, probe, false_accepts):
    x = (probe @ reference.T)[~torch.eye(len(probe)).bool()].sort(descending=True)[0]
    return x[int(false_accepts * len(x))].item()


def from_below(reference, probe, false_accepts):
    x = _strangers(reference, probe).sort()[0]
    return x[int(false_accepts * len(x))].item()


def one_early(reference, probe, false_accepts):
    x = _strangers(reference, probe).sort(descending=True)[0]
    return x[max(int(false_accepts * len(x)) - 1, 0)].item()


def one_early_from_the_end(reference, probe, false_accepts):
    x = _strangers(reference, probe).sort(descending=True)[0]
    return x[int(false_accepts * len(x)) - 1].item()


def rounded_up(reference, probe, false_accepts):
    x = _strangers(reference, probe).sort(descending=True)[0]
    return x[math.ceil(false_accepts * len(x))].item()


def rounded_to_the_nearest(reference, probe, false_accepts):
    x = _strangers(reference, probe).sort(descending=True)[0]
    return x[round(false_accepts * len(x))].item()


def by_percentile(reference, probe, false_accepts):
    return float(np.percentile(_strangers(reference, probe).numpy(), 100 * (1 - false_accepts)))


# --- ious ---


def one_by_one(a, b):
    table = np.zeros((len(a), len(b)))
    for i, (left, top, right, bottom) in enumerate(a):
        for j, (x, y, u, v) in enumerate(b):
            both = max(0, min(right, u) - max(left, x)) * max(0, min(bottom, v) - max(top, y))
            table[i, j] = both / ((right - left) * (bottom - top) + (u - x) * (v - y) - both)
    return table


def by_torchvision_style(a, b):
    area_a, area_b = ((x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b))
    low, high = np.maximum(a[:, np.newaxis, :2], b[:, :2]), np.minimum(a[:, np.newaxis, 2:], b[:, 2:])
    sides = (high - low).clip(min=0)
    both = sides[:, :, 0] * sides[:, :, 1]
    return both / (area_a[:, np.newaxis] + area_b - both)


def _sides(a, b):
    return np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])


def _areas(a, b):
    return np.prod(a[:, 2:] - a[:, :2], axis=1)[:, None] + np.prod(b[:, 2:] - b[:, :2], axis=1)


def as_it_was(a, b):
    return _sides(a, b).prod(-1) / _areas(a, b)


def only_clipped(a, b):
    return np.maximum(_sides(a, b), 0).prod(-1) / _areas(a, b)


def only_the_union(a, b):
    both = _sides(a, b).prod(-1)
    return both / (_areas(a, b) - both)


def area_clipped(a, b):
    both = np.maximum(_sides(a, b).prod(-1), 0)
    return both / (_areas(a, b) - both)


def result_clipped(a, b):
    both = _sides(a, b).prod(-1)
    return np.maximum(both / (_areas(a, b) - both), 0)


def result_between_0_and_1(a, b):
    return np.clip(as_it_was(a, b), 0, 1)


def over_the_smaller(a, b):
    areas = [(x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b)]
    return np.maximum(_sides(a, b), 0).prod(-1) / np.minimum(areas[0][:, None], areas[1])


def by_abs(a, b):
    both = np.abs(_sides(a, b)).prod(-1)
    return both / (_areas(a, b) - both)


# --- suppress ---


def by_striking_out(boxes, scores, joint=0.4):
    table, alive, kept = one_by_one(boxes, boxes), np.ones(len(boxes), bool), []
    while alive.any():
        best = int(np.where(alive, scores, -np.inf).argmax())
        kept.append(best)
        alive &= table[best] <= joint
    return np.array(kept)


def by_asking_the_kept(boxes, scores, joint=0.4):
    table, kept = one_by_one(boxes, boxes), []
    for k in sorted(range(len(scores)), key=lambda k: scores[k], reverse=True):
        if all(table[k, other] <= joint for other in kept):
            kept.append(k)
    return np.asarray(kept)


def least_sure_first(boxes, scores, joint=0.4):
    return by_asking_the_kept(boxes, -scores, joint)


def as_they_came(boxes, scores, joint=0.4):
    return by_asking_the_kept(boxes, -np.arange(len(scores)), joint)


def beaten_by_the_beaten(boxes, scores, joint=0.4):
    table = one_by_one(boxes, boxes)
    beaten = ((table > joint) & (scores[None, :] > scores[:, None])).any(axis=1)
    return np.array([k for k in np.argsort(-scores) if not beaten[k]])


def in_the_sorted_list(boxes, scores, joint=0.4):
    order = np.argsort(-scores)
    return by_asking_the_kept(boxes[order], scores[order], joint)


def ascending(boxes, scores, joint=0.4):
    return np.array(sorted(by_asking_the_kept(boxes, scores, joint)))


def half_always(boxes, scores, joint=0.4):
    return by_asking_the_kept(boxes, scores, 0.5)


def boxes_themselves(boxes, scores, joint=0.4):
    return boxes[by_asking_the_kept(boxes, scores, joint)]


ANSWERS = {
    "similarity": Answers(
        right=[umeyama, four_unknowns, polyfit],
        wrong=[
            (mirroring, "mirror the face: where the determinant"),
            (six_unknowns, "six free numbers"),
            (without_centring, "not centred"),
            (no_conjugate, "not conjugated"),
            (conjugate_of_the_places, "belongs to `points`"),
            (shift_of_the_means, "before the rotation"),
            (transposed, "signs of the two"),
            (rigid, "always 1"),
            (the_way_back, "the inverse"),
        ],
    ),
    "ArcFaceLoss": Answers(
        right=[ByAcos, ByOneHot],
        wrong=[
            (CosFace, "CosFace"),
            (AddedToTheCosine, "easier and not harder"),
            (OnAllClasses, "every person"),
            (NoScale, "scale is missing"),
            (NoLine, "beyond π"),
            (Easier, "count as *larger*"),
            (EasierWithItsLine, "makes the angle smaller"),
            (CosFaceWithALine, "That is CosFace"),
            (OnAllClassesWithoutALine, "only the column"),
            (ColumnsOfLength1, "each *row* should"),
            (Cold, "`warmth` is not used"),
            (LongEmbeddings, "lengths matter"),
            (NoClamp, "not a number"),
            (Detached, "gradients are not"),
        ],
    ),
    "largest_margin": Answers(
        right=[lambda: math.radians(45), lambda: 0.785],
        wrong=[
            (lambda: 45, "in degrees"),
            (lambda: math.pi / 8, "half the gap"),
            (lambda: math.pi / 2, "four people"),
            (lambda: 0.5, "still classified correctly"),
            (lambda: 0.8, "only just"),
            (lambda: 3, "Derive it on paper"),
        ],
    ),
    "threshold_at": Answers(
        right=[by_topk, by_numpy],
        wrong=[
            (all_pairs, "the diagonal"),
            (true_claims, "*true* claims"),
            (any_length, "any length"),
            (from_below, "the other way"),
            (one_early, "too early"),
            (one_early_from_the_end, "only k − 1 others"),
            (rounded_up, "rounded *down*"),
            (rounded_to_the_nearest, "no whole number of claims"),
            (by_percentile, "interpolates"),
        ],
    ),
    "ious": Answers(
        right=[one_by_one, by_torchvision_style],
        wrong=[
            (as_it_was, "nothing is changed"),
            (only_clipped, "counted twice"),
            (only_the_union, "two negative sides, and"),
            (area_clipped, "the *area* is clipped"),
            (result_clipped, "only the *result*"),
            (result_between_0_and_1, "count the intersection once"),
            (over_the_smaller, "the smaller of the two"),
            (by_abs, "`abs`"),
        ],
    ),
    "suppress": Answers(
        right=[by_striking_out, by_asking_the_kept],
        wrong=[
            (least_sure_first, "the lowest scores"),
            (as_they_came, "in which they came: process"),
            (beaten_by_the_beaten, "still removes others"),
            (in_the_sorted_list, "positions in the sorted"),
            (ascending, "right boxes are kept"),
            (half_always, "`joint` is not used"),
            (boxes_themselves, "shape is"),
        ],
    ),
}
