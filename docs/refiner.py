"""Trains the refiner of the shipped pipeline, and adds it to the folder of the pipeline.

    python docs/refiner.py data/checkpoints/gen_affect

The other networks stay as they are. About half an hour on two CPU cores. It is the stage "refiner" of `reproduce`, with
other people and fewer pictures of each.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from gen_affect_lib.avatars.pairs import PairsConfig
from gen_affect_lib.device import pick_device
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.profiles import get_profile
from gen_affect_lib.training.assembly import DrawnPictures
from gen_affect_lib.training.finishing import generated_latents
from gen_affect_lib.training.refiner import REFINER_RECIPE, examples_of, fit_refiner, make_refiner

PEOPLE, TRUE, GENERATED, STEPS = 5120, 4096, 1792, 4000


def main(folder: Path) -> None:
    pipeline = GenAffectPipeline.from_pretrained(folder).to(pick_device())
    pairs = PairsConfig("train", identities=PEOPLE, images=2, size=pipeline.config["image_size"])
    pictures = DrawnPictures(replace(get_profile("laptop").retrained(), pairs=pairs))
    split, _ = pictures.splits(pipeline.codec, FacePack())
    generated = generated_latents(pipeline, split, GENERATED)
    examples = examples_of(pipeline.codec, pictures.train, split, generated, TRUE)
    refiner = make_refiner(pipeline.codec)
    history = fit_refiner(refiner, examples, replace(REFINER_RECIPE, steps=STEPS))
    print(f"explained: {np.mean([row['explained'] for row in history[-100:]]):.3f}")
    pipeline.register_modules(refiner=refiner)
    pipeline.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
