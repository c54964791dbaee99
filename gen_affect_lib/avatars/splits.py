"""The ranges of seeds of each purpose. A seed gives one person, so disjoint ranges are disjoint sets of people.

people                  purpose
0 … 499,999             training of the generator and of the encoders
500,000 … 999,999       training of the judges that score the generator
1,000,000 … 1,999,999   validation: everything that is chosen or looked at while developing
2,000,000 … 2,999,999   report: the figures that are published
"""

from __future__ import annotations

TRAIN_SEED, JUDGES_SEED, VALIDATION_SEED, REPORT_SEED, END_SEED = 0, 500_000, 1_000_000, 2_000_000, 3_000_000
FIRST_SEED = {"train": TRAIN_SEED, "validation": VALIDATION_SEED, "report": REPORT_SEED}
PEOPLE = {
    "train": JUDGES_SEED - TRAIN_SEED,
    "validation": REPORT_SEED - VALIDATION_SEED,
    "report": END_SEED - REPORT_SEED,
}

# Training uses the first pictures of each person. Pictures from 500 on are for tests of the encoders, and pictures from
# 600 on are references of the evaluation.
READER_PICTURES, REFERENCE_PICTURES = 500, 600


def picture_seed(person: int, picture: int) -> int:
    """The seed of the expression and the appearance on one picture, from 0 to 999, of a person."""
    return 1000 * person + picture
