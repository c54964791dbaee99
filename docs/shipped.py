"""Writes what README.md and the model card show of the shipped checkpoint.

    python docs/shipped.py figures    # the tables of data/reference/evaluation.json, into the model card
    python docs/shipped.py photo      # data/reference/photo.json, and the tables of data/checkpoints/{photo,person}
    python docs/shipped.py pictures   # people.jpg, words_135.jpg and failures.png, in data/reference

expressions.png is a copy of what `make demo` leaves.
"""

import json
import re
import sys
from pathlib import Path

import torch

from gen_affect_lib.avatars import EMOTIONS, Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.splits import REPORT_SEED
from gen_affect_lib.device import pick_device
from gen_affect_lib.display import grid
from gen_affect_lib.evaluation.report import table
from gen_affect_lib.evaluation.sets import Plan, drawn_by
from gen_affect_lib.evaluation.studies import photo as photo_study
from gen_affect_lib.paths import CHECKPOINTS, REFERENCE, SHIPPED
from gen_affect_lib.pipeline import GenAffectPipeline

WORDS = ("joy", "amusement", "ecstasy", "pride", "surprise", "fear", "sadness", "grief", "anger", "disgust", "contempt",
         "contentment")  # fmt: skip


def figures() -> None:
    """Write the tables into the model card."""
    _into_card(SHIPPED, table(json.loads((REFERENCE / "evaluation.json").read_text())))


def photo() -> None:
    """Measure the reading of units and hair from pictures of heads on held-out people; write the tables into cards."""
    measured = photo_study.write_figures()
    _into_card(CHECKPOINTS / "photo", photo_study.table(measured))
    _into_card(CHECKPOINTS / "person", photo_study.hair_table(measured))


def _into_card(folder: Path, text: str) -> None:
    """Write a text into a model card, between its two comments."""
    card = folder / "README.md"
    old = card.read_text(encoding="utf-8")
    new = re.sub(r"(?s)(<!-- figures[^>]*-->\n).*(<!-- end of figures -->)", rf"\1\n{text}\n\n\2", old)
    card.write_text(new, encoding="utf-8")


def pictures() -> None:
    pipeline = GenAffectPipeline.from_pretrained(SHIPPED).to(pick_device())
    pipeline.set_progress_bar_config(disable=True)
    people(pipeline).save(REFERENCE / "people.jpg", quality=85)
    all_words(pipeline).save(REFERENCE / "words_135.jpg", quality=80)
    failures(pipeline).save(REFERENCE / "failures.png", optimize=True)


def people(pipeline, count: int = 6):
    """A set of twelve words for each of the first held-out people, behind the reference."""
    cells = []
    for seed in range(REPORT_SEED, REPORT_SEED + count):
        reference = Avatar(Identity.sample(seed), Expression(), Appearance.sample(seed)).render(128)
        generator = torch.Generator().manual_seed(seed)
        cells += [reference, *pipeline(reference, WORDS, generator=generator).images]
    return grid(cells, ["reference", *WORDS], columns=13, tile=128)


def all_words(pipeline):
    """The first held-out person with all words, as one set, behind the reference."""
    reference = Avatar(Identity.sample(REPORT_SEED), Expression(), Appearance.sample(REPORT_SEED)).render(128)
    images = pipeline(reference, list(EMOTIONS), generator=torch.Generator().manual_seed(0)).images
    return grid([reference, *images], ["reference", *EMOTIONS], columns=17, tile=112)


def failures(pipeline, count: int = 6):
    """Reference, generated picture and true drawing of the people with the worst failures of data/reference."""
    report = json.loads((REFERENCE / "evaluation.json").read_text())
    plan, draw = Plan(**report["plan"]), drawn_by(pipeline, consistency=report["consistency"])
    worst = {row["person"]: row for row in reversed(report["failures"])}  # the worst one of each person
    cells, titles = [], []
    for row in sorted(worst.values(), key=lambda row: row["probability"])[:count]:
        place, word = row["person"] - plan.first_person, row["word"]
        generated = draw(plan.references[place], plan.target_words, row["seed"])[plan.target_words.index(word)]
        true = Avatar(Identity.sample(row["person"]), Expression.named(word), Appearance()).render(128)
        cells += [plan.references[place], generated, true]
        titles += ["reference", f"{word}: taken for {row['taken_for']}", "true drawing"]
    return grid(cells, titles, columns=6, tile=144)


if __name__ == "__main__":
    {"figures": figures, "photo": photo, "pictures": pictures}[sys.argv[1]]()
