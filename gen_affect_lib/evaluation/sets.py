"""What is drawn for an evaluation: people never trained on, words spread over the tree, and beside them the truth.

A *set* is one person with one expression after the other, drawn from one reference with one seed of the noise. The same
plan asks every model for the same sets from the same noise, so that two models can be compared pair by pair.

Letters: N people, S sampling seeds, W words, P pixels a side.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from gen_affect_lib.avatars import EMOTIONS, Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.drawing import DRAWING
from gen_affect_lib.avatars.emotions import groups
from gen_affect_lib.avatars.factors import FACTORS
from gen_affect_lib.avatars.splits import REFERENCE_PICTURES, REPORT_SEED, picture_seed
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.judges.networks import SIZE
from gen_affect_lib.evaluation.metrics.skin import third
from gen_affect_lib.keys import Producer

# What a plan asks for: references, words and seeds of the noise.
PLAN = Producer("evaluation plan", 1, uses=(FACTORS, DRAWING))

GALLERY = 1000  # people among whom somebody is to be found

# reference uint8 (P, P, 3), words, seed of the noise -> one picture for each word
Draw = Callable[[np.ndarray, Sequence[str], int], Sequence]


def spread_words(count: int) -> tuple[str, ...]:
    """So many of the 135 words, spread over the tree: one of each of the 25 groups, then a second of each, and so on.

    Raises UserError for a count that is not from 1 to 135.
    """
    if not 1 <= count <= len(EMOTIONS):
        raise UserError(f"{count} words: there are from 1 to {len(EMOTIONS)}")
    # Large groups first: with fewer words than groups the whole tree is still better covered by them.
    rows = sorted(groups().values(), key=len, reverse=True)
    return tuple(word for word in chain.from_iterable(zip_longest(*rows)) if word)[:count]


@dataclass(frozen=True)
class Plan:
    """Which sets are drawn. `first_person` is the seed of the first of N people.

    The reference shows each person in clothes of its own, and with a word of its own, whatever is asked for: all 135 take
    turns from person to person, so that now and then it is one of those asked for.
    """

    people: int = 100
    words: int = 27
    seeds: int = 2
    first_person: int = REPORT_SEED

    def __post_init__(self):
        spread_words(self.words)
        for name, most in (("people", GALLERY), ("seeds", 100)):
            if not 1 <= getattr(self, name) <= most:
                raise UserError(f"{getattr(self, name)} {name}: give from 1 to {most}")

    @cached_property
    def asked(self) -> tuple[str, ...]:
        return spread_words(self.words)

    @cached_property
    def persons(self) -> range:
        return range(self.first_person, self.first_person + self.people)

    @cached_property
    def identities(self) -> list[Identity]:
        return [Identity.sample(seed) for seed in self.persons]

    @property
    def tones(self) -> np.ndarray:
        """Thirds of the skin tones, int (N,)."""
        return third(np.array([identity.skin for identity in self.identities]))

    def targets(self, shuffle: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """What the M = S W pictures of each person should show: the words' places among the 135, int (M,), and their 21
        numbers, float32 (M, 21). With `shuffle`, those of other words of the plan."""
        asked = np.roll(self.asked, self.words // 2) if shuffle else np.array(self.asked)
        vectors = np.stack([Expression.named(word).to_vector() for word in asked])
        words = np.array([EMOTIONS.index(word) for word in asked])
        return np.tile(words, self.seeds), np.tile(vectors, (self.seeds, 1))

    @cached_property
    def shown(self) -> np.ndarray:
        """What the faces of the references do: float32 (N, 21)."""
        return np.stack([self._reference(seed).expression.to_vector() for seed in self.persons])

    @cached_property
    def references(self) -> np.ndarray:
        """uint8 (N, P, P, 3)"""
        return np.stack([self._reference(seed).render(SIZE) for seed in self.persons])

    def gallery(self) -> np.ndarray:
        """The references, and a picture of each of the next people, 1,000 in all: uint8 (1000, P, P, 3)."""
        others = range(self.persons.stop, self.first_person + GALLERY)
        return np.concatenate([self.references, *(self._reference(seed).render(SIZE)[None] for seed in others)])

    def truth(self, look: str = "own") -> np.ndarray:
        """True drawings of all sets: uint8 (N, S, W, P, P, 3).

        look: "own" gives each picture clothes and a background of its own, as a model draws them that is told of none;
            "other" does so again, with others; with "one" all pictures of a set share them.
        """
        images = np.empty((self.people, self.seeds, self.words, SIZE, SIZE, 3), np.uint8)
        for n, (seed, identity) in enumerate(zip(self.persons, self.identities)):
            for s in range(self.seeds):
                for w, word in enumerate(self.asked):
                    dressed = Appearance.sample(_look_seed(seed, s, 0 if look == "one" else w, look == "other"))
                    images[n, s, w] = Avatar(identity, Expression.named(word), dressed).render(SIZE)
        return images

    def _reference(self, seed: int) -> Avatar:
        word = EMOTIONS[37 * seed % len(EMOTIONS)]  # no common divisor: all words take turns
        return Avatar(
            Identity.sample(seed), Expression.named(word), Appearance.sample(picture_seed(seed, REFERENCE_PICTURES))
        )


def _look_seed(person: int, s: int, w: int, other: bool) -> int:
    return int(np.random.SeedSequence([person, s, w, other]).generate_state(1)[0])


@dataclass(frozen=True)
class Sets:
    """What somebody drew: `images` uint8 (N, S, W, P, P, 3) and `seconds` (N,), for all pictures of each person."""

    images: np.ndarray
    seconds: np.ndarray


def draw_sets(draw: Draw, plan: Plan, folder: Path) -> Sets:
    """Draw all sets of a plan, person by person, each kept in `folder` as it is done: what was interrupted goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    images, seconds = [], []
    for n, seed in enumerate(tqdm(plan.persons, desc="Drawing sets", unit="person")):
        kept = folder / f"{seed}.npz"
        if not kept.is_file():
            start = time.perf_counter()
            sets = [[np.asarray(p) for p in draw(plan.references[n], plan.asked, s)] for s in range(plan.seeds)]
            took = time.perf_counter() - start
            partial = kept.with_suffix(".partial.npz")
            np.savez_compressed(partial, images=np.array(sets), seconds=took)
            os.replace(partial, kept)
        with np.load(kept) as file:
            images.append(file["images"])
            seconds.append(float(file["seconds"]))
    return Sets(np.stack(images), np.array(seconds))


def drawn_by(pipeline, **settings) -> Draw:
    """A pipeline as `draw_sets` asks for it, called with these settings. The noise of a set depends on its seed alone."""

    def draw(reference, words, seed):
        return pipeline(reference, list(words), generator=torch.Generator().manual_seed(seed), **settings).images

    return draw
