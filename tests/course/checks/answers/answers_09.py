"""Answers to the exercises of notebook 09, as students write them."""

import numpy as np
import torch
import torch.nn.functional as F

from gen_affect_lib.model.attention import joint_attention
from gen_affect_lib.model.consistent import Replace
from tests.course.checks.answers import Answers


def attention(query, keys, values):
    """query (L, H, D), keys and values (K, H, D) -> (L, C), written out."""
    weights = (torch.einsum("lhd,khd->hlk", query, keys) / query.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("hlk,khd->lhd", weights, values).flatten(1)


# --- shared_attention ---


def by_index(image, condition, anchors, tokens, replace):
    outputs = []
    for b in range(len(image.key)):
        kept = [t for t in range(image.key.shape[1]) if replace == Replace.NOTHING or t not in tokens.tolist()]
        query = image.query[b].clone()
        if replace == "queries, keys and values":
            for place, t in enumerate(tokens):
                query[t] = anchors.query[b, place]
        keys, values = (torch.cat([z[b], y[b], x[b][kept]]) for x, y, z in zip(image[1:], condition[1:], anchors[1:]))
        outputs.append(attention(query, keys, values))
    return torch.stack(outputs)


def by_a_mask(image, condition, anchors, tokens, replace):
    B, L = image.key.shape[:2]
    keys, values = (torch.cat(parts, 1) for parts in zip(image[1:], condition[1:], anchors[1:]))
    mask = torch.ones(keys.shape[1], dtype=torch.bool)
    mask[tokens] = replace == Replace.NOTHING
    query = image.query.clone()
    if replace is Replace.QUERIES_KEYS_VALUES:
        query[:, tokens] = anchors.query
    out = F.scaled_dot_product_attention(
        *(x.movedim(1, 2) for x in (query, keys, values)), attn_mask=mask[None, None, None]
    )
    return out.movedim(1, 2).flatten(2)


def shared_with(
    drop=lambda replace: replace != Replace.NOTHING,
    change=lambda replace: replace == Replace.QUERIES_KEYS_VALUES,
    anchored=True,
    conditioned=True,
):
    def answer(image, condition, anchors, tokens, replace):
        keep = torch.ones(image.key.shape[1], dtype=torch.bool)
        if drop(replace):
            keep[tokens] = False
        query = image.query.index_copy(1, tokens, anchors.query) if change(replace) else image.query
        keys, values = [image.key[:, keep]], [image.value[:, keep]]
        for stream in [condition] * conditioned + [anchors] * anchored:
            keys.append(stream.key)
            values.append(stream.value)
        keys, values = torch.cat(keys, 1), torch.cat(values, 1)
        return torch.stack([attention(*rows) for rows in zip(query, keys, values)])

    return answer


def without_heads_joined(image, condition, anchors, tokens, replace):
    return by_index(image, condition, anchors, tokens, replace).unflatten(2, (2, -1))


# --- shared_tokens ---


def by_a_list(face, sigma, above=0.0, below=1.0, face_above=0.5):
    if sigma < above or sigma > below:
        return torch.tensor([], dtype=torch.long)
    everywhere = sigma > face_above or face_above == 0
    return torch.tensor(
        [k for k, inside in enumerate(face.flatten().tolist()) if everywhere or not inside], dtype=torch.long
    )


def by_arange(face, sigma, above=0.0, below=1.0, face_above=0.5):
    may = torch.full(face.shape, above <= sigma <= below)
    if face_above > 0 and not sigma > face_above:
        may = may & ~face
    return torch.arange(face.numel())[may.reshape(-1)]


def no_window(face, sigma, above=0.0, below=1.0, face_above=0.5):
    return by_a_list(face, sigma, 0.0, 1.0, face_above)


def no_edges(face, sigma, above=0.0, below=1.0, face_above=0.5):
    return by_a_list(face, sigma, above, below, face_above) if above < sigma < below else torch.zeros(0).long()


def other_way_round(face, sigma, above=0.0, below=1.0, face_above=0.5):
    early = sigma > face_above or face_above == 0
    may = ~face if early else torch.ones_like(face)
    return may.flatten().nonzero().squeeze(1) if above <= sigma <= below else torch.zeros(0).long()


def one_step_longer(face, sigma, above=0.0, below=1.0, face_above=0.5):
    may = ~face if face_above and sigma < face_above else torch.ones_like(face)
    return torch.where(may.flatten())[0] if above <= sigma <= below else torch.zeros(0).long()


def zero_forgotten(face, sigma, above=0.0, below=1.0, face_above=0.5):
    may = torch.ones_like(face) if sigma > face_above else ~face
    return torch.where(may.flatten())[0] if above <= sigma <= below else torch.zeros(0).long()


def only_the_face(face, sigma, above=0.0, below=1.0, face_above=0.5):
    may = face if face_above and sigma <= face_above else torch.ones_like(face)
    return torch.where(may.flatten())[0] if above <= sigma <= below else torch.zeros(0).long()


def never_the_face(face, sigma, above=0.0, below=1.0, face_above=0.5):
    return torch.where((~face).flatten())[0] if above <= sigma <= below else torch.zeros(0).long()


def no_mask(face, sigma, above=0.0, below=1.0, face_above=0.5):
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
    count, outputs = len(image.key) // len(key), []
    for b in range(len(image.key)):
        g = b // count
        outputs.append(
            attention(
                image.query[b],
                torch.cat([image.key[b], condition.key[b], key[g]]),
                torch.cat([image.value[b], condition.value[b], value[g]]),
            )
        )
    return torch.stack(outputs)


def read_with(index):
    """An answer with which image b of B attends to what was recorded under condition index(b, B, G)."""

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


def alternating(x, count):
    return torch.cat([x] * count)


def spread_by(spread_keys, spread_values):
    def answer(image, condition, key, value):
        count = len(image.key) // len(key)
        keys = torch.cat([image.key, condition.key, spread_keys(key, count)], 1)
        values = torch.cat([image.value, condition.value, spread_values(value, count)], 1)
        return torch.stack([attention(*rows) for rows in zip(image.query, keys, values)])

    return answer


# --- set_attention ---


def tokens_at(face, sigma):
    return (torch.ones_like(face) if sigma > 0.5 else ~face).flatten().nonzero()[:, 0]


def set_with(
    source=lambda g, n, N: g * N,
    row=lambda g, n, G, N: g * N + n,
    chosen=tokens_at,
    replace=Replace.QUERIES_KEYS_VALUES,
):
    def answer(image, condition, count, face, sigma):
        groups, tokens = len(image.key) // count, chosen(face, sigma)
        outputs = torch.empty(len(image.key), *image.key.shape[1:2], image.key[0, 0].numel(), dtype=image.key.dtype)
        for g in range(groups):
            for n in range(count):
                here = row(g, n, groups, count)
                there = row(g, 0, groups, count) if row(0, 1, groups, count) != 1 else source(g, n, count)
                given = (stream.map(lambda x: x[here : here + 1]) for stream in (image, condition))
                anchor = type(image)(*(x[there : there + 1, tokens] for x in image))
                outputs[here] = by_index(*given, anchor, tokens, replace)[0]
        return outputs

    return answer


picture_by_picture = set_with()


def picture_by_picture_with_queries(image, condition, count, face, sigma):
    """Needs queries of the condition, which the last block does not have."""
    own = type(condition)(*(x.clone() for x in condition))
    return picture_by_picture(image, own, count, face, sigma)


def in_one_call(image, condition, count, face, sigma):
    tokens = tokens_at(face, sigma)
    anchor = type(image)(*(x[::count][:, tokens].repeat_interleave(count, 0) for x in image))
    return by_a_mask(image, condition, anchor, tokens, Replace.QUERIES_KEYS_VALUES)


def words_shared(image, condition, count, face, sigma):
    """The word of the anchor is shared with everybody."""
    tokens = tokens_at(face, sigma)
    joined = [image.query[:, tokens], *(torch.cat([x[:, tokens], y], 1) for x, y in zip(image[1:], condition[1:]))]
    anchor = type(image)(*(x[::count].repeat_interleave(count, 0) for x in joined))
    return by_a_mask(image, condition, anchor, tokens, Replace.QUERIES_KEYS_VALUES)


ANSWERS = {
    "shared_attention": Answers(
        right=[by_index, by_a_mask],
        wrong=[
            (shared_with(anchored=False), "anchors' keys and values are missing"),
            (shared_with(conditioned=False), "the condition is missing"),
            (shared_with(drop=lambda replace: False), "the own keys and values at `tokens` stay"),
            (shared_with(drop=lambda replace: True), "even with `Replace.NOTHING`"),
            (shared_with(change=lambda replace: False), "the queries are not replaced"),
            (shared_with(change=lambda replace: replace != Replace.NOTHING), "keeps its own queries"),
            (shared_with(drop=lambda replace: False, change=lambda replace: False), "`replace` is not used"),
            (without_heads_joined, "the shape is"),
        ],
    ),
    "shared_tokens": Answers(
        right=[by_a_list, by_arange],
        wrong=[
            (no_window, "`above` and `below` are not used"),
            (no_edges, "the ends are included"),
            (other_way_round, "interchanged"),
            (one_step_longer, "at sigma = `face_above`"),
            (zero_forgotten, "with `face_above` 0 there is no mask"),
            (only_the_face, "only face tokens"),
            (never_the_face, "never shared"),
            (no_mask, "mask of the face is not"),
        ],
    ),
    "set_attention": Answers(
        right=[picture_by_picture, in_one_call],
        wrong=[
            (set_with(source=lambda g, n, N: 0), "first image of the *batch*"),
            (set_with(row=lambda g, n, G, N: n * G + g), "wrong order"),
            (set_with(chosen=lambda face, sigma: torch.arange(9)), "at every sigma"),
            (set_with(source=lambda g, n, N: g * N + max(n - 1, 0)), "the one before it"),
            (set_with(replace=Replace.NOTHING), "tokens are appended"),
            (set_with(replace=Replace.KEYS_VALUES), "queries are not"),
            (lambda image, condition, *_: joint_attention(image, condition)[0], "plain attention"),
            (picture_by_picture_with_queries, "but the last block"),
            (words_shared, "anchor's condition tokens"),  # the set agrees, in its expression too
        ],
    ),
    "pair_agreement": Answers(
        right=[by_two_loops, by_sums],
        wrong=[
            (with_the_diagonal, "themselves too, where they"),
            (pooled, "more weight"),
            (unseen_is_different, "as a disagreement"),
            (unseen_is_equal, "as an agreement"),
            (next_to_each_other, "only neighbours"),
            (with_the_first, "only the first"),
            (once_a_pair, "one direction"),
            (plain_mean, "the result is NaN"),
        ],
    ),
    "costly_decision": Answers(
        right=[lambda: "face", lambda: " Face"],
        wrong=[
            (lambda: "who", "`two`"),
            (lambda: "noise", "`no_noise`"),
            (lambda: "replace", "`beside`"),
            (lambda: 3, "return one of"),
        ],
    ),
    "read_bank": Answers(
        right=[one_by_one, by_expand],
        wrong=[
            (read_with(lambda b, B, G: b % G), "alternate, A B"),
            (read_with(lambda b, B, G: 0), "under the first condition"),
            (read_with(lambda b, B, G: G - 1 - b // (B // G)), "reversed"),
            (mean_of_conditions, "the mean over"),
            (spread_by(in_blocks, alternating), "values still alternate"),
            (spread_by(alternating, in_blocks), "keys still alternate"),
        ],
    ),
    "work_ratio": Answers(
        right=[lambda: 135 * (135 * 64 + 20) / (5 * (5 * 64 + 20)), lambda: 688],
        wrong=[
            (lambda: 27, "number of *queries*"),
            (lambda: 729, "if there were no condition"),
            (lambda: 8660 / 340, "*one* query"),
            (lambda: 10_000, "Derive it on paper"),
        ],
    ),
}
