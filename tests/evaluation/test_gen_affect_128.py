"""The 128 px checkpoint draws what its card says."""

import json

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.emotions import branches
from gen_affect_lib.avatars.splits import REPORT_SEED
from gen_affect_lib.evaluation.judges.networks import both_judges
from gen_affect_lib.evaluation.report import table
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.keys import fingerprint
from gen_affect_lib.paths import CHECKPOINTS, REFERENCE
from gen_affect_lib.pipeline import GenAffectPipeline

FOLDER = CHECKPOINTS / "gen_affect_128"
REPORT = json.loads((REFERENCE / "evaluation_128.json").read_text())


@pytest.fixture(scope="module")
def pipeline():
    pipeline = GenAffectPipeline.from_pretrained(FOLDER)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_card_states_the_figures_of_these_weights():
    assert REPORT["weights"] == fingerprint(FOLDER) and REPORT["plan"]["first_person"] == REPORT_SEED
    assert table(REPORT) in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("steps", [4, 8])
def test_it_draws_the_person_and_the_words_at_128_pixels(pipeline, steps):
    plan = Plan(people=1, words=12, seeds=1)
    generator = torch.Generator().manual_seed(0)
    images = pipeline(plan.references[0], plan.target_words, num_inference_steps=steps, generator=generator).images
    assert {image.size for image in images} == {(128, 128)}
    identity, expression = both_judges()
    drawn = np.array([np.asarray(image.resize((64, 64))) for image in images])
    words, _ = plan.targets()
    assert (expression.read(drawn).groups.argmax(axis=1) == branches()[25][words]).mean() >= 0.9
    embeddings = identity.read([*drawn, plan.references[0]]).embedding
    assert (embeddings[:-1] @ embeddings[-1]).mean() > 0.75


def test_fine_lines_are_as_strong_as_in_drawings(pipeline):
    """The share of neighbouring pixels that differ by more than 0.15 in brightness, against the true drawings."""

    def strong_edges(images):
        grey = np.asarray(images, np.float32).mean(axis=-1) / 255
        return np.mean([(np.abs(np.diff(grey, axis=axis)) > 0.15).mean() for axis in (1, 2)])

    plan = Plan(people=1, words=12, seeds=1)
    images = pipeline(plan.references[0], plan.target_words, generator=torch.Generator().manual_seed(0)).images
    person = Identity.sample(REPORT_SEED)
    drawings = [
        Avatar(person, Expression.named(word), Appearance.sample(seed)).render(128)
        for seed, word in enumerate(plan.target_words)
    ]
    assert strong_edges([np.asarray(image) for image in images]) > 0.8 * strong_edges(drawings)
    smaller = [image.resize((64, 64)).resize((128, 128)) for image in images]  # a model of 64 px, enlarged, fails this
    assert strong_edges([np.asarray(image) for image in smaller]) < 0.6 * strong_edges(drawings)
