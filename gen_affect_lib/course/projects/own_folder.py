"""Project: avatars of one's own folder of photographs, with a better likeness.

The answer is a folder and a function from a face (`photo.reading.Seen`: landmarks, pixels and the kit's reading) to an
avatar. It is compared with `shipped`, the kit's own likeness, on rendered heads (`photo.heads`) of which everything is
known, two photographs each in different light. Two things count: whether the avatar of one photograph is nearest to
that of the other among the avatars of all people, and whether its factors are right. Avatars are compared as the face
pack sees them, drawn without expression and in the plain look.

Nothing of a photograph is written: a report holds drawn avatars, names of files and their sources.

    folder/sources.csv        a line for each photograph: file, source, licence, consent
    folder/PERSON/FILE        the photographs of one person
    folder/FILE               a person with one photograph

Letters: N people, K known factors.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from gen_affect_lib.avatars.colors import HAIR, luminance
from gen_affect_lib.avatars.drawing import Avatar
from gen_affect_lib.avatars.factors import ACTION_UNITS, Expression, Identity
from gen_affect_lib.avatars.splits import FIRST_SEED, picture_seed
from gen_affect_lib.course.projects.report import Criterion, Report, gain, kept, reached
from gen_affect_lib.display import grid
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.metrics.bootstrap import Statistic, difference, estimate, ratio
from gen_affect_lib.files import atomic
from gen_affect_lib.machine import describe_machine
from gen_affect_lib.paths import OUTPUTS
from gen_affect_lib.photo.heads import Person, Scene, render_head
from gen_affect_lib.photo.landmarker import FaceLandmarker
from gen_affect_lib.photo.reading import Seen, see_photo
from gen_affect_lib.pictures import open_picture, save_picture
from gen_affect_lib.training.photo import correlations

Likeness = Callable[[Seen], Avatar]

SOURCES, COLUMNS = "sources.csv", ("file", "source", "licence", "consent")
MOST_FILES = 200
LOOK = 96  # pixels of the side of an avatar that is compared
U = len(ACTION_UNITS)


def shipped(seen: Seen) -> Avatar:
    """The baseline: the avatar that the kit reads."""
    return seen.reading.avatar


# --- a folder --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photo:
    """One photograph that was read. person: the name of its folder, or of the file where it lies in none."""

    person: str
    name: str
    seen: Seen


@dataclass(frozen=True)
class Folder:
    """What a folder holds.

    Attributes:
        photos: in the order of their names.
        problems: one line for each file that could not be read, and for each line of sources.csv without a file.
        sources: of each photograph, by its name; only lines in which no entry is empty.
    """

    photos: tuple[Photo, ...]
    problems: tuple[str, ...] = ()
    sources: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class OwnFolder:
    """The answer. likeness: from a face to an avatar. folder: of photographs, its path or what `read_folder` gave; None
    for the rendered heads alone.
    """

    likeness: Likeness
    folder: Folder | Path | str | None = None


def read_folder(folder: Path | str, landmarker: FaceLandmarker | None = None) -> Folder:
    """Read every photograph of a folder, see the head of this module. Of several faces the largest is read.

    Raises UserError for what is no folder, for one without a readable photograph and for more than MOST_FILES files.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give a folder with a subfolder of photographs for each person")
    files = sorted(
        path
        for path in [*folder.glob("*"), *folder.glob("*/*")]
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    files = [path for path in files if path != folder / SOURCES]
    if len(files) > MOST_FILES:
        raise UserError(f"{folder.name} has {len(files)} files: give at most {MOST_FILES}")
    landmarker = landmarker or FaceLandmarker.load()
    photos, problems = [], []
    for path in files:
        name = path.relative_to(folder).as_posix()
        try:
            with Image.open(path) as opened:
                picture = open_picture(opened, name)
            seen = see_photo(picture, which="largest", landmarker=landmarker, name=name)
        except UserError as error:
            problems.append(str(error) if name in str(error) else f"{name}: {error}")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            problems.append(f"{name} is no picture that can be read: give a whole PNG or JPEG, or remove it")
        else:
            person = name.split("/")[0] if "/" in name else path.stem
            photos.append(Photo(person, name, seen))
    if not photos:
        said = f"; the first problem: {problems[0]}" if problems else ""
        raise UserError(f"{folder.name} has no photograph that can be read{said}")
    sources, wrong = read_sources(folder / SOURCES, [path.relative_to(folder).as_posix() for path in files])
    return Folder(tuple(photos), (*problems, *wrong), sources)


def read_sources(path: Path, names: Sequence[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The complete lines of sources.csv by file, and a line for each problem in it."""
    if not path.is_file():
        return {}, [f"{SOURCES} is missing: write a line for each photograph, {', '.join(COLUMNS)}"]
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return {}, [f"{SOURCES} cannot be read ({type(error).__name__}): save it as UTF-8 with commas"]
    missing = [column for column in COLUMNS if rows and column not in rows[0]]
    if missing:
        return {}, [f"{SOURCES} has no column {', '.join(missing)}: its first line is {','.join(COLUMNS)}"]
    sources, problems = {}, []
    for number, row in enumerate(rows, 2):
        entries = {column: (row[column] or "").strip() for column in COLUMNS}
        empty = [column for column in COLUMNS if not entries[column]]
        if empty:
            problems.append(f"{SOURCES}, line {number}: {', '.join(empty)} is empty")
        elif entries["file"] not in names:
            problems.append(f"{SOURCES}, line {number}: there is no file {entries['file']}")
        else:
            sources[entries["file"]] = entries
    return sources, problems


def example_folder(profile: str = "laptop") -> Path:
    """A folder of rendered heads in the outputs, for those who have no photographs: nobody was photographed."""
    people = {"smoke": 3}.get(profile, 6)
    folder = OUTPUTS / "projects" / "example_folder" / str(people)
    lines = []
    for n in range(people):
        for k in range(2):
            name = f"head_{n}/{k}.png"
            if not (folder / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                save_picture(Image.fromarray(photograph(FIRST_SEED["validation"] + 500 + n, k)[0]), folder / name)
            lines.append((name, "rendered by the kit (data/heads)", "CC0 1.0", "nobody was photographed"))
    with atomic(folder / SOURCES) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *lines])
    return folder


# --- rendered heads, of which everything is known --------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """A rendered person with two photographs, and the true expression on each."""

    person: Person
    seen: tuple[Seen, Seen]
    truth: tuple[Expression, Expression]


def photograph(seed: int, k: int) -> tuple[np.ndarray, Expression]:
    """Photograph k of a rendered person, uint8 (256, 256, 3), and its expression: none on 0, a mixture on the others.

    Each has a scene of its own: light, background, clothes, distance.
    """
    place = picture_seed(seed, k)
    expression = Expression.neutral()
    if k:
        rng = np.random.default_rng([32, place])
        units = (rng.random(U) < 0.2) * rng.uniform(0.3, 1, U)
        units[ACTION_UNITS.index(43)] = 0  # closed eyes hide their colour
        expression = Expression.from_vector([*units, *np.clip(rng.normal(0, 0.3, 4), -1, 1)])
    return render_head(Person.sample(seed), expression, Scene.sample(place)), expression


@lru_cache(maxsize=4)
def heads(first: int, count: int) -> tuple[Head, ...]:
    """The rendered people from seed `first` on. Those of whom a photograph cannot be read are left out."""
    landmarker, found = FaceLandmarker.load(), []
    for seed in range(first, first + count):
        taken = [photograph(seed, k) for k in range(2)]
        try:
            one, other = (see_photo(picture, "largest", landmarker, f"head {seed}") for picture, _ in taken)
        except UserError:
            continue
        found.append(Head(Person.sample(seed), (one, other), (taken[0][1], taken[1][1])))
    return tuple(found)


HAIR_LENGTH = {"none": 0, "shaved": 1, "short": 2, "full": 3, "long": 4}
DRAWN_LENGTH = {"bald": 0, "buzz": 1, "curly": 3, "afro": 3} | dict.fromkeys(
    ("bob", "long", "wavy", "bun", "ponytail", "braids", "headscarf"), 4
)  # the others are 2
BEARDS = {"none": 0.0, "stubble": 0.5, "moustache": 0.5, "goatee": 0.5, "beard": 1.0}


def known(person: Person) -> dict[str, float]:
    """What is known of a rendered person and has a counterpart among the factors: K numbers by name."""
    return {
        "skin": person.tone,
        "brow thickness": person.brow[0],
        "brow arch": person.brow[2],
        "length of the hair": HAIR_LENGTH[person.hair_style],
        "lightness of the hair": float(np.log(person.hair.mean())),
        "beard": person.beard,
    }


def drawn(identity: Identity) -> dict[str, float]:
    """The counterparts of `known` in the factors of an avatar. Only their order counts, since r is measured."""
    return {
        "skin": identity.skin,
        "brow thickness": identity.brow_thickness,
        "brow arch": identity.brow_arch,
        "length of the hair": float(DRAWN_LENGTH.get(identity.hair_style, 2)),
        "lightness of the hair": float(np.log(luminance(HAIR[identity.hair_color]))),
        "beard": BEARDS[identity.facial_hair],
    }


# --- what is measured ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _pack() -> FacePack:
    return FacePack()


def embedding(identity: Identity) -> np.ndarray:
    """The identity tokens of the avatar without expression, in the plain look: float (E,), of norm 1."""
    tokens = _pack().one(Avatar(identity).render(LOOK), which="largest", name="the avatar").tokens.ravel()
    return tokens / np.linalg.norm(tokens)


def avatar_of(likeness: Likeness, seen: Seen, name: str) -> Avatar:
    """What a likeness makes of a face. Raises UserError of one line for anything that is no avatar."""
    try:
        avatar = likeness(seen)
    except Exception as error:
        raise UserError(f"your likeness fails on {name}: {type(error).__name__}: {str(error):.200}") from error
    if not isinstance(avatar, Avatar):
        raise UserError(f"your likeness gives a {type(avatar).__name__} for {name}: return an Avatar")
    return avatar


def ranks_below(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """For each person the share of the other people who are less like them than they are themselves: (N,), chance 0.5.

    Args:
        one, other: embeddings of two avatars of each person (N, E). Each is looked for among those of the other.
    """
    table = one @ other.T  # (N, N)
    own = np.diag(table)
    # A tie counts half, so that avatars that are all the same give chance.
    shares = [((line < own) + 0.5 * (line == own)).T for line in (table, table.T)]
    return np.mean([(share.sum(axis=1) - 0.5) / (len(table) - 1) for share in shares], axis=0)


@dataclass(frozen=True)
class Measured:
    """What was measured of a likeness on rendered heads.

    Attributes:
        avatars: of both photographs of each person.
        ranks: see `ranks_below` (N,). first: whether the nearest avatar is the person's own (N,).
        true, factors: K known factors, and those of the avatars (N, 2, K).
        error: mean absolute error of the 17 units (N,).
    """

    avatars: tuple[tuple[Avatar, Avatar], ...]
    ranks: np.ndarray
    first: np.ndarray
    true: np.ndarray
    factors: np.ndarray
    error: np.ndarray

    @classmethod
    def of(cls, likeness: Likeness, people: Sequence[Head]) -> Measured:
        """Raises UserError if the likeness fails, or gives no avatar."""
        avatars = tuple(
            (avatar_of(likeness, head.seen[0], f"head {n}"), avatar_of(likeness, head.seen[1], f"head {n}"))
            for n, head in enumerate(people)
        )
        one, other = (np.stack([embedding(pair[k].identity) for pair in avatars]) for k in range(2))
        units = np.array([[avatar.expression.to_vector()[:U] for avatar in pair] for pair in avatars])
        truth = np.array([[expression.to_vector()[:U] for expression in head.truth] for head in people])
        return cls(
            avatars=avatars,
            ranks=ranks_below(one, other),
            first=(other @ one.T).argmax(axis=1) == np.arange(len(people)),
            true=np.array([[list(known(head.person).values())] * 2 for head in people]),
            factors=np.array([[list(drawn(avatar.identity).values()) for avatar in pair] for pair in avatars]),
            error=np.abs(units - truth).mean(axis=(1, 2)),
        )

    def correlations(self, people: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Pearson's r of each factor and its truth over both avatars of these people: (K,); 0 if it is constant."""
        factors, true = (part[people].reshape(-1, part.shape[-1]) for part in (self.factors, self.true))
        return correlations(factors, true)  # of (2 N, K), from (N, 2, K)

    def rightness(self) -> Statistic:
        """The mean of the K correlations."""
        return lambda people: float(np.mean(self.correlations(people)))


def matched(photos: Sequence[Photo], avatars: Sequence[Avatar]) -> dict[str, float]:
    """For each person with two photographs, the share of other people's photographs that are less like one of theirs
    than their own other ones are, a mean over their photographs. Empty without another person.
    """
    table = np.stack([embedding(avatar.identity) for avatar in avatars])
    table = table @ table.T
    people = np.array([photo.person for photo in photos])
    found: dict[str, list[float]] = {}
    for n, person in enumerate(people):
        own = (people == person) & (np.arange(len(people)) != n)
        others = table[n, people != person]
        if own.any() and len(others):
            best = table[n, own].max()
            found.setdefault(str(person), []).append(float((others < best).mean() + 0.5 * (others == best).mean()))
    return {person: float(np.mean(shares)) for person, shares in found.items()}


# --- the report ------------------------------------------------------------------------------------------------------

PEOPLE = {"smoke": 8, "laptop": 40, "gpu": 100}  # rendered people


def score(answer: OwnFolder, profile: str = "laptop", people: str = "report") -> Report:
    """The report on a likeness and a folder, 60 points: 40 for being better than the kit's likeness on rendered heads.

    Args:
        profile: "smoke", "laptop" or "gpu": how many rendered people, see PEOPLE.
        people: "report", or "validation" while you develop.

    Raises UserError for an answer that is no OwnFolder, a likeness that fails, and for another profile or other people.
    A folder that cannot be read costs its points, with a line that says why.
    """
    if not isinstance(answer, OwnFolder):
        raise UserError(f"the answer is a {type(answer).__name__}: give an OwnFolder")
    if profile not in PEOPLE or people not in ("report", "validation"):
        raise UserError(f"profile {profile!r}, people {people!r}: give smoke, laptop or gpu, and report or validation")
    first = FIRST_SEED[people]
    known_heads = heads(first, PEOPLE[profile])
    ours, theirs = Measured.of(answer.likeness, known_heads), Measured.of(shipped, known_heads)
    n = len(known_heads)
    numbers = {
        "matched back": estimate(ratio(ours.ranks), n),
        "matched back, baseline": estimate(ratio(theirs.ranks), n),
        "matched back, difference": difference(ratio(ours.ranks), ratio(theirs.ranks), n),
        "nearest is the same person": estimate(ratio(ours.first), n),
        "nearest is the same person, baseline": estimate(ratio(theirs.first), n),
        "right factors (r)": estimate(ours.rightness(), n),
        "right factors (r), baseline": estimate(theirs.rightness(), n),
        "right factors (r), difference": difference(ours.rightness(), theirs.rightness(), n),
        "error of the units, difference": difference(ratio(-ours.error), ratio(-theirs.error), n),
    }
    criteria, figures, pictures = _of_folder(answer)
    criteria = (
        gain("matched back, against the kit's likeness", 20, numbers["matched back, difference"], 0.06),
        gain("right factors, against the kit's likeness (r)", 20, numbers["right factors (r), difference"], 0.15),
        kept("units as right as the kit's", 6, numbers["error of the units, difference"], 0.02),
        *criteria,
    )
    of_each = {
        name: {"yours": float(one), "baseline": float(other)}
        for name, one, other in zip(
            known(known_heads[0].person),
            ours.correlations(),
            theirs.correlations(),
        )
    }
    figures = {
        "numbers": numbers,
        "r of each factor": of_each,
        "folder": figures,
        "people": {"first": first, "rendered": PEOPLE[profile], "read": n},
        "seeds": "one: nothing is trained, and the photographs are the same each time",
        "machine": describe_machine(),
    }
    return Report("own_folder", criteria, figures, (_heads_sheet(known_heads, ours, theirs), *pictures))


def _of_folder(answer: OwnFolder) -> tuple[tuple[Criterion, ...], dict, tuple[tuple[Image.Image, str], ...]]:
    names = (
        "an avatar for each photograph",
        "photographs of one person match",
        "source, licence and consent are written",
    )
    worth = (4.0, 5.0, 5.0)
    try:
        if answer.folder is None:
            raise UserError("the answer has no folder: give one, or example_folder()")
        folder = answer.folder if isinstance(answer.folder, Folder) else read_folder(answer.folder)
    except UserError as error:
        said = f"Nothing could be measured: {error}."
        return tuple(Criterion(name, 0.0, of, said) for name, of in zip(names, worth)), {"problem": str(error)}, ()
    avatars, problems = [], list(folder.problems)
    for photo in folder.photos:
        try:
            avatars.append(avatar_of(answer.likeness, photo.seen, photo.name))
        except UserError as error:
            avatars.append(None)
            problems.append(str(error))
    done = [(photo, avatar) for photo, avatar in zip(folder.photos, avatars) if avatar is not None]
    made = np.array([avatar is not None for avatar in avatars], float)
    complete = np.array([photo.name in folder.sources for photo in folder.photos], float)
    shares = matched(*zip(*done)) if done else {}
    if shares:
        people = estimate(ratio(np.array(list(shares.values()))), len(shares))
        match = reached(names[1], worth[1], people, 0.5, 0.9)
    else:
        match = Criterion(names[1], 0.0, worth[1], "The folder has no two people of whom one has two photographs.")
    criteria = (
        reached(names[0], worth[0], estimate(ratio(made), len(made)), 0.5, 1.0),
        match,
        reached(names[2], worth[2], estimate(ratio(complete), len(complete)), 0.0, 1.0),
    )
    figures = {
        "photographs": [photo.name for photo in folder.photos],
        "problems": problems,
        "sources": list(folder.sources.values()),
        "matched back": {person: round(share, 3) for person, share in shares.items()},
    }
    shown = done[:12]
    pictures = ()
    if shown:
        sheet = grid(
            [avatar.render(96) for _, avatar in shown],
            [photo.name for photo, _ in shown],
            columns=min(6, len(shown)),
            tile=96,
        )
        pictures = ((sheet, f"The avatars of {len(shown)} photographs of the folder, each with the name of its file."),)
    return criteria, figures, pictures


def _heads_sheet(people: Sequence[Head], ours: Measured, theirs: Measured) -> tuple[Image.Image, str]:
    """Three rendered people: both photographs, and the avatars of both by either likeness."""
    cells = []
    for head, one, other in list(zip(people, ours.avatars, theirs.avatars))[:3]:
        for k in range(2):
            looks = [Avatar(pair[k].identity).render(80) for pair in (other, one)]
            cells += [open_picture(head.seen[k].pixels).resize((80, 80)), *looks]
    sheet = grid(cells, ["photograph", "the kit's", "yours"] * 2, columns=6, tile=80)
    alt = "Three rendered people, a row each: a photograph, the kit's avatar and yours, and the same of another one."
    return sheet, alt


def changed(seen: Seen, **factors) -> Avatar:
    """The kit's avatar with other factors of the identity, such as `changed(seen, hair_style="bald")`."""
    avatar = shipped(seen)
    return replace(avatar, identity=replace(avatar.identity, **factors))
