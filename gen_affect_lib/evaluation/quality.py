"""Picture quality: do generated pictures look like drawings, and where not?

The judges' figures say whether a picture shows the right person and expression; they are near their ceiling also for
pictures that an eye finds wrong. The figures here compare pixels with true drawings, at the side of the model's
pictures. They are computed for generated pictures; for reconstructions of true drawings, decoded and refined from their
own latents, so that no error is the generator's; and for other true drawings, the ceiling.

Letters: N people, S sampling seeds, W words, M = S W pictures of each person, L pictures of each that are looked at in
detail, P pixels a side.
"""

from __future__ import annotations

import numpy as np
import torch
from tqdm.auto import tqdm

from gen_affect_lib.avatars import Expression
from gen_affect_lib.codec import LatentCodec, PixelCodec
from gen_affect_lib.evaluation.judges.networks import SIZE
from gen_affect_lib.evaluation.metrics.bootstrap import Statistic, ratio
from gen_affect_lib.evaluation.metrics.nearest import difference, strong_edges, true_faces
from gen_affect_lib.evaluation.metrics.small_things import HALF, THINGS, Drawn, face_error, has, read_things, tilt_of
from gen_affect_lib.evaluation.metrics.two_sample import LEAST_PICTURES, two_sample_test
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.tensors import to_images, to_tensor

LOOKED_AT = 12  # words of each person whose pictures are compared with their true drawings in detail
KINDS = ("generated", "reconstructed", "drawn")
Readings = dict[str, np.ndarray]  # name -> one number for each picture, (N, L)


def quality(generated: np.ndarray, pipeline: GenAffectPipeline, plan: Plan) -> dict[str, dict[str, Statistic]]:
    """The figures of picture quality, for each of KINDS.

    Args:
        generated: uint8 (N, S, W, P, P, 3), the pictures of a plan.
        pipeline: the one that generated them, with its face pack.
    """
    size = generated.shape[-2]
    drawings, others = (plan.true_drawings(appearance, size) for appearance in ("own", "other"))
    pictures = dict(zip(KINDS, (generated, reconstruct(pipeline, others, plan), others)))
    readings = look_at(pictures | {"true": drawings}, plan)
    figures = {kind: picture_figures(readings[kind], readings["true"], plan) for kind in KINDS}
    for kind in KINDS:
        figures[kind] = told_apart(pictures[kind], drawings) | figures[kind]
    return figures


def reconstruct(pipeline: GenAffectPipeline, images: np.ndarray, plan: Plan) -> np.ndarray:
    """What the pipeline would draw if its generator made the latents of `images`, uint8 (N, S, W, P, P, 3).

    Without a refiner these are the codec's reconstructions. A refiner reads the references and words of the plan.
    """
    if pipeline.refiner is None:
        return restore(pipeline.codec, images)
    assert pipeline.face_pack is not None
    shown = torch.from_numpy(pipeline.read_expressions(plan.target_words)).repeat(images.shape[1], 1)  # (S W, 48)
    parts = []
    for reference, pictures in zip(plan.references, images):
        tokens = torch.from_numpy(pipeline.face_pack.one(reference, "largest").tokens)[None].to(pipeline.device)
        true = to_tensor(pictures.reshape(-1, *pictures.shape[2:])).to(pipeline.device)  # (S, W, …) -> (S W, 3, P, P)
        with torch.no_grad():
            latents = pipeline.codec.encode(true)
            parts.append(to_images(pipeline.decode(latents, tokens, shown.to(pipeline.device), 1.0, 1.0)))
    return np.stack(parts).reshape(images.shape)


@torch.no_grad()
def restore(codec: PixelCodec | LatentCodec, images: np.ndarray) -> np.ndarray:
    """The codec's reconstructions of pictures uint8 (…, S, S, 3), of the same shape."""
    flat = images.reshape(-1, *images.shape[-3:])  # (…, S, S, 3) -> (M, S, S, 3)
    parts = [to_tensor(flat[start : start + 64]).to(codec.device) for start in range(0, len(flat), 64)]
    return np.concatenate([to_images(codec.decode(codec.encode(part))) for part in parts]).reshape(images.shape)


# --- the two-sample test ----------------------------------------------------------------------------------------------


def told_apart(pictures: np.ndarray, drawings: np.ndarray) -> dict[str, Statistic]:
    """Accuracy of the two-sample test, at the pictures' side and at 64 pixels.

    Empty for fewer than LEAST_PICTURES: the test would find too little, and its accuracy would look too good.

    pictures, drawings: uint8 (N, S, W, P, P, 3).
    """
    if np.prod(pictures.shape[:3]) < LEAST_PICTURES:
        return {}
    one, other = (part.reshape(len(part), -1, *part.shape[3:]) for part in (pictures, drawings))  # (N, M, P, P, 3)
    figures = {}
    size = pictures.shape[-2]
    for side in [size] if size == SIZE or size % SIZE else [size, SIZE]:
        verdicts = two_sample_test(reduced(one, side), reduced(other, side))
        figures[f"told_apart_{side}"] = ratio(verdicts.right, verdicts.tested)
    return figures


def reduced(images: np.ndarray, side: int) -> np.ndarray:
    """Pictures uint8 (…, P, P, 3) with the mean of each square as a pixel: uint8 (…, side, side, 3)."""
    block = images.shape[-2] // side
    if block == 1:
        return images
    squares = images.reshape(*images.shape[:-3], side, block, side, block, 3)
    return squares.mean(axis=(-4, -2), dtype=np.float32).round().astype(np.uint8)


# --- comparison with the true drawing ---------------------------------------------------------------------------------


def look_at(pictures: dict[str, np.ndarray], plan: Plan) -> dict[str, Readings]:
    """Measure the pictures of the first LOOKED_AT words, those of the first sampling seed.

    pictures: kind -> uint8 (N, S, W, P, P, 3).

    Returns, for each kind, these readings of each picture, (N, L):
        "nearest": the difference to the nearest of the true faces at nine tilts, see `nearest.difference`.
        "face": `small_things.face_error` to the true face at the picture's tilt; "floor": to that of the next word.
        "edges": share of pixels at strong edges.
        what `small_things.read_things` returns.
    """
    expressions = [Expression.named(word) for word in plan.target_words[:LOOKED_AT]]
    size = next(iter(pictures.values())).shape[-2]
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in pictures}
    for n, identity in enumerate(tqdm(plan.identities, desc="Comparing with drawings", unit="person")):
        faces = [true_faces(identity, expression, size) for expression in expressions]
        for w, (expression, following) in enumerate(zip(expressions, expressions[1:] + expressions[:1])):
            for kind, images in pictures.items():
                image = images[n, 0, w]
                tilt = tilt_of(image, faces[w], identity, expression)
                drawn, next_word = (Drawn(identity, one, tilt, size) for one in (expression, following))
                row = {
                    "nearest": difference(image, faces[w]),
                    "face": face_error(image, drawn),
                    "floor": face_error(image, next_word),
                    "edges": strong_edges(image),
                }
                rows[kind].append(row | read_things(image, drawn))
    return {
        kind: {name: np.array([row[name] for row in some]).reshape(plan.people, -1) for name in some[0]}  # (N, L)
        for kind, some in rows.items()
    }


def picture_figures(readings: Readings, true: Readings, plan: Plan) -> dict[str, Statistic]:
    """The figures of pictures, given the readings of true drawings of the same people and words.

    "face_difference": mean absolute difference to the true face at the nearest of nine tilts, in [0, 1].
    "face_share": difference to the true face at the picture's own tilt, only where the appearance changes nothing; 0 is
        that of true drawings, 1 that of another word's drawings.
    "edges": share of pixels at strong edges, divided by that of true drawings.
    "freckles", "frames", "curls", "folds": share of the pictures with at least half of the drawn contrast, among those
        in which the thing is to be seen.
    "earrings": pictures with the same earring at both ears, divided by those with any earring or by the expected
        number of them, whichever is larger; so missing earrings and single ones both lower it.
    "small_things": the mean of these five.
    "invented": share of the pictures of people without freckles or frames that show one of them.

    A figure is left out if nothing in the plan shows the thing, or if there is no other word.
    """
    own, ceiling, floor = (ratio(part) for part in (readings["face"], true["face"], true["floor"]))
    figures: dict[str, Statistic] = {
        "face_difference": ratio(readings["nearest"]),
        "face_share": lambda p: (own(p) - ceiling(p)) / max(floor(p) - ceiling(p), 1e-12),
        "edges": ratio(readings["edges"], true["edges"]),
    }
    if readings["face"].shape[1] < 2:  # there is no other word
        del figures["face_share"]
    things: dict[str, Statistic] = {}
    absent, invented = np.zeros_like(readings["edges"]), np.zeros_like(readings["edges"])  # pictures (N, L)
    for thing in THINGS:
        visible = ~np.isnan(readings[thing])
        found = readings[thing] >= HALF  # False where it is nan
        if thing in ("freckles", "frames"):
            without = np.array([not has(thing, identity) for identity in plan.identities])[:, None]
            absent += visible & without
            invented += found & without
            visible &= ~without
        if visible.any():
            things[thing] = ratio(found & visible, visible)
    if true["earrings"].any():
        pairs, worn, expected = (ratio(part) for part in (readings["pair"], readings["earrings"], true["earrings"]))
        things["earrings"] = lambda p: pairs(p) / max(worn(p), expected(p), 1e-12)
    figures |= things
    if things:
        figures["small_things"] = lambda p: float(np.mean([figure(p) for figure in things.values()]))
    if absent.any():
        figures["invented"] = ratio(invented, absent)
    return figures
