"""Figures of an adapter on people whose photographs it was not trained on.

For each person one photograph is the reference; the base draws the person with several words. Then

- *identity*: the cosine of a drawn face to another photograph of the person, and how often the person is the nearest of
  all people. A judge that also conditions the adapter finds what it was shown, so another face pack should judge.
- *expression*: the difference between the action units that were asked for and those that are read from the picture,
  where the kit's reading of photographs is installed.

Three rows have the same figures: the adapter, the base without it (chance), and the people's own photographs.

Letters: N people, W words, P people in the gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from gen_affect_lib.avatars.folder import Entry
from gen_affect_lib.encoders.protocols import IdentityEncoder
from gen_affect_lib.errors import UserError
from gen_affect_lib.fullscale.faces import PhotoReader, read_expressions
from gen_affect_lib.machine import describe_machine

UNITS = 17  # the first numbers of an expression representation

# (reference, words) -> a picture for each word
Draw = Callable[[Path, Sequence[str]], list[Image.Image]]


@dataclass(frozen=True)
class Judge:
    """What reads the pictures that are scored.

    Attributes:
        faces: a face pack, if possible another than the one that conditions.
        reader: reads expressions; None: expressions are not scored.
        independent: whether `faces` took no part in the conditioning.
    """

    faces: IdentityEncoder
    reader: PhotoReader | None
    independent: bool

    def embedding(self, picture) -> np.ndarray | None:
        """The identity of the largest face, of norm 1; None if no face is found."""
        found = self.faces.read(picture)
        if not found:
            return None
        largest = max(found, key=lambda face: float(np.prod(face.box[2:] - face.box[:2])))
        tokens = np.asarray(largest.tokens[0], np.float64)
        return tokens / np.linalg.norm(tokens)


def people_of(entries: Sequence[Entry]) -> dict[str, list[Path]]:
    """Person -> photographs, for people with two or more. Raises UserError if there are none."""
    people: dict[str, list[Path]] = {}
    for entry in entries:
        people.setdefault(entry.identity, []).append(entry.path)
    several = {name: paths for name, paths in people.items() if len(paths) > 1}
    if not several:
        raise UserError("no person has two photographs: give at least two of each, one to draw from and one to compare")
    return several


def evaluate(ways: dict[str, Draw], judge: Judge, people: dict[str, list[Path]], words: Sequence[str]) -> dict:
    """The figures of each way of drawing, and of the people's own photographs.

    Args:
        ways: name -> how it draws.
        people: person -> photographs, of which the first is the reference and the second is compared with.

    Returns "words", "people", "machine", "judge_is_independent", and "rows": for each way "faces" (share of pictures in
    which one is found), "cosine", "cosine_to_others", "found", "of" (P), and "unit_error" where expressions are read.
    """
    gallery = {name: judge.embedding(paths[1]) for name, paths in people.items()}
    missing = [name for name, embedding in gallery.items() if embedding is None]
    if missing:
        raise UserError(f"no face found in {people[missing[0]][1]}: give another photograph, or leave the person out")
    others = np.stack([embedding for embedding in gallery.values() if embedding is not None])  # (P, E)
    asked = read_expressions(list(words), None)[:, :UNITS]
    rows = []
    for name, draw in ways.items():
        cosines, of_others, found, faces, errors = [], [], [], 0, []
        for number, paths in enumerate(tqdm(people.values(), desc=name, unit="person")):
            for picture, units in zip(draw(paths[0], words), asked, strict=True):
                embedding = judge.embedding(picture)
                faces += embedding is not None
                if embedding is not None:
                    similarity = others @ embedding  # (P,)
                    cosines.append(similarity[number])
                    of_others.append(np.delete(similarity, number).mean() if len(others) > 1 else np.nan)
                    found.append(similarity.argmax() == number)
                    if judge.reader is not None:
                        read = judge.reader(picture).expression.to_vector()[:UNITS]
                        errors.append(np.abs(read - units).mean())
                else:
                    found.append(False)
        row = {
            "name": name,
            "faces": faces / (len(people) * len(words)),
            "cosine": _mean(cosines),
            "cosine_to_others": _mean(of_others),
            "found": _mean(found),
            "of": len(people),
        }
        rows.append(row | ({} if judge.reader is None else {"unit_error": _mean(errors)}))
    return {
        "words": list(words),
        "people": list(people),
        "machine": describe_machine(),
        "judge_is_independent": judge.independent,
        "rows": rows,
    }


def _mean(values: list) -> float | None:
    return round(float(np.mean(values)), 4) if values and np.isfinite(values).all() else None


def say(result: dict) -> str:
    """The rows as text."""
    lines = (
        []
        if result["judge_is_independent"]
        else ["the judge of identity is the recognizer that conditions: optimistic"]
    )
    for row in result["rows"]:
        figures = [f"{name} {value:.3f}" for name, value in row.items() if isinstance(value, float)]
        lines.append(f"{row['name']:12} " + ", ".join(figures) + f" (among {row['of']} people)")
    return "\n".join(lines)
