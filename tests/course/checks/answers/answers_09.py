"""Answers to the exercises of notebook 09, as students write them."""

import numpy as np
import torch
import torch.nn.functional as F

from tests.course.checks.answers import Answers


def attention(query, keys, values):
    """query (L, H, D), keys and values (K, H, D) -> (L, C), written out."""
    weights = (torch.einsum("lhd,khd->hlk", query, keys) / query.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("hlk,khd->lhd", weights, values).flatten(1)


# --- shared ---


def by_index(image, condition, one, lenders, lent, instead):
    lent, L = torch.tensor(lent, dtype=torch.long), image.key.shape[1]
    places = [(one, t) for t in range(L) if not (instead and one >= lenders and t in lent)]
    places += [(n, int(t)) for n in range(lenders) for t in lent if n != one]
    n, t = torch.tensor(places).T
    return attention(
        image.query[one],
        torch.cat([condition.key[one], image.key[n, t]]),
        torch.cat([condition.value[one], image.value[n, t]]),
    )


def by_a_mask(image, condition, one, lenders, lent, instead):
    N, L = image.key.shape[:2]
    seen = torch.zeros(N, L, dtype=torch.bool)
    seen[:lenders, lent] = True
    seen[one] = True
    if instead and one >= lenders:
        seen[one, lent] = False
    keys, values = (torch.cat([x.flatten(0, 1), c[one]]) for x, c in zip(image[1:], condition[1:]))
    mask = torch.cat([seen.flatten(), torch.ones(len(condition.key[one]), dtype=torch.bool)])
    out = F.scaled_dot_product_attention(
        image.query[one].movedim(1, 0), keys.movedim(1, 0), values.movedim(1, 0), attn_mask=mask[None, None]
    )
    return out[0].movedim(0, 1).flatten(1) if out.ndim == 4 else out.movedim(0, 1).flatten(1)


def shared_with(
    own=lambda one, lenders, instead: instead and one >= lenders,
    whose=lambda one, lenders, N: [n for n in range(lenders) if n != one],
    private=True,
    all_tokens=False,
):
    def answer(image, condition, one, lenders, lent, instead):
        keep = torch.ones(image.key.shape[1], dtype=torch.bool)
        if own(one, lenders, instead):
            keep[lent] = False
        keys, values = [image.key[one][keep], condition.key[one]], [image.value[one][keep], condition.value[one]]
        for n in whose(one, lenders, len(image.key)):
            keys.append(image.key[n] if all_tokens else image.key[n][lent])
            values.append(image.value[n] if all_tokens else image.value[n][lent])
            if not private:
                keys.append(condition.key[n])
                values.append(condition.value[n])
        return attention(image.query[one], torch.cat(keys), torch.cat(values))

    return answer


def with_the_batch_left_on(image, condition, one, lenders, lent, instead):
    return by_index(image, condition, one, lenders, lent, instead)[None]


# --- lending ---


def by_a_list(face, sigma, above=0.0, below=1.0, face_above=0.15):
    if sigma < above or sigma > below:
        return torch.tensor([], dtype=torch.long)
    everywhere = sigma > face_above or face_above == 0
    return torch.tensor(
        [k for k, inside in enumerate(face.flatten().tolist()) if everywhere or not inside], dtype=torch.long
    )


def by_arange(face, sigma, above=0.0, below=1.0, face_above=0.15):
    may = torch.full(face.shape, above <= sigma <= below)
    if face_above > 0 and not sigma > face_above:
        may = may & ~face
    return torch.arange(face.numel())[may.reshape(-1)]


def no_window(face, sigma, above=0.0, below=1.0, face_above=0.15):
    return by_a_list(face, sigma, 0.0, 1.0, face_above)


def no_edges(face, sigma, above=0.0, below=1.0, face_above=0.15):
    return by_a_list(face, sigma, above, below, face_above) if above < sigma < below else torch.zeros(0).long()


def other_way_round(face, sigma, above=0.0, below=1.0, face_above=0.15):
    early = sigma > face_above or face_above == 0
    may = ~face if early else torch.ones_like(face)
    return may.flatten().nonzero().squeeze(1) if above <= sigma <= below else torch.zeros(0).long()


def one_step_longer(face, sigma, above=0.0, below=1.0, face_above=0.15):
    may = ~face if face_above and sigma < face_above else torch.ones_like(face)
    return torch.where(may.flatten())[0] if above <= sigma <= below else torch.zeros(0).long()


def zero_forgotten(face, sigma, above=0.0, below=1.0, face_above=0.15):
    may = torch.ones_like(face) if sigma > face_above else ~face
    return torch.where(may.flatten())[0] if above <= sigma <= below else torch.zeros(0).long()


def only_the_face(face, sigma, above=0.0, below=1.0, face_above=0.15):
    may = face if face_above and sigma <= face_above else torch.ones_like(face)
    return torch.where(may.flatten())[0] if above <= sigma <= below else torch.zeros(0).long()


def never_the_face(face, sigma, above=0.0, below=1.0, face_above=0.15):
    return torch.where((~face).flatten())[0] if above <= sigma <= below else torch.zeros(0).long()


def no_mask(face, sigma, above=0.0, below=1.0, face_above=0.15):
    return torch.arange(face.numel()) if above <= sigma <= below else torch.zeros(0).long()


# --- pair_agreement ---


def by_two_loops(same):
    shares = []
    for i in range(len(same)):
        for j in range(len(same)):
            if i != j:
                shares.append(np.mean([x for x in same[i, j] if not np.isnan(x)]))
    return np.mean(shares)


def by_sums(same):
    each = np.nansum(same, 2) / (~np.isnan(same)).sum(2)
    W = len(same)
    return (each.sum() - np.trace(each)) / (W * (W - 1))


def with_the_diagonal(same):
    return np.nanmean(np.nanmean(same, -1))


def pooled(same):
    W = len(same)
    return np.nanmean([same[i, j] for i in range(W) for j in range(W) if i != j])


def unseen_is_different(same):
    return by_two_loops(np.where(np.isnan(same), 0, same))


def unseen_is_equal(same):
    return by_two_loops(np.where(np.isnan(same), 1, same))


def next_to_each_other(same):
    return np.mean([np.nanmean(same[k - 1, k]) for k in range(len(same))])


def with_the_first(same):
    return np.mean([np.nanmean(same[0, k]) for k in range(1, len(same))])


def once_a_pair(same):
    W = len(same)
    return np.mean([np.nanmean(same[i, j]) for i in range(W) for j in range(i + 1, W)])


def plain_mean(same):
    return np.mean([same[i, j].mean() for i in range(len(same)) for j in range(len(same)) if i != j])


# --- read_bank ---


def one_by_one(image, condition, key, value):
    count, seen = len(image.key) // len(key), []
    for b in range(len(image.key)):
        g = b // count
        seen.append(
            attention(
                image.query[b],
                torch.cat([image.key[b], condition.key[b], key[g]]),
                torch.cat([image.value[b], condition.value[b], value[g]]),
            )
        )
    return torch.stack(seen)


def read_with(index):
    """An answer with which borrower b of B reads what was lent under condition index(b, B, G)."""

    def answer(image, condition, key, value):
        B, G = len(image.key), len(key)
        which = torch.tensor([index(b, B, G) for b in range(B)])
        keys, values = (
            torch.cat([image.key, condition.key, key[which]], 1),
            torch.cat([image.value, condition.value, value[which]], 1),
        )
        return torch.stack([attention(*rows) for rows in zip(image.query, keys, values)])

    return answer


def by_expand(image, condition, key, value):
    count = len(image.key) // len(key)
    key, value = (x[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1) for x in (key, value))
    return torch.stack(
        [
            attention(*rows)
            for rows in zip(
                image.query,
                torch.cat([key, image.key, condition.key], 1),
                torch.cat([value, image.value, condition.value], 1),
            )
        ]
    )


def mean_of_conditions(image, condition, key, value):
    return one_by_one(image, condition, key.mean(0, True).expand_as(key), value.mean(0, True).expand_as(value))


def in_blocks(x, count):
    return x.repeat_interleave(count, 0)


def in_turns(x, count):
    return torch.cat([x] * count)


def spread_by(spread_keys, spread_values):
    def answer(image, condition, key, value):
        count = len(image.key) // len(key)
        keys = torch.cat([image.key, condition.key, spread_keys(key, count)], 1)
        values = torch.cat([image.value, condition.value, spread_values(value, count)], 1)
        return torch.stack([attention(*rows) for rows in zip(image.query, keys, values)])

    return answer


ANSWERS = {
    "shared": Answers(
        right=[by_index, by_a_mask],
        wrong=[
            (shared_with(private=False), "They are private"),
            (shared_with(whose=lambda one, lenders, N: [n for n in range(N) if n != one]), "all other images lend"),
            (shared_with(whose=lambda one, lenders, N: range(lenders)), "borrows from itself"),
            (shared_with(own=lambda one, lenders, instead: False), "`instead` is not used"),
            (shared_with(own=lambda one, lenders, instead: instead), "the lenders lose"),
            (shared_with(all_tokens=True), "all tokens of the lenders"),
            (with_the_batch_left_on, "the shape is"),
        ],
    ),
    "lending": Answers(
        right=[by_a_list, by_arange],
        wrong=[
            (no_window, "the window is not used"),
            (no_edges, "edges of the window"),
            (other_way_round, "changed places"),
            (one_step_longer, "alone already"),
            (zero_forgotten, "at 0 there is no mask"),
            (only_the_face, "all that lends"),
            (never_the_face, "never lends"),
            (no_mask, "mask of the face is not"),
        ],
    ),
    "pair_agreement": Answers(
        right=[by_two_loops, by_sums],
        wrong=[
            (with_the_diagonal, "themselves too, and there"),
            (pooled, "more weight"),
            (unseen_is_different, "as a disagreement"),
            (unseen_is_equal, "as an agreement"),
            (next_to_each_other, "only neighbours"),
            (with_the_first, "only the first"),
            (once_a_pair, "one direction"),
            (plain_mean, "NaN comes back"),
        ],
    ),
    "as_good_as_alone": Answers(
        right=[lambda: "mask_50", lambda: " Mask_50"],
        wrong=[
            (lambda: "two", "`two` agrees well"),
            (lambda: "share_50", "further to the right"),
            (lambda: "ceiling", "true drawings"),
            (lambda: "noise", "no variant of ours"),
            (lambda: 3, "return one of"),
        ],
    ),
    "read_bank": Answers(
        right=[one_by_one, by_expand],
        wrong=[
            (read_with(lambda b, B, G: b % G), "take turns, A B"),
            (read_with(lambda b, B, G: 0), "under the first condition"),
            (read_with(lambda b, B, G: G - 1 - b // (B // G)), "reversed"),
            (mean_of_conditions, "the mean over"),
            (spread_by(in_blocks, in_turns), "values still take turns"),
            (spread_by(in_turns, in_blocks), "keys still take turns"),
        ],
    ),
    "work_ratio": Answers(
        right=[lambda: 135 * (135 * 16 + 16) / (5 * (5 * 16 + 16)), lambda: 612],
        wrong=[
            (lambda: 27, "more *queries*"),
            (lambda: 729, "if there were no condition"),
            (lambda: 2176 / 96, "*one* query"),
            (lambda: 10_000, "too large"),
        ],
    ),
}
