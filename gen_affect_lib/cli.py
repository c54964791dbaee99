"""The commands. Each imports what it needs when it runs, so that `--help` is fast.

An error that the user can cause ends in one line on stderr and exit code 2; a traceback means a fault of the kit.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gen_affect_lib.errors import UserError
from gen_affect_lib.files import require_output, require_output_folder
from gen_affect_lib.paths import CHECKPOINTS, OUTPUTS

if TYPE_CHECKING:
    from gen_affect_lib.avatars import Expression

# The keys of `readers.TRAINERS`, which imports torch.
READERS = ("identity", "detector", "landmarks", "expression", "photo", "identity-judge", "expression-judge")
LONGEST_LINE = 600  # characters of an error; an argument may be of any length
LARGEST_SEED = 2**64 - 1  # of torch's random generators
PHOTOGRAPHS = OUTPUTS / "fullscale" / "photographs"
DEFAULT_EMOTIONS = "joy,amusement,surprise,fear,sadness,anger,disgust"


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not every name of a file can be printed everywhere
            stream.reconfigure(errors="backslashreplace")
    try:
        options = build_parser().parse_args(arguments)
        return options.run(options) or 0
    except UserError as error:
        return _fail(error)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "gen_affect_lib":
            raise
        return _fail(
            f"the package {error.name} is not installed: run `make .venv/.installed`, or "
            "python -m pip install -c constraints.txt -e ."
        )
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except MemoryError:
        return _fail("not enough memory: close other programs, or choose smaller sizes")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _fail(message: object) -> int:
    line = " ".join(str(message).split())
    print("error: " + (line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + " …"), file=sys.stderr)
    return 2


# --- the parser ------------------------------------------------------------------------------------------------------


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to the help of an option, except None and False, where the text says enough."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options):
        super().__init__(formatter_class=_Help, **options)

    def error(self, message: str):
        raise UserError(f"{message} (see `{self.prog} --help`)")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m gen_affect_lib",
        description="Gen-AFFECT from scratch: one person, many fine-grained expressions.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable, about: str, among=commands) -> argparse.ArgumentParser:
        sub = among.add_parser(name, help=about, description=about)
        sub.set_defaults(run=run)
        return sub

    command("doctor", _doctor, "check packages, libraries, device, memory and disk; list what each notebook takes")
    _render_options(command("render", _render, "draw one avatar"))
    about = "train the model of a profile; on several GPUs with `accelerate launch -m gen_affect_lib train`"
    _train_options(command("train", _train, about))
    _train_encoder_options(command("train-encoder", _train_encoder, "train a network that reads faces"))
    _sample_options(command("sample", _sample, "generate one person with several expressions"))
    about = "draw the avatar of a person in a photograph, and generate it with other expressions"
    _avatar_options(command("avatar", _avatar, about))
    about = "train everything that the kit ships from nothing, stage by stage; run it again to continue"
    _reproduce_options(command("reproduce", _reproduce, about))
    about = "score the images that a checkpoint generates of held-out people"
    _evaluate_options(command("evaluate", _evaluate, about))
    _power_options(command("power", _power, "measure what the measures of picture quality can see"))
    about = "write a page on which people try to tell generated pictures from drawings"
    _blind_options(command("blind", _blind, about))
    about = "train variants of the recipe, the fusion or the autoencoder, or vary sampler or sharing, and score all"
    _compare_options(command("compare", _compare, about))
    bench = command("bench", _bench, "time the MM-DiT against that of diffusers with the same weights")
    _json_option(bench, "bench")
    about = "time a block of the size of Stable Diffusion 3.5 medium, and consistent attention of a set at that size"
    bench.add_argument("--scale", action="store_true", help=about)

    about = "Stable Diffusion 3.5 with an adapter that is trained on a folder of photographs"
    fullscale = commands.add_parser("fullscale", help=about, description=about)
    actions = fullscale.add_subparsers(dest="action", required=True, metavar="ACTION")
    about = "make an image folder from a copy of RAVDESS, CREMA-D or FEAFA+"
    _fullscale_convert_options(command("convert", _fullscale("convert"), about, actions))
    about = "read and encode the photographs of an image folder once, for training; run it again to continue"
    _fullscale_prepare_options(command("prepare", _fullscale("prepare"), about, actions))
    about = "train an adapter; on several GPUs with `accelerate launch -m gen_affect_lib fullscale train`"
    _fullscale_train_options(command("train", _fullscale("train"), about, actions))
    about = "draw the person of a photograph with several expressions"
    _fullscale_sample_options(command("sample", _fullscale_sample, about, actions))
    about = "score what an adapter draws of people that it was not trained on"
    _fullscale_evaluate_options(command("evaluate", _fullscale("evaluate"), about, actions))

    about = "write a model in another format"
    export = commands.add_parser("export", help=about, description=about)
    actions = export.add_subparsers(dest="action", required=True, metavar="ACTION")
    about = "write the networks as ONNX files, with a table of words and settings, for programs without PyTorch"
    _export_onnx_options(command("onnx", _export_onnx, about, actions))

    course = commands.add_parser("course", help="run, measure, validate, hand out and grade the notebooks")
    actions = course.add_subparsers(dest="action", required=True, metavar="ACTION")
    about = "run every notebook in order, and measure time and memory"
    _course_run_options(command("run", _course_run, about, actions))
    about = "write the notebooks without solutions and outputs"
    _course_student_options(command("student", _course_student, about, actions))
    about = "check that all solutions are right, and that without them every exercise is unfinished"
    _course_validate_options(command("validate", _course_validate, about, actions))
    about = "grade submitted notebooks: a table of points, and a page of feedback each"
    _course_grade_options(command("grade", _course_grade, about, actions))
    about = "run projects that were handed in: a table of points, and a report each"
    _course_project_options(command("project", _course_project, about, actions))
    about = "write the measured times into the notebooks, README.md and INSTRUCTORS.md"
    command("timings", _course_timings, about, actions)
    command("light", _course_light, "compress the pictures in the notebooks' outputs", actions)
    return parser


# --- options that several commands have ------------------------------------------------------------------------------


def _profile_option(sub: argparse.ArgumentParser, name: str = "--profile", **options) -> None:
    about = "smoke, laptop or gpu (default: GEN_AFFECT_PROFILE, else gpu with a GPU and laptop without)"
    sub.add_argument(name, default=None, metavar=name.strip("-").upper(), help=about, **options)


def _minutes_option(sub: argparse._ActionsContainer, about: str) -> None:
    sub.add_argument("--minutes", type=_positive, default=None, metavar="M", help=about)


def _checkpoint_option(sub: argparse.ArgumentParser) -> None:
    about = "folder of a trained pipeline, or of `train --out`"
    sub.add_argument("--checkpoint", type=_path, default=CHECKPOINTS / "gen_affect", metavar="DIR", help=about)


def _consistency_option(sub: argparse.ArgumentParser, default: float) -> None:
    about = "consistent attention: the fraction of eligible tokens that are shared, from 0 (each image alone) to 1"
    sub.add_argument("--consistency", type=_fraction, default=default, metavar="C", help=about)


def _words_option(sub: argparse.ArgumentParser) -> None:
    about = "how many of the 135 words, spread over the tree of emotions"
    sub.add_argument("--words", type=_count, default=27, metavar="N", help=about)


def _json_option(sub: argparse.ArgumentParser, name: str) -> None:
    default = OUTPUTS / f"{name}.json"
    sub.add_argument("--json", type=_path, default=default, metavar="FILE", help="the file for the figures")


def _only_option(sub: argparse.ArgumentParser) -> None:
    about = "only these notebooks, by number or name (default: all)"
    sub.add_argument("--only", default=None, metavar="NAME,NAME", help=about)


def _jobs_option(sub: argparse.ArgumentParser) -> None:
    about = "how many run at once (default: one per core, at most 8)"
    sub.add_argument("--jobs", type=_count, default=None, metavar="N", help=about)


# --- types of values -------------------------------------------------------------------------------------------------


def _whole(text: str, low: int, high: int, what: str) -> int:
    try:
        number = int(text)
    except ValueError:  # no number, or one of thousands of digits
        number = low - 1
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not {what}: give a whole number from {low:,} to {high:,}")
    return number


def _seed(text: str) -> int:
    return _whole(text, 0, LARGEST_SEED, "a seed")


def _count(text: str) -> int:
    return _whole(text, 1, 1_000_000_000, "a count")


def _sampling_steps(text: str) -> int:
    return _whole(text, 1, 10_000, "a number of steps")


def _side(text: str) -> int:
    return _whole(text, 8, 4096, "a side in pixels")


def _natural(text: str) -> int:
    return _whole(text, 0, 1_000_000_000, "a number")


def _rectangle(text: str) -> tuple[int, int]:
    """Width and height, as in 512x768; one number stands for both."""
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a size: give width and height, such as 512x768")
    return _side(sides[0]), _side(sides[-1])


def _which(text: str) -> int | str:
    return "largest" if text.strip().lower() == "largest" else _whole(text, 0, 10_000, "the number of a face")


def _positive(text: str) -> float:
    return _number(text, "a positive number", lambda number: 0 < number <= 1e6, "above 0 and up to 1,000,000")


def _fraction(text: str) -> float:
    return _number(text, "a fraction", lambda number: 0 <= number <= 1, "from 0 to 1")


def _number(text: str, what: str, holds: Callable[[float], bool], expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not holds(number):  # nan as well
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not {what}: give one {expected}")
    return number


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()  # a shell leaves --out=~/face.png as it is
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text!r:.200} has no home folder: write out the whole path") from error


def _percent(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage: give a number from 0 to 100")
    return number


# --- the commands ----------------------------------------------------------------------------------------------------


def _doctor(options: argparse.Namespace) -> int:
    from gen_affect_lib import doctor

    return doctor.report()


def _render_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--identity", type=_seed, default=0, metavar="SEED", help="seed of the person")
    sub.add_argument("--emotion", default="joy", metavar="WORD", help="one of the 135 emotion words, or neutral")
    sub.add_argument("--appearance", type=_seed, default=0, metavar="SEED", help="seed of clothes and background")
    sub.add_argument("--size", type=_side, default=256, metavar="PX", help="side of the picture in pixels")
    sub.add_argument("--out", type=_path, default=OUTPUTS / "avatar.png", metavar="FILE", help="the file to write")


def _render(options: argparse.Namespace) -> None:
    from PIL import Image

    from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
    from gen_affect_lib.pictures import require_picture_output, save_picture

    require_picture_output(options.out)
    identity, appearance = Identity.sample(options.identity), Appearance.sample(options.appearance)
    avatar = Avatar(identity, Expression.named(options.emotion), appearance)
    save_picture(Image.fromarray(avatar.render(options.size)), options.out)
    print(options.out)


def _train_options(sub: argparse.ArgumentParser) -> None:
    _profile_option(sub)
    about = (
        "your own image folder with a metadata.jsonl, on which laptop fine-tunes the shipped checkpoint; "
        "of five or more people, one in five is kept for validation (default: drawn avatars)"
    )
    sub.add_argument("--data", type=_path, default=None, metavar="FOLDER", help=about)
    sub.add_argument("--out", type=_path, default=OUTPUTS / "train", metavar="DIR", help="folder for the checkpoints")
    sub.add_argument("--resume", action="store_true", help="continue from the last checkpoint in --out")
    _minutes_option(sub, "length of the training in minutes (default: the profile's minutes or steps)")
    about = "side of the pictures in pixels, such as 64 or 128 (default: the profile's)"
    sub.add_argument("--size", type=_side, default=None, metavar="PX", help=about)
    about = "do not start from the shipped checkpoint: train from scratch with its settings"
    sub.add_argument("--from-nothing", action="store_true", help=about)


def _train(options: argparse.Namespace) -> None:
    if options.data is not None and not options.data.is_dir():
        raise UserError(f"--data {options.data} is no folder: give an image folder with a metadata.jsonl in it")
    require_output_folder(options.out, "the checkpoints", [options.data] if options.data else [])
    from gen_affect_lib.device import processes
    from gen_affect_lib.profiles import get_profile
    from gen_affect_lib.training.assembly import train_profile
    from gen_affect_lib.training.checkpoint import has_checkpoint

    if has_checkpoint(options.out) and not options.resume:
        raise UserError(f"--out {options.out} contains a run: continue it with --resume, or give another folder")
    profile = get_profile(options.profile)
    if options.size is not None:
        profile = profile.at(options.size)
    train_profile(
        profile,
        options.out,
        data=options.data,
        resume=options.resume,
        minutes=options.minutes,
        retrain=options.from_nothing,
    )
    processes().print(options.out / "pipeline")


def _train_encoder_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("name", metavar="NAME", help="one of " + ", ".join(READERS))
    about = "folder for the network (default: outputs/encoders/NAME)"
    sub.add_argument("--out", type=_path, default=None, metavar="DIR", help=about)
    _minutes_option(sub, "length of the training in minutes (default: the profile's)")
    _profile_option(sub)


def _train_encoder(options: argparse.Namespace) -> None:
    out = options.out or OUTPUTS / "encoders" / options.name
    require_output_folder(out, "the network")
    from gen_affect_lib.readers import train_reader

    train_reader(options.name, out, options.minutes, options.profile)
    print(out)


def _reproduce_options(sub: argparse.ArgumentParser) -> None:
    _profile_option(sub)
    about = "folder of the reproduction; its data folder gets the structure of the kit's"
    sub.add_argument("--out", type=_path, default=OUTPUTS / "reproduce", metavar="DIR", help=about)
    about = "take the shipped face pack, expression encoder and judges, and train only codec, generator and decoder"
    sub.add_argument("--keep-encoders", action="store_true", help=about)


def _reproduce(options: argparse.Namespace) -> None:
    require_output_folder(options.out, "the reproduction")
    from gen_affect_lib.reproduce import reproduce

    reproduce(options.out, options.profile, options.keep_encoders, lambda text: print(text, flush=True))
    print(options.out / "data" / "checkpoints")


def _sample_options(sub: argparse.ArgumentParser) -> None:
    _checkpoint_option(sub)
    about = "a picture of the person (default: a drawn held-out person)"
    sub.add_argument("--reference", type=_path, default=None, metavar="FILE", help=about)
    about = "which face of --reference: largest, or a number counted from the left, from 0"
    sub.add_argument("--which", type=_which, default="largest", metavar="N", help=about)
    about = "the expressions, separated by commas: emotion words, or files of faces that show the expression"
    sub.add_argument("--emotions", default=DEFAULT_EMOTIONS, metavar="WORD,WORD", help=about)
    about = (
        "take photographs as they are, for a checkpoint that was trained on photographs (default: draw an avatar first)"
    )
    sub.add_argument("--as-drawn", action="store_true", help=about)
    about = "sampling steps (default: the checkpoint's)"
    sub.add_argument("--steps", type=_sampling_steps, default=None, metavar="N", help=about)
    sub.add_argument("--seed", type=_seed, default=0, help="seed of the noise")
    _consistency_option(sub, default=1.0)
    sub.add_argument("--out", type=_path, default=OUTPUTS / "sample.png", metavar="FILE", help="the file to write")


def _sample(options: argparse.Namespace) -> None:
    entries = _split_expressions(options.emotions)
    if not entries:
        raise UserError("--emotions names no emotion: give words separated by commas, such as joy,fear")
    checkpoint = _pipeline_folder(options.checkpoint)
    if options.reference is not None and not options.reference.is_file():
        raise UserError(f"--reference {options.reference} is no file: give a picture of a face")
    expressions = [_expression_or_file(entry) for entry in entries]  # finds misspelt words before torch is imported
    from gen_affect_lib.pictures import require_picture_output, save_picture, square

    files = [one for one in (options.reference, *expressions) if isinstance(one, Path)]
    require_picture_output(options.out, [*files, checkpoint])
    with _uncollected():
        import torch

    from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
    from gen_affect_lib.avatars.splits import VALIDATION_SEED
    from gen_affect_lib.device import pick_device
    from gen_affect_lib.display import grid, to_image

    with _uncollected():
        from gen_affect_lib.pipeline import GenAffectPipeline

    pipeline = GenAffectPipeline.from_pretrained(checkpoint).to(pick_device())
    unseen = Avatar(Identity.sample(VALIDATION_SEED), Expression.neutral(), Appearance.sample(VALIDATION_SEED))
    reference = options.reference or to_image(unseen.render(256))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        images = pipeline(
            reference,
            expressions,
            options.steps,
            generator=torch.Generator().manual_seed(options.seed),
            which=options.which,
            consistency=options.consistency,
            as_drawn=options.as_drawn,
        ).images
    for warning in said:
        print(f"note: {warning.message}", file=sys.stderr)
    titles = ["reference", *(Path(entry).stem if Path(entry).suffix else entry for entry in entries)]
    save_picture(grid([square(reference, 256), *images], titles, tile=160), options.out)
    print(options.out)


def _avatar_options(sub: argparse.ArgumentParser) -> None:
    about = "a photograph of a person who looks at the camera, in even light; it stays on this machine"
    sub.add_argument("photo", type=_path, metavar="PHOTO", help=about)
    about = "which person of the photograph: largest, or a number counted from the left, from 0 (default: the only one)"
    sub.add_argument("--which", type=_which, default=None, metavar="N", help=about)
    about = "the expressions to generate, emotion words separated by commas"
    sub.add_argument("--words", default=DEFAULT_EMOTIONS, metavar="WORD,WORD", help=about)
    _checkpoint_option(sub)
    sub.add_argument("--seed", type=_seed, default=0, help="seed of the noise")
    about = "the picture to write: the photograph, the avatar with its expression and without, then the words"
    sub.add_argument("--out", type=_path, default=OUTPUTS / "avatar.png", metavar="FILE", help=about)
    about = "also write the factors as they were read, and how sure each is"
    sub.add_argument("--json", type=_path, default=None, metavar="FILE", help=about)


def _avatar(options: argparse.Namespace) -> None:
    from gen_affect_lib.avatars import Expression
    from gen_affect_lib.photo.reading import close_up, read_photo
    from gen_affect_lib.pictures import require_picture_output, save_picture

    words = [word.strip() for word in options.words.split(",") if word.strip()]
    for word in words:
        Expression.named(word)  # finds misspelt words before the work
    checkpoint = _pipeline_folder(options.checkpoint)
    require_picture_output(options.out, [options.photo, checkpoint])
    if options.json is not None:
        require_output(options.json, "the factors", [options.photo, options.out, checkpoint])
    reading = read_photo(options.photo, options.which)
    print(reading)
    if options.json is not None:
        from gen_affect_lib.files import write_json

        write_json(options.json, reading.to_json())

    from gen_affect_lib.display import grid, to_image

    neutral = to_image(reading.neutral.render(256))
    images = [close_up(options.photo, reading.box), to_image(reading.avatar.render(256)), neutral]
    titles = ["photograph", "avatar: " + reading.meaning.words[0], "neutral", *words]
    if words:
        with _uncollected():
            import torch

            from gen_affect_lib.device import pick_device
            from gen_affect_lib.pipeline import GenAffectPipeline

        pipeline = GenAffectPipeline.from_pretrained(checkpoint).to(pick_device())
        generator = torch.Generator().manual_seed(options.seed)
        images += pipeline(neutral, words, generator=generator, as_drawn=True).images
    save_picture(grid(images, titles, tile=160), options.out)
    print(options.out)


def _evaluate_options(sub: argparse.ArgumentParser) -> None:
    _checkpoint_option(sub)
    sub.add_argument("--identities", type=_count, default=100, metavar="N", help="people, from seed 2,000,000 on")
    _words_option(sub)
    about = "how many sets of each person, each from different noise"
    sub.add_argument("--seeds", type=_count, default=1, metavar="N", help=about)
    _consistency_option(sub, default=0.0)
    _json_option(sub, "evaluation")


def _evaluate(options: argparse.Namespace) -> None:
    checkpoint = _pipeline_folder(options.checkpoint)
    require_output(options.json, "the figures", [checkpoint])
    from gen_affect_lib.evaluation.evaluate import evaluate
    from gen_affect_lib.evaluation.report import say
    from gen_affect_lib.evaluation.sets import Plan

    plan = Plan(options.identities, options.words, options.seeds)
    print(say(evaluate(checkpoint, plan, options.json, options.consistency)))
    print(options.json)


def _power_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--identities", type=_count, default=100, metavar="N", help="validation people")
    _words_option(sub)
    _json_option(sub, "two_sample_power")


def _power(options: argparse.Namespace) -> None:
    require_output(options.json, "the figures")
    from gen_affect_lib.evaluation import power

    print(power.say(power.measure_power(options.identities, options.words, options.json)))
    print(options.json)


def _blind_options(sub: argparse.ArgumentParser) -> None:
    _checkpoint_option(sub)
    sub.add_argument("--pairs", type=_count, default=20, metavar="N", help="how many pairs, chosen anew each time")
    sub.add_argument("--out", type=_path, default=OUTPUTS / "blind.html", metavar="FILE", help="the page to write")


def _blind(options: argparse.Namespace) -> None:
    checkpoint = _pipeline_folder(options.checkpoint)
    require_output(options.out, "the page", [checkpoint])
    from itertools import islice

    from gen_affect_lib.device import pick_device
    from gen_affect_lib.files import atomic
    from gen_affect_lib.pipeline import GenAffectPipeline
    from gen_affect_lib.widgets.blind import blind_page, blind_pairs

    pipeline = GenAffectPipeline.from_pretrained(checkpoint).to(pick_device())
    pipeline.set_progress_bar_config(disable=True)
    page = blind_page(list(islice(blind_pairs(pipeline), options.pairs)))
    with atomic(options.out) as partial:
        partial.write_text(page, encoding="utf-8")
    print(f"open {options.out} in a browser")


def _compare_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("table", metavar="WHAT", help="recipes, baselines, fronts, codecs, few_steps, sharing or adapters")
    _profile_option(sub)
    length = sub.add_mutually_exclusive_group()
    _minutes_option(length, "length of each training from scratch, in minutes (default without --steps: 8)")
    about = "length of each training in steps, which is the same on every machine"
    length.add_argument("--steps", type=_count, default=None, metavar="N", help=about)
    sub.add_argument("--seeds", type=_count, default=1, metavar="N", help="how many trainings of each variant")
    about = (
        "people to score on: from the reported seeds for baselines, fronts and adapters, from the validation seeds for "
        "the rest"
    )
    sub.add_argument("--identities", type=_count, default=40, metavar="N", help=about)
    _words_option(sub)
    sub.add_argument("--only", default=None, metavar="NAME,NAME", help="only these variants (default: all)")
    about = "the file for the figures (default: outputs/compare_WHAT.json)"
    sub.add_argument("--json", type=_path, default=None, metavar="FILE", help=about)


def _compare(options: argparse.Namespace) -> None:
    out = options.json or OUTPUTS / f"compare_{options.table}.json"
    require_output(out, "the figures")
    from gen_affect_lib.avatars.splits import REPORT_SEED, VALIDATION_SEED
    from gen_affect_lib.evaluation.sets import Plan
    from gen_affect_lib.evaluation.studies import variants
    from gen_affect_lib.profiles import get_profile

    # A choice that depends on the figures must not be made on the people of the reported figures.
    first = REPORT_SEED if options.table in ("baselines", "fronts", "adapters") else VALIDATION_SEED
    plan = Plan(options.identities, options.words, 1, first)
    minutes = options.minutes or (None if options.steps else 8.0)
    report = variants.compare(
        options.table, get_profile(options.profile), plan, minutes, options.steps, options.seeds, options.only, out
    )
    print(variants.say(options.table, report))
    print(out)


def _bench(options: argparse.Namespace) -> None:
    require_output(options.json, "the figures")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    from gen_affect_lib import bench

    (bench.run_scale if options.scale else bench.run)(options.json)


# --- full scale ---


def _base_options(sub: argparse.ArgumentParser) -> None:
    about = (
        "folder of a Stable Diffusion 3.5 in diffusers' layout (GEN_AFFECT_SD35), or its name on the Hugging Face hub"
    )
    base = os.environ.get("GEN_AFFECT_SD35", "stabilityai/stable-diffusion-3.5-medium")
    sub.add_argument("--base", type=_path, default=base, metavar="FOLDER", help=about)
    about = "bf16 or no (default: as accelerate is told, else bf16 on a GPU that computes in it)"
    sub.add_argument("--precision", choices=["bf16", "no"], default=None, help=about)
    _licence_option(sub)


def _licence_option(sub: argparse.ArgumentParser) -> None:
    about = "you have read the licences that the command says, and they allow your use"
    sub.add_argument("--accept-licence", action="store_true", help=about)


def _faces_option(sub: argparse.ArgumentParser) -> None:
    about = "recognizer of faces: a folder, or a pack of insightface such as buffalo_l or antelopev2"
    sub.add_argument("--faces", default="buffalo_l", metavar="NAME", help=about)


def _adapter_options(sub: argparse.ArgumentParser) -> None:
    folder = OUTPUTS / "fullscale" / "adapter"
    sub.add_argument("--adapter", type=_path, default=folder, metavar="DIR", help="folder of a trained adapter")
    _faces_option(sub)
    sub.add_argument("--text", default="a photograph of a person", help="the prompt")
    sub.add_argument("--steps", type=_sampling_steps, default=28, metavar="N", help="sampling steps")
    sub.add_argument("--guidance", type=_positive, default=4.5, metavar="S", help="guidance scale; 1 is no guidance")
    about = "width and height in pixels, such as 512x768 (default: as trained)"
    sub.add_argument("--size", type=_rectangle, default=None, metavar="WxH", help=about)


def _fullscale_convert_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("name", metavar="NAME", help="ravdess, crema-d or feafa")
    sub.add_argument("source", type=_path, metavar="FOLDER", help="your copy of the collection")
    sub.add_argument("--out", type=_path, default=PHOTOGRAPHS, metavar="DIR", help="folder to write")
    about = "for feafa: another order of its 24 numbers: a file with the kit's unit of each, or -, one a line"
    sub.add_argument("--units", type=_path, default=None, metavar="FILE", help=about)
    _licence_option(sub)


def _fullscale_prepare_options(sub: argparse.ArgumentParser) -> None:
    _base_options(sub)
    about = "image folder of photographs with a metadata.jsonl"
    sub.add_argument("--data", type=_path, default=PHOTOGRAPHS, metavar="FOLDER", help=about)
    out = OUTPUTS / "fullscale" / "prepared"
    sub.add_argument("--out", type=_path, default=out, metavar="DIR", help="folder to write")
    sub.add_argument("--size", type=_rectangle, default="512x512", metavar="WxH", help="width and height in pixels")
    _faces_option(sub)
    sub.add_argument("--text", default="a photograph of a person", help="prompt of pictures without a text")
    about = "the pictures have this size already: do not frame them around the face"
    sub.add_argument("--as-they-are", action="store_true", help=about)
    about = "leave pictures out that cannot be used, and say so, instead of stopping"
    sub.add_argument("--skip", action="store_true", help=about)
    sub.add_argument("--batch-size", type=_count, default=4, metavar="N", help="pictures that are encoded at once")


def _fullscale_train_options(sub: argparse.ArgumentParser) -> None:
    _base_options(sub)
    about = "folder that `fullscale prepare` has written"
    sub.add_argument("--data", type=_path, default=OUTPUTS / "fullscale" / "prepared", metavar="DIR", help=about)
    sub.add_argument("--out", type=_path, default=OUTPUTS / "fullscale", metavar="DIR", help="folder for checkpoints")
    sub.add_argument("--resume", action="store_true", help="continue from the last checkpoint in --out")
    length = sub.add_mutually_exclusive_group()
    length.add_argument("--steps", type=_count, default=10_000, metavar="N", help="length of the training in steps")
    _minutes_option(length, "length of the training in minutes")
    about = "how faces reach the base: tokens in the text, decoupled attention in each block, or both"
    sub.add_argument("--way", choices=["tokens", "decoupled", "both"], default="both", help=about)
    sub.add_argument("--width", type=_count, default=1024, metavar="N", help="width of the fusion")
    about = "rank of a LoRA of the base's attention; 0 leaves the base as it is"
    sub.add_argument("--rank", type=_natural, default=0, metavar="N", help=about)
    sub.add_argument("--batch-size", type=_count, default=8, metavar="N", help="of all processes together")
    sub.add_argument("--accumulation", type=_count, default=1, metavar="N", help="batches of each step")
    sub.add_argument("--learning-rate", type=_positive, default=1e-4, metavar="R", help="peak learning rate")
    sub.add_argument("--warmup", type=_natural, default=500, metavar="N", help="steps of warm-up")
    sub.add_argument("--seed", type=_seed, default=0, help="of all random draws")
    about = "recompute activations in the backward pass: less memory, about a third slower"
    sub.add_argument("--checkpointing", action="store_true", help=about)
    sub.add_argument("--compile", action="store_true", help="use torch.compile: faster after about a minute")


def _fullscale_sample_options(sub: argparse.ArgumentParser) -> None:
    _base_options(sub)
    _adapter_options(sub)
    sub.add_argument("--reference", type=_path, default=None, metavar="FILE", help="a photograph of the person")
    about = "separated by commas: emotion words, or files of photographs that show the expression"
    sub.add_argument("--expressions", default=DEFAULT_EMOTIONS, metavar="WORD,WORD", help=about)
    sub.add_argument("--seed", type=_seed, default=0, help="seed of the noise")
    _consistency_option(sub, default=1.0)
    about = "pictures that are computed at once, which bounds the memory (default: all)"
    sub.add_argument("--at-once", type=_count, default=None, metavar="N", help=about)
    out = OUTPUTS / "fullscale" / "sample.png"
    sub.add_argument("--out", type=_path, default=out, metavar="FILE", help="the file to write")


def _fullscale_evaluate_options(sub: argparse.ArgumentParser) -> None:
    _base_options(sub)
    _adapter_options(sub)
    about = "image folder of people that the adapter was not trained on, two photographs or more of each"
    sub.add_argument("--data", type=_path, default=PHOTOGRAPHS, metavar="FOLDER", help=about)
    sub.add_argument(
        "--words", default=DEFAULT_EMOTIONS, metavar="WORD,WORD", help="the words to draw each person with"
    )
    about = "face pack that scores the identity, another than --faces (default: --faces itself, which is optimistic)"
    sub.add_argument("--judge", default=None, metavar="NAME", help=about)
    _json_option(sub, "fullscale")


def _fullscale(action: str) -> Callable[[argparse.Namespace], None]:
    """The function of `fullscale.commands` for an action."""

    def run(options: argparse.Namespace) -> None:
        _check_fullscale(options)
        from gen_affect_lib.fullscale import commands

        getattr(commands, f"run_{action}")(options)

    return run


def _fullscale_sample(options: argparse.Namespace) -> None:
    entries = _split_expressions(options.expressions)
    if not entries:
        raise UserError("--expressions names none: give words separated by commas, such as joy,fear")
    if options.reference is None or not options.reference.is_file():
        raise UserError(f"--reference {options.reference} is no file: give a photograph of the person")
    _check_fullscale(options)
    from gen_affect_lib.pictures import require_picture_output

    require_picture_output(options.out, [options.reference])
    from gen_affect_lib.fullscale import commands

    commands.run_sample(options, entries)


def _check_fullscale(options: argparse.Namespace) -> None:
    """Find folders that are missing before anything large is imported."""
    if "data" in options and not options.data.is_dir():
        raise UserError(f"--data {options.data} is no folder: give one as the help of this command says")
    if "json" in options:
        require_output(options.json, "the figures")
    if options.action in ("convert", "prepare", "train"):
        require_output_folder(options.out, "the result")


def _export_onnx_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("folder", nargs="?", type=_path, default=OUTPUTS / "onnx", metavar="DIR", help="where to write")
    _checkpoint_option(sub)


def _export_onnx(options: argparse.Namespace) -> None:
    checkpoint = _pipeline_folder(options.checkpoint)
    require_output_folder(options.folder, "the ONNX files", [checkpoint])
    from gen_affect_lib.export import export_onnx
    from gen_affect_lib.pipeline import GenAffectPipeline

    for path in export_onnx(GenAffectPipeline.from_pretrained(checkpoint), options.folder):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


def _course_run_options(sub: argparse.ArgumentParser) -> None:
    _profile_option(sub, "profile", nargs="?")
    _only_option(sub)
    sub.add_argument("--in-place", action="store_true", help="write the outputs into the notebooks themselves")
    about = "keep the numbers of this run as the reference for all readers"
    sub.add_argument("--reference", action="store_true", help=about)


def _course_run(options: argparse.Namespace) -> None:
    from gen_affect_lib.course.release.run import run_course
    from gen_affect_lib.profiles import get_profile

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    profile = get_profile(options.profile).name
    run_course(profile, only=options.only, in_place=options.in_place, reference=options.reference)


def _course_student_options(sub: argparse.ArgumentParser) -> None:
    about = "a new folder, an empty one, or an older student edition"
    sub.add_argument("folder", nargs="?", type=_path, default=OUTPUTS / "student", metavar="DIR", help=about)


def _course_student(options: argparse.Namespace) -> None:
    from gen_affect_lib.course.release.student import write_student

    edition = write_student(options.folder)
    print(f"{len(edition.notebooks)} notebooks without solutions are in {options.folder}")
    for changed, new in edition.beside.items():
        print(f"{changed.name} was changed since it was handed out and stays as it is: the new one is {new.name}")


def _course_validate_options(sub: argparse.ArgumentParser) -> None:
    _only_option(sub)
    _jobs_option(sub)


def _course_validate(options: argparse.Namespace) -> None:
    from gen_affect_lib.course.release.validate import validate

    validate(options.only, options.jobs)


def _course_grade_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "folder", type=_path, metavar="DIR", help="the folder of the submitted notebooks; may have subfolders"
    )
    sub.add_argument(
        "--out", type=_path, default=None, metavar="DIR", help="folder for the grades (default: DIR_grades)"
    )
    sub.add_argument("--seconds", type=_positive, default=600.0, help="time limit of one submission in seconds")
    about = "a CSV file of all students, such as Moodle's or Canvas' own: says who is missing"
    sub.add_argument("--roster", type=_path, metavar="FILE", default=None, help=about)
    about = "for whom the grades of the roster's students are written (default: csv)"
    sub.add_argument("--format", choices=["csv", "moodle", "canvas"], default="csv", help=about)
    sub.add_argument("--due", metavar="TIME", default=None, help="the deadline, as in 2026-12-01 or 2026-12-01T18:00")
    about = "part of the points that is lost for each day begun after the deadline (default: 0, late ones are marked)"
    sub.add_argument("--late-percent", type=_percent, metavar="P", default=0.0, help=about)
    about = "give a wrong answer the part of the points that its right cases are of all cases"
    sub.add_argument("--partial", action="store_true", help=about)
    about = "run each submission in a container of this image, by docker or podman; see INSTRUCTORS.md"
    sub.add_argument("--container", metavar="IMAGE", default=None, help=about)
    about = "which attempt counts if a submission was handed in more than once (default: best)"
    sub.add_argument("--counts", choices=["best", "last"], default="best", help=about)
    about = "memory limit of one submission in GB"
    sub.add_argument("--memory-gb", type=_positive, default=4.0, metavar="GB", help=about)
    _jobs_option(sub)


def _course_grade(options: argparse.Namespace) -> None:
    from gen_affect_lib.course.grading.grade import grade_folder, say

    table = grade_folder(
        options.folder,
        options.out,
        seconds=options.seconds,
        memory_gb=options.memory_gb,
        jobs=options.jobs,
        counts=options.counts,
        container=options.container,
        roster=options.roster,
        form=options.format,
        due=options.due,
        late_percent=options.late_percent,
        partial=options.partial,
    )
    say(f"the points are in {table}, and the feedback in {table.parent / 'feedback'}")


def _course_project_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("source", type=_path, metavar="NOTEBOOK_OR_DIR", help="a notebook, or the folder of all of them")
    about = "folder for the table and the reports (default: outputs/projects/collected)"
    sub.add_argument("--out", type=_path, default=OUTPUTS / "projects" / "collected", metavar="DIR", help=about)
    _profile_option(sub)
    about = "computing time of one notebook in seconds (default: two hours)"
    sub.add_argument("--seconds", type=_positive, default=7200.0, help=about)
    about = "memory limit of one notebook in GB"
    sub.add_argument("--memory-gb", type=_positive, default=6.0, metavar="GB", help=about)
    about = "run each notebook in a container of this image, by docker or podman; see INSTRUCTORS.md"
    sub.add_argument("--container", metavar="IMAGE", default=None, help=about)
    sub.add_argument("--jobs", type=_count, default=1, metavar="N", help="how many run at once (default: 1)")


def _course_project(options: argparse.Namespace) -> None:
    from gen_affect_lib.course.projects.collect import collect
    from gen_affect_lib.profiles import get_profile

    table = collect(
        options.source,
        options.out,
        get_profile(options.profile).name,
        seconds=options.seconds,
        memory_gb=options.memory_gb,
        jobs=options.jobs,
        container=options.container,
    )
    print(f"the points are in {table}, and the reports beside it")


def _course_timings(options: argparse.Namespace) -> None:
    from gen_affect_lib.course.release import tables

    changed = tables.refresh()
    print("changed: " + ", ".join(changed) if changed else "nothing to change")


def _course_light(options: argparse.Namespace) -> None:
    from gen_affect_lib.course import notebooks
    from gen_affect_lib.course.release import light

    saved = light.compress_notebooks(notebooks())
    print("\n".join(f"{name}: {size / 1e6:.1f} MB less" for name, size in saved.items()) or "nothing to compress")


# --- imports ---------------------------------------------------------------------------------------------------------


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection while packages are imported: their objects stay, and it takes a fifth of that time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor does a later collection look at them
        gc.enable()


# --- arguments and files ---------------------------------------------------------------------------------------------


def _split_expressions(text: str) -> list[str]:
    """The entries of a list with commas. The name of a file may have commas itself: the longest that exists counts."""
    parts, entries = text.split(","), []
    while parts:
        longest = next((n for n in range(len(parts), 1, -1) if os.path.isfile(",".join(parts[:n]).strip())), 1)
        entries.append(",".join(parts[:longest]).strip())
        del parts[:longest]
    return [entry for entry in entries if entry]


def _expression_or_file(entry: str) -> Expression | Path:
    """The expression of a word, or the path of a picture. Raises UserError for a word or file that does not exist."""
    from gen_affect_lib.avatars import Expression

    path = _path(entry)
    if not path.suffix and path.name == entry and "," not in entry:
        return Expression.named(entry)
    if not os.path.isfile(path):
        raise UserError(f"--emotions {entry} is no file: give a picture of a face, or an emotion word")
    return path


def _pipeline_folder(checkpoint: Path) -> Path:
    """The folder of the pipeline: `checkpoint` itself, or its subfolder `pipeline`, which `train --out` writes."""
    if not checkpoint.is_dir():
        raise UserError(
            f"--checkpoint {checkpoint} is no folder: train one with "
            "`python -m gen_affect_lib train`, or leave the option out"
        )
    return checkpoint / "pipeline" if (checkpoint / "pipeline").is_dir() else checkpoint
