"""Trains everything that the kit ships, from nothing, stage by stage: `python -m gen_affect_lib reproduce`.

The stages are those of ENCODERS, then those of GENERATOR. Each runs in its own process, whose data folder is that of
the reproduction (GEN_AFFECT_DATA), so it finds the networks of earlier stages where the kit has its shipped ones. Each
writes a record with its data, minutes, result and machine. An interrupted reproduction continues with the first stage
without a valid record, and the generator's stage continues from its last checkpoint. A stage is repeated when an
earlier one has made something new.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gen_affect_lib.errors import UserError
from gen_affect_lib.files import write_json
from gen_affect_lib.keys import fingerprint
from gen_affect_lib.machine import describe_machine
from gen_affect_lib.paths import CHECKPOINTS, DATA, SHIPPED
from gen_affect_lib.profiles import Profile, get_profile

Made = tuple[str, dict]  # what a stage trained on or measured, and its result: names and numbers


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        about: what it makes.
        makes: the file or folder that it writes, in the folder of the reproduction.
        run: (profile, folder of the reproduction) -> data and result.
        works_in: the folder of its unfinished work, from which it continues; None: it starts again.
    """

    name: str
    about: str
    makes: str
    run: Callable[[Profile, Path], Made]
    works_in: str | None = None


# --- the readers of faces, and the judges --------------------------------------------------------------------------


def _reader(name: str, about: str, makes: str) -> Stage:
    makes = f"data/checkpoints/{makes}"

    def run(profile: Profile, out: Path) -> Made:
        from gen_affect_lib.readers import train_reader

        path = out / makes
        folder = path.parent if path.suffix else path
        train_reader(name, folder, SMOKE_MINUTES.get(name) if profile.name == "smoke" else None, profile.name)
        figures = folder / "figures.json"
        result = json.loads(figures.read_text()).get(FIGURES.get(name, name), {}) if figures.is_file() else {}
        return f"drawn people, as many as profile {profile.name} has", result

    return Stage(name, about, makes, run)


FIGURES = {"identity": "recognizer"}  # their names in a pack's figures.json, where they differ
SMOKE_MINUTES = {"detector": 1.0}  # trained for less it finds no face, and the generator's stage needs faces


# --- the generator ----------------------------------------------------------------------------------------------------


def _codec(profile: Profile, out: Path) -> Made:
    import torch

    from gen_affect_lib.tensors import to_tensor
    from gen_affect_lib.training.assembly import DrawnPictures, make_codec

    profile = profile.retrained()
    pictures = DrawnPictures(profile)
    codec = make_codec(profile, pictures, out / "autoencoder")
    some = pictures.held_out[:: max(1, len(pictures.held_out) // 256)]
    true = to_tensor(some).to(codec.device)
    with torch.no_grad():
        error = codec.decode(codec.encode(true)).sub(true).square().mean().item()
    return _pictures(profile), {"validation_mse": round(error, 5)}


def _generator(profile: Profile, out: Path) -> Made:
    from gen_affect_lib.training.assembly import make_trainer

    folder = out / "generator"
    if not (folder / "codec").is_dir():
        shutil.copytree(out / "autoencoder" / "codec", folder / "codec")
    trainer, pipeline = make_trainer(profile, folder, retrain=True)
    history = trainer.fit(resume=True)
    with trainer.averaged_weights():
        pipeline.save_pretrained(folder / "pipeline")
    last = next((row for row in reversed(history) if "validation/sigma_0.5" in row), {})
    result = {name: round(value, 4) for name, value in last.items() if name.startswith("validation")}
    return _pictures(profile.retrained()), {"steps": trainer.step} | result


def _decoder(profile: Profile, out: Path) -> Made:
    from gen_affect_lib.training.finishing import FINISHING_RECIPE, finish_decoder
    from gen_affect_lib.training.perceptual import PerceptualLoss

    profile = profile.retrained()
    pictures, pipeline, _, generated = _generated(profile, out / "generator" / "pipeline")
    recipe = replace(FINISHING_RECIPE, steps=profile.decoder_steps, batch_size=profile.decoder_batch)
    history = finish_decoder(pipeline.codec, generated, pictures.images, recipe, PerceptualLoss(pipeline.codec.device))
    pipeline.save_pretrained(out / "finished")
    return f"{len(generated.pictures):,} generated latents", _first_and_last(history, "mse")


def _refiner(profile: Profile, out: Path) -> Made:
    from gen_affect_lib.training.refiner import REFINER_RECIPE, examples_of, fit_refiner, make_refiner

    profile = profile.retrained()
    pictures, pipeline, split, generated = _generated(profile, out / "finished")
    examples = examples_of(pipeline.codec, pictures.train, split, generated, profile.refiner_pictures)
    refiner = make_refiner(pipeline.codec, profile.training.seed)
    recipe = replace(REFINER_RECIPE, steps=profile.refiner_steps)
    history = fit_refiner(refiner, examples, recipe)
    pipeline.register_modules(refiner=refiner)
    pipeline.save_pretrained(SHIPPED)
    return f"{len(examples.target):,} latents", _first_and_last(history, "explained")


def _generated(profile: Profile, folder: Path):
    """The drawn pictures, the pipeline in a folder, the training split, and latents that the pipeline generated."""
    from gen_affect_lib.device import pick_device
    from gen_affect_lib.encoders.pack import FacePack
    from gen_affect_lib.pipeline import GenAffectPipeline
    from gen_affect_lib.training.assembly import DrawnPictures
    from gen_affect_lib.training.finishing import generated_latents

    pictures = DrawnPictures(profile)
    pipeline = GenAffectPipeline.from_pretrained(folder).to(pick_device())
    split, _ = pictures.splits(pipeline.codec, FacePack())
    return pictures, pipeline, split, generated_latents(pipeline, split, profile.generated_latents)


def _first_and_last(history: list[dict], figure: str) -> dict:
    """The steps of a training, and the mean of a figure over its first and its last tenth."""
    tenth = max(1, len(history) // 10)
    first, last = (float(np.mean([row[figure] for row in part])) for part in (history[:tenth], history[-tenth:]))
    return {
        "steps": len(history),
        f"{figure}_of_the_first_tenth": round(first, 5),
        f"{figure}_of_the_last_tenth": round(last, 5),
    }


def _pictures(profile: Profile) -> str:
    pairs = profile.pairs
    return f"{pairs.identities:,} people x {pairs.images} pictures of {pairs.size} pixels"


def _evaluation(profile: Profile, out: Path) -> Made:
    from gen_affect_lib.evaluation.evaluate import evaluate
    from gen_affect_lib.evaluation.sets import Plan

    plan = Plan(4, 3, 1) if profile.name == "smoke" else Plan(100, 27, 1)
    report = evaluate(SHIPPED, plan, out / "evaluation.json")
    result = {name: figure["value"] for name, figure in report["figures"].items()}
    return f"{plan.people} held-out people x {plan.words} words", result


ENCODERS = (
    _reader("identity", "the recognizer of the face pack", "insightface_pack/arcface.onnx"),
    _reader("detector", "the detector of the face pack", "insightface_pack/detector.onnx"),
    _reader("landmarks", "the landmark network of the face pack", "insightface_pack/landmarks.onnx"),
    _reader("expression", "the expression encoder", "expression"),
    _reader("identity-judge", "the judge of identity", "judges/identity"),
    _reader("expression-judge", "the judge of expressions", "judges/expression"),
)
GENERATOR = (
    Stage("codec", "pictures to latents and back", "autoencoder/codec", _codec),
    Stage("generator", "MM-DiT and fusion", "generator/pipeline", _generator, works_in="generator"),
    Stage("decoder", "the codec's decoder, on generated latents", "finished", _decoder),
    Stage("refiner", "small things that the latents do not hold", "data/checkpoints/gen_affect", _refiner),
    Stage("evaluation", "the figures of the finished pipeline", "evaluation.json", _evaluation),
)


# --- running them -----------------------------------------------------------------------------------------------------


def reproduce(
    out: str | Path,
    profile: str | None = None,
    keep_encoders: bool = False,
    say: Callable[[str], object] = print,
) -> list[dict]:
    """Run all stages that have no valid record in `out`, in order; returns the records.

    Args:
        keep_encoders: take the shipped face pack, expression encoder and judges, and train the rest.
        out: the folder of the reproduction. `out/data` has the structure of the kit's data folder.
        profile: the sizes; None: the default one.
        say: called with one line per stage.

    Raises UserError if `out` has stages of another profile, or if a stage fails.
    """
    out, name = Path(out).resolve(), get_profile(profile).name
    stages = GENERATOR if keep_encoders else ENCODERS + GENERATOR
    _prepare(out, keep_encoders)
    records: list[dict] = []
    for number, stage in enumerate(stages, start=1):
        record = read_record(out, stage)
        if record is not None and record["profile"] != name:
            raise UserError(f"{out} has stages of profile {record['profile']}: give that profile, or another folder")
        uses = {earlier["stage"]: earlier["made"] for earlier in records}
        if record is None or record["uses"] != uses or record["made"] != _made(out, stage):
            say(f"[{number}/{len(stages)}] {stage.name}: {stage.about}")
            _clear(out, stage, unfinished=record is None)
            _run_apart(out, stage, name, uses)
            record = read_record(out, stage)
            if record is None:
                raise UserError(f"the stage {stage.name} ended without a result: look above, and run the command again")
        records.append(record)
        say(f"[{number}/{len(stages)}] {line(record)}")
    return records


def line(record: dict) -> str:
    """A record as one line: stage, data, minutes, result."""
    numbers = [f"{name} {value:g}" for name, value in record["result"].items() if isinstance(value, (int, float))]
    return f"{record['stage']}: {record['data']}; {record['minutes']} min; " + ", ".join(numbers[:6])


def read_record(out: Path, stage: Stage) -> dict | None:
    """The record of a stage; None if there is none or if it is damaged."""
    try:
        record = json.loads(_record_path(out, stage).read_text())
        return record if {"profile", "uses", "made", "minutes", "data", "result"} <= set(record) else None
    except (OSError, ValueError, TypeError):
        return None


def _record_path(out: Path, stage: Stage) -> Path:
    return out / "stages" / f"{stage.name}.json"


def _made(out: Path, stage: Stage) -> str | None:
    path = out / stage.makes
    return fingerprint(path) if path.exists() else None


def _clear(out: Path, stage: Stage, unfinished: bool) -> None:
    """Remove what a stage made before, except the work from which an unfinished one continues."""
    _record_path(out, stage).unlink(missing_ok=True)
    kept = stage.works_in if unfinished else None
    for name in {stage.makes, stage.works_in} - {None, kept}:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _prepare(out: Path, keep_encoders: bool) -> None:
    """Make the data folder, with the words and, if they are kept, the shipped encoders and judges."""
    (out / "data" / "checkpoints").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(DATA / "emotions.csv", out / "data" / "emotions.csv")
    for name in ("insightface_pack", "expression", "judges") if keep_encoders else ():
        shutil.copytree(CHECKPOINTS / name, out / "data" / "checkpoints" / name, dirs_exist_ok=True)


def _run_apart(out: Path, stage: Stage, profile: str, uses: dict) -> None:
    command = [sys.executable, "-m", "gen_affect_lib.reproduce", stage.name, str(out), profile, json.dumps(uses)]
    environment = os.environ | {"GEN_AFFECT_DATA": str(out / "data"), "GEN_AFFECT_CACHE": str(out / "cache")}
    result = subprocess.run(command, env=environment)
    if result.returncode:
        raise UserError(
            f"the stage {stage.name} failed, see above: run the same command again, and it continues from there"
        )


def run_stage(name: str, out: Path, profile: str, uses: dict) -> None:
    """Run one stage in this process, whose data folder is that of the reproduction, and write its record."""
    assert CHECKPOINTS == out / "data" / "checkpoints", "GEN_AFFECT_DATA is not the folder of the reproduction"
    stage, begin = next(stage for stage in ENCODERS + GENERATOR if stage.name == name), time.monotonic()
    data, result = stage.run(get_profile(profile), out)
    record = {"stage": name, "about": stage.about, "profile": profile, "data": data}
    record |= {"minutes": round((time.monotonic() - begin) / 60, 2), "machine": describe_machine(), "result": result}
    write_json(_record_path(out, stage), record | {"uses": uses, "made": _made(out, stage)})


def _main() -> int:
    try:
        run_stage(sys.argv[1], Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main())
