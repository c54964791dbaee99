"""The pictures of an evaluation: the sets that a model generates, and the true drawings to compare them with.

A set shows one person with W expressions, generated from one reference picture with one sampling seed. All models
generate the same sets from the same noise, so two models can be compared picture by picture.

Letters: N people, S sampling seeds, W words, P pixels a side, M = S W pictures of each person.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal

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
from gen_affect_lib.files import atomic
from gen_affect_lib.keys import Producer

PLAN = Producer("evaluation plan", 1, uses=(FACTORS, DRAWING))  # references, target words, sampling seeds
GALLERY = 1000  # number of people among whom a person is retrieved

# reference uint8 (P, P, 3), words, sampling seed -> one picture for each word
Draw = Callable[[np.ndarray, Sequence[str], int], Sequence]


def spread_words(count: int) -> tuple[str, ...]:
    """`count` of the 135 words, spread over the tree: one of each of the 25 groups, then a second of each, and so on.

    Raises UserError for a count that is not from 1 to 135.
    """
    if not 1 <= count <= len(EMOTIONS):
        raise UserError(f"{count} words: give from 1 to {len(EMOTIONS)}")
    # Large groups come first, so that fewer words than groups cover more of the tree.
    rows = sorted(groups().values(), key=len, reverse=True)
    return tuple(word for word in chain.from_iterable(zip_longest(*rows)) if word)[:count]


@dataclass(frozen=True)
class Plan:
    """Which sets are generated: N people times S sampling seeds, W words each.

    The references have random appearances. Their expressions go through the 135 words from person to person, so a
    reference sometimes shows a target word.

    Attributes:
        people, words, seeds: N, W and S. Raises UserError unless they are from 1 to 1,000, 135 and 100.
        first_person: seed of the first person; the others have the next seeds.
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
    def target_words(self) -> tuple[str, ...]:
        """The W words of each set."""
        return spread_words(self.words)

    @cached_property
    def person_seeds(self) -> range:
        return range(self.first_person, self.first_person + self.people)

    @cached_property
    def identities(self) -> list[Identity]:
        return [Identity.sample(seed) for seed in self.person_seeds]

    @property
    def skin_thirds(self) -> np.ndarray:
        """Thirds of the skin tones of the people: int (N,)."""
        return third(np.array([identity.skin for identity in self.identities]))

    def targets(self, shuffle: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The target expressions of the M pictures of each person: indices of words, int (M,), and expression vectors,
        float32 (M, 21). With `shuffle`, each picture gets the target of another word of the plan."""
        words = np.roll(self.target_words, self.words // 2) if shuffle else np.array(self.target_words)
        vectors = np.stack([Expression.named(word).to_vector() for word in words])
        indices = np.array([EMOTIONS.index(word) for word in words])
        return np.tile(indices, self.seeds), np.tile(vectors, (self.seeds, 1))

    @cached_property
    def reference_vectors(self) -> np.ndarray:
        """The expression vectors of the references: float32 (N, 21)."""
        return np.stack([self._picture(seed).expression.to_vector() for seed in self.person_seeds])

    @cached_property
    def references(self) -> np.ndarray:
        """The reference pictures: uint8 (N, 64, 64, 3)."""
        return np.stack([self._picture(seed).render(SIZE) for seed in self.person_seeds])

    def gallery(self) -> np.ndarray:
        """The pictures among which a person is found: one of each of the N people, and of the next ones, 1,000 in all.

        uint8 (1000, 64, 64, 3). They show another expression and another appearance than the references: with the
        references themselves in the gallery, a copy of the reference would always be found.
        """
        people = range(self.first_person, self.first_person + GALLERY)
        return np.stack([self._picture(seed, 1).render(SIZE) for seed in people])

    def true_drawings(self, appearance: Literal["own", "shared", "other"] = "own", size: int = SIZE) -> np.ndarray:
        """True drawings of all sets, `size` pixels a side: uint8 (N, S, W, P, P, 3).

        appearance: "own": each picture has its own random appearance, like those of a model without conditioning on
            appearance. "other": the same with other random appearances. "shared": one appearance for each set.
        """
        images = np.empty((self.people, self.seeds, self.words, size, size, 3), np.uint8)
        for place, avatar in self.true_avatars(appearance):
            images[place] = avatar.render(size)
        return images

    def true_avatars(
        self, appearance: Literal["own", "shared", "other"] = "own"
    ) -> Iterator[tuple[tuple[int, int, int], Avatar]]:
        """The avatars of `true_drawings`, with their places (n, s, w)."""
        for n, (seed, identity) in enumerate(zip(self.person_seeds, self.identities)):
            for s in range(self.seeds):
                for w, word in enumerate(self.target_words):
                    place = 0 if appearance == "shared" else w
                    drawn_with = Appearance.sample(_appearance_seed(seed, s, place, appearance == "other"))
                    yield (n, s, w), Avatar(identity, Expression.named(word), drawn_with)

    def _picture(self, seed: int, number: int = 0) -> Avatar:
        """A picture of a person: 0 is the reference, 1 the one in the gallery."""
        # 37 and 135 are coprime, so all words occur equally often
        word = EMOTIONS[(37 * seed + 68 * number) % len(EMOTIONS)]
        appearance = Appearance.sample(picture_seed(seed, REFERENCE_PICTURES + number))
        return Avatar(Identity.sample(seed), Expression.named(word), appearance)


def _appearance_seed(person: int, s: int, w: int, other: bool) -> int:
    return int(np.random.SeedSequence([person, s, w, other]).generate_state(1)[0])


@dataclass(frozen=True)
class Sets:
    """The pictures that a model generated for a plan.

    Attributes:
        images: uint8 (N, S, W, P, P, 3), P the side of the model's pictures. Judges read them reduced to 64 pixels.
        seconds: (N,), for all pictures of each person.
    """

    images: np.ndarray
    seconds: np.ndarray


def draw_sets(draw: Draw, plan: Plan, folder: Path) -> Sets:
    """Generate all sets of a plan. Each person is saved in `folder`, so that an interrupted call can be resumed."""
    images, seconds = [], []
    for n, seed in enumerate(tqdm(plan.person_seeds, desc="Drawing sets", unit="person")):
        saved = folder / f"{seed}.npz"
        kept = _read_set(saved)
        if kept is None:
            start = time.perf_counter()
            sets = [
                [np.asarray(picture) for picture in draw(plan.references[n], plan.target_words, s)]
                for s in range(plan.seeds)
            ]
            took = time.perf_counter() - start
            with atomic(saved) as partial:
                np.savez_compressed(partial, images=np.array(sets), seconds=took)
            kept = np.array(sets), took
        images.append(kept[0])
        seconds.append(kept[1])
    return Sets(np.stack(images), np.array(seconds))


def _read_set(path: Path) -> tuple[np.ndarray, float] | None:
    """Pictures and seconds of one person; None if the file is missing or damaged, which its checksums show."""
    try:
        with np.load(path) as file:
            return file["images"], float(file["seconds"])
    except Exception:  # numpy and zipfile raise all kinds of errors
        return None


def drawn_by(pipeline: Callable, **settings) -> Draw:
    """The `Draw` function of a pipeline with these settings. The noise depends only on the sampling seed.

    The references are drawings, so nothing looks whether they are photographs.
    """

    def draw(reference, words, seed):
        generator = torch.Generator().manual_seed(seed)
        return pipeline(reference, list(words), generator=generator, as_drawn=True, **settings).images

    return draw
