"""The people of the playground: drawn, unknown to the model, with what the face pack reads of them."""

import json
from pathlib import Path

from PIL import Image

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.splits import REPORT_SEED
from gen_affect_lib.pipeline import GenAffectPipeline

PEOPLE = [0, 2, 37, 8, 18, 6, 39, 13, 41, 42, 20, 46]  # chosen by eye among the first held-out people, to be unlike
COVERINGS = ("headscarf", "turban", "beanie")
SKIN = ("very light", "light", "medium", "brown", "dark")


def write_people(pipeline: GenAffectPipeline, folder: Path) -> None:
    """Write one small picture of each person, and people.json: a description and the identity tokens (2 · 512)."""
    folder.mkdir(parents=True)
    people = []
    for number, offset in enumerate(PEOPLE):
        identity, appearance = Identity.sample(REPORT_SEED + offset), Appearance.sample(REPORT_SEED + offset)
        picture = Avatar(identity, Expression.neutral(), appearance).render(128)
        Image.fromarray(picture).save(folder / f"{number}.png", optimize=True)
        tokens = pipeline.read_identity(picture).flatten()  # (V, E) -> (V · E,)
        people.append({"alt": described(identity), "identity": [round(float(token), 5) for token in tokens]})
    (folder / "people.json").write_text(json.dumps(people))


def described(identity: Identity) -> str:
    """A person in a few words, such as "dark skin, black afro hair, round glasses"."""
    style = identity.hair_style.replace("_", " ")
    if identity.hair_style in COVERINGS:
        hair = f"{identity.covering_color} {style}"
    elif identity.hair_style == "bald":
        hair = "bald"
    else:
        hair = f"{identity.hair_color.replace('_', ' ')} hair ({style})"
    parts = [f"{SKIN[min(4, int(5 * identity.skin))]} skin", hair]
    if identity.facial_hair != "none":
        parts.append(identity.facial_hair)
    if identity.glasses != "none":
        parts.append(f"{identity.glasses} glasses")
    return ", ".join(parts)
