"""What the commands `fullscale convert | prepare | train | sample | evaluate` do; `cli` has their options."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

import torch

from gen_affect_lib.avatars.folder import read_metadata
from gen_affect_lib.device import pick_device, processes
from gen_affect_lib.display import grid
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import write_json
from gen_affect_lib.fullscale import evaluate, faces
from gen_affect_lib.fullscale.base import Base, Prompts
from gen_affect_lib.fullscale.collections import COLLECTIONS, convert, read_order
from gen_affect_lib.fullscale.prepare import Prepared, Settings, mark_of, prepare
from gen_affect_lib.fullscale.sample import decoded, draw_person, words_of
from gen_affect_lib.fullscale.train import AdapterSizes, load_adapter, precision, train_adapter
from gen_affect_lib.pictures import save_picture, square
from gen_affect_lib.recipe import TrainingConfig
from gen_affect_lib.training.checkpoint import has_checkpoint

ENCODERS = ("vae", "text_encoder", "text_encoder_2", "text_encoder_3")  # the parts of a base that `prepare` uses
LIMITS = (
    "a hundred photographs teach the base these people and how their faces move; they do not teach it to draw a "
    "stranger from one photograph, for which others use hundreds of thousands of pairs"
)


def open_base(name: Path, accepted: bool, dtype: torch.dtype, device: torch.device | str) -> Base:
    """The base in a folder; a name of the Hugging Face hub is downloaded, once its licence is accepted.

    Raises UserError if there is no such folder and nothing can be downloaded.
    """
    say = processes().print
    folder = name
    if not folder.is_dir():
        hub = folder.as_posix()
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", hub):
            raise UserError(f"--base {name} is no folder: give a Stable Diffusion 3.5 in diffusers' layout")
        faces.require_consent([faces.STABILITY], accepted, say)
        folder = _download(hub)
    base = Base(folder, dtype, device)
    say(f"licence of the base: {base.licence}")
    return base


def _download(hub: str) -> Path:
    from huggingface_hub import snapshot_download

    kinds = ["*.json", "*.txt", "*.md", "*.model", "*/*.safetensors"]
    try:
        with processes().main_process_first():
            return Path(snapshot_download(hub, allow_patterns=kinds))
    except Exception as error:  # of the network, of the hub, of its permissions
        reason = " ".join(str(error).split())
        raise UserError(
            f"--base {hub} is no folder and cannot be downloaded ({reason:.120}): give a folder, or accept its terms "
            "on huggingface.co and log in"
        ) from error


def run_convert(options: Namespace) -> None:
    if options.name not in COLLECTIONS:
        raise UserError(f"there is no converter for {options.name!r:.40}: give one of {', '.join(COLLECTIONS)}")
    faces.require_consent([COLLECTIONS[options.name].licence], options.accept_licence)
    order = read_order(options.units) if options.units else ()
    count = convert(options.name, options.source, options.out, faces.photo_reader(), order)
    print(f"{count} pictures are in {options.out}")


def run_prepare(options: Namespace) -> None:
    reader = faces.photo_reader()
    read_metadata(options.data)  # before anything large is loaded
    settings = Settings(options.size, options.text, not options.as_they_are)
    recognizer = faces.open_faces(options.faces, options.accept_licence)
    base = open_base(options.base, options.accept_licence, precision(options.precision), pick_device())
    skipped: list[str] = []
    prepared = prepare(
        base,
        mark_of(base.folder, ENCODERS),
        options.data,
        recognizer,
        faces.meaning_by(reader),
        options.out,
        settings,
        options.batch_size,
        skipped.append if options.skip else None,
    )
    for message in skipped:
        print(f"left out: {message}")
    people = len({row.identity for row in prepared.rows})
    print(f"{len(prepared)} pictures of {people} people are prepared in {options.out}")


def run_train(options: Namespace) -> None:
    if has_checkpoint(options.out) and not options.resume:
        raise UserError(f"--out {options.out} contains a run: continue it with --resume, or give another folder")
    prepared = Prepared(options.data)
    base = open_base(options.base, options.accept_licence, precision(options.precision), pick_device())
    limit = {"steps": options.steps} if options.minutes is None else {"minutes": options.minutes}
    config = TrainingConfig(
        batch_size=options.batch_size,
        accumulation=options.accumulation,
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup,
        shift=base.shift,
        seed=options.seed,
        compile=options.compile,
        validation_size=32,
        validate_every=500,
        checkpoint_every=500,
        **limit,
    )
    if options.checkpointing:
        base.transformer.enable_gradient_checkpointing()
    processes().print(LIMITS)
    sizes = AdapterSizes(options.way, options.width, options.rank)
    mark = mark_of(base.folder, ["transformer"])
    folder = train_adapter(
        base.transformer, mark, prepared, config, sizes, options.out, options.resume, {"base_name": base.folder.name}
    )
    processes().print(folder)


def run_sample(options: Namespace, expressions: list) -> None:
    reader = faces.photo_reader()
    shown = faces.read_expressions(expressions, reader)
    base = open_base(options.base, options.accept_licence, precision(options.precision), pick_device())
    adapter, about = load_adapter(options.adapter, base.transformer)
    recognizer = _recognizer(options.faces, options.accept_licence, about)
    identity = recognizer.one(options.reference, "largest").tokens
    size = options.size or tuple(about["size"])
    pictures = draw_person(
        base,
        adapter,
        identity,
        shown,
        _prompts(base, options.text),
        size,
        steps=options.steps,
        guidance_scale=options.guidance,
        consistency=options.consistency,
        landmarks=about["landmarks"],
        seed=options.seed,
        images_at_once=options.at_once,
    )
    titles = words_of([str(entry) for entry in expressions])
    for title, picture in zip(titles, pictures):
        save_picture(picture, options.out.with_name(f"{options.out.stem}_{title}.png"))
    tile = min(512, size[1])
    save_picture(grid([square(options.reference, tile), *pictures], ["reference", *titles], tile=tile), options.out)
    print(options.out)


def run_evaluate(options: Namespace) -> None:
    words = [word.strip() for word in options.words.split(",") if word.strip()]
    faces.read_expressions(words, None)  # finds misspelt words before anything is loaded
    people = evaluate.people_of(read_metadata(options.data))
    base = open_base(options.base, options.accept_licence, precision(options.precision), pick_device())
    adapter, about = load_adapter(options.adapter, base.transformer)
    recognizer = _recognizer(options.faces, options.accept_licence, about)
    judging = recognizer
    if options.judge is not None:
        judging = faces.open_faces(options.judge, options.accept_licence)
    judge = evaluate.Judge(judging, faces.photo_reader(), judging.mark != recognizer.mark)
    size = options.size or tuple(about["size"])
    prompts = _prompts(base, options.text)
    settings = dict(steps=options.steps, guidance_scale=options.guidance)
    shown = faces.read_expressions(words, None)

    def with_adapter(reference, words):
        identity = recognizer.one(reference, "largest").tokens
        return draw_person(base, adapter, identity, shown, prompts, size, consistency=0.0, **settings)

    def without(reference, words):
        noise = base.noise(len(words), size[1], size[0], torch.Generator().manual_seed(0))
        negative, own = (
            Prompts(prompts.tokens[n : n + 1], prompts.pooled[n : n + 1]).repeated(len(words)) for n in range(2)
        )
        return decoded(base, base.sample(own, noise, negative, **settings))

    result = evaluate.evaluate({"adapter": with_adapter, "base": without}, judge, people, words)
    write_json(options.json, result)
    print(evaluate.say(result))
    print(options.json)


def _prompts(base: Base, text: str) -> Prompts:
    """The empty prompt and a text, encoded; the text encoders, which are larger than all the rest, are then freed."""
    prompts = base.encode_prompts(["", text])
    base.drop_text()
    return prompts


def _recognizer(name: str | Path, accepted: bool, about: dict) -> FacePack:
    """The face pack that an adapter was trained with. Raises UserError for another."""
    recognizer = faces.open_faces(name, accepted)
    if recognizer.mark != about["recognizer"]:
        raise UserError(
            f"the adapter was trained with recognizer {about['recognizer']}, and {name} has {recognizer.mark}: give "
            "the face pack of the training with --faces"
        )
    return recognizer
