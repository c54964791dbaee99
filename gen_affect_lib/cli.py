"""The commands. Each loads what it needs when it runs, so that `--help` answers at once.

An error that the user can cause ends in one line on stderr and exit code 2; a traceback means a fault of ours.
"""

import argparse
import os
import sys
from pathlib import Path

from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import CHECKPOINTS, OUTPUTS

# What `train-encoder` trains: the keys of `readers.TRAINERS`, which would load torch.
READERS = ("identity", "detector", "landmarks", "expression", "identity-judge", "expression-judge")
FEELINGS = "joy,amusement,surprise,fear,sadness,anger,disgust"


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
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
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _fail(message) -> int:
    print("error: " + " ".join(str(message).split()), file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message} (see `{self.prog} --help`)")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m gen_affect_lib",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        description="Gen-AFFECT from scratch: one person, many fine-grained expressions.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, run, about: str):
        sub = commands.add_parser(
            name, help=about, description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        sub.set_defaults(run=run)
        return sub

    command("doctor", _doctor, "check packages, system libraries, device, disk, and what the course will take here")

    sub = command("render", _render, "draw one avatar")
    sub.add_argument("--identity", type=_seed, default=0, metavar="SEED", help="who it is")
    sub.add_argument("--emotion", default="joy", metavar="WORD", help="one of the 135 emotion words, or neutral")
    sub.add_argument("--appearance", type=_seed, default=0, metavar="SEED", help="clothes and background")
    sub.add_argument("--size", type=int, default=256, metavar="PX", help="side of the picture in pixels")
    sub.add_argument("--out", type=Path, default=OUTPUTS / "avatar.png", metavar="FILE", help="where the picture goes")

    sub = command(
        "train",
        _train,
        "train the model of one profile; on several GPUs by `accelerate launch -m gen_affect_lib train`",
    )
    sub.add_argument(
        "--profile", default=None, metavar="NAME", help="smoke, laptop or gpu; None takes what this machine can do"
    )
    sub.add_argument(
        "--data",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="your own image folder with metadata.jsonl, which laptop fits the shipped checkpoint to; of five people "
        "or more, one in five is kept for validation; None draws avatars",
    )
    sub.add_argument("--out", type=Path, default=OUTPUTS / "train", metavar="DIR", help="where the checkpoints go")
    sub.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    sub.add_argument(
        "--minutes",
        type=_positive,
        default=None,
        metavar="M",
        help="how long the training lasts; None takes the profile's own time or number of steps",
    )
    sub.add_argument(
        "--size",
        type=int,
        default=None,
        metavar="PX",
        help="side of the pictures that it learns to draw, such as 64 or 128; None takes the profile's own",
    )
    sub.add_argument(
        "--from-nothing",
        action="store_true",
        help="do not start from the shipped checkpoint: train what it was trained with",
    )

    sub = command("train-encoder", _train_encoder, "train a network that reads faces")
    sub.add_argument("name", metavar="NAME", help="one of " + ", ".join(READERS))
    sub.add_argument(
        "--out",
        type=Path,
        default=None,
        metavar="DIR",
        help="where it goes; None takes a folder of its name under outputs",
    )
    sub.add_argument(
        "--minutes",
        type=_positive,
        default=None,
        metavar="M",
        help="how long the training lasts; None takes the profile's own time",
    )
    sub.add_argument(
        "--profile", default=None, metavar="NAME", help="smoke, laptop or gpu; None takes what this machine can do"
    )

    sub = command("sample", _sample, "generate one person with several expressions")
    sub.add_argument("--checkpoint", type=Path, default=CHECKPOINTS / "gen_affect", metavar="DIR", help="trained model")
    sub.add_argument(
        "--reference",
        type=Path,
        default=None,
        metavar="FILE",
        help="a picture of the person; None draws a person who was never trained on",
    )
    sub.add_argument(
        "--which",
        type=_seed,
        default=None,
        metavar="N",
        help="which face of --reference, from 0 at the left; None takes the largest",
    )
    sub.add_argument(
        "--emotions",
        default=FEELINGS,
        metavar="WORD,WORD",
        help="what to show, separated by commas: emotion words, or files with faces to copy it from",
    )
    sub.add_argument("--steps", type=_count, default=None, metavar="N", help="sampling steps; None is the model's own")
    sub.add_argument("--seed", type=_seed, default=0, help="of the noise")
    sub.add_argument(
        "--consistency",
        type=float,
        default=1.0,
        metavar="C",
        help="how much the images share of what nothing tells them, from 0 (each alone) to 1",
    )
    sub.add_argument("--out", type=Path, default=OUTPUTS / "sample.png", metavar="FILE", help="where the picture goes")

    sub = command("evaluate", _evaluate, "let the judges score what a checkpoint draws of people it never saw")
    sub.add_argument("--checkpoint", type=Path, default=CHECKPOINTS / "gen_affect", metavar="DIR", help="trained model")
    sub.add_argument("--identities", type=_count, default=100, metavar="N", help="people, from seed 2,000,000 on")
    sub.add_argument("--words", type=_count, default=27, metavar="N", help="how many of the 135, spread over the tree")
    sub.add_argument("--seeds", type=_count, default=2, metavar="N", help="sets of each person, with other noise")
    sub.add_argument(
        "--consistency",
        type=float,
        default=0.0,
        metavar="C",
        help="how much the images of a set share, from 0 (each alone) to 1",
    )
    sub.add_argument(
        "--json", type=Path, default=OUTPUTS / "evaluation.json", metavar="FILE", help="where the figures go"
    )

    sub = command(
        "compare",
        _compare,
        "train other recipes, baselines or autoencoders beside ours, or share otherwise, and score all",
    )
    sub.add_argument("table", metavar="WHAT", help="recipes, baselines, codecs or sharing")
    sub.add_argument(
        "--profile", default=None, metavar="NAME", help="smoke, laptop or gpu; None takes what this machine can do"
    )
    length = sub.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes",
        type=_positive,
        default=None,
        metavar="M",
        help="how long each is trained, from nothing; None, and no --steps: 8",
    )
    length.add_argument(
        "--steps",
        type=_count,
        default=None,
        metavar="N",
        help="for how many steps each is trained: the same on any machine, however busy",
    )
    sub.add_argument("--seeds", type=_count, default=1, metavar="N", help="how often each is trained")
    sub.add_argument(
        "--identities",
        type=_count,
        default=40,
        metavar="N",
        help="people to score on: reported ones for baselines, validation's for what is chosen by it",
    )
    sub.add_argument("--words", type=_count, default=27, metavar="N", help="how many of the 135, spread over the tree")
    sub.add_argument("--only", default=None, metavar="NAME,NAME", help="only these")
    sub.add_argument(
        "--json",
        type=Path,
        default=None,
        metavar="FILE",
        help="where the figures go; None takes a file named after what is compared, under outputs",
    )

    sub = command("bench", _bench, "time the MM-DiT against diffusers' with the same weights")
    sub.add_argument("--json", type=Path, default=OUTPUTS / "bench.json", metavar="FILE", help="where the figures go")

    course = command("course", None, "run the notebooks and measure them, hand them out, and grade what comes back")
    actions = course.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_Parser)
    sub = actions.add_parser(
        "run",
        help="run every notebook in order and measure time and memory",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sub.add_argument(
        "profile",
        nargs="?",
        default=None,
        metavar="PROFILE",
        help="smoke, laptop or gpu; None takes what this machine can do",
    )
    sub.add_argument("--only", default=None, metavar="NAME,NAME", help="only these notebooks, by number or name")
    sub.add_argument("--in-place", action="store_true", help="keep the outputs in the notebooks themselves")
    sub.add_argument(
        "--reference", action="store_true", help="make this run the one that readers' runs are compared with"
    )
    sub.set_defaults(run=_course_run)
    sub = actions.add_parser(
        "student",
        help="write the notebooks without solutions and outputs",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sub.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=OUTPUTS / "student",
        metavar="DIR",
        help="a new folder, an empty one, or an older student edition",
    )
    sub.set_defaults(run=_course_student)
    sub = actions.add_parser(
        "validate",
        help="prove that the solutions pass, and that without them only the checks fail",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sub.add_argument("--only", default=None, metavar="NAME,NAME", help="only these notebooks, by number or name")
    sub.add_argument(
        "--jobs", type=_count, default=None, metavar="N", help="how many run at once; None takes one for each core"
    )
    sub.set_defaults(run=_course_validate)
    sub = actions.add_parser(
        "grade",
        help="submitted notebooks to a table of points, and a page of feedback each",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sub.add_argument("folder", type=Path, metavar="DIR", help="where the submitted notebooks lie, in folders or not")
    sub.add_argument("--out", type=Path, default=None, metavar="DIR", help="where the grades go; None takes DIR_grades")
    sub.add_argument("--seconds", type=_positive, default=600.0, help="the most that one submission may take")
    sub.add_argument(
        "--memory-gb", type=_positive, default=4.0, metavar="GB", help="the most that one submission may hold"
    )
    sub.add_argument(
        "--jobs", type=_count, default=None, metavar="N", help="how many run at once; None takes one for each core"
    )
    sub.set_defaults(run=_course_grade)
    sub = actions.add_parser(
        "timings", help="write the measured times into the notebooks, README.md and INSTRUCTORS.md"
    )
    sub.set_defaults(run=_course_timings)

    sub = actions.add_parser("light", help="compress the pictures in the notebooks' outputs")
    sub.set_defaults(run=_course_light)
    return parser


# --- kinds of values -------------------------------------------------------------------------------------------------


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: give a whole number from 0 up")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number to count by: give a whole number from 1 up")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give a number of minutes above 0")
    return number


def _save(picture, out: Path) -> None:
    """Write a PIL image, in the format that the name ends in."""
    from PIL import Image

    if out.is_dir():
        raise UserError(f"{out} is a folder: give --out the name of a picture, such as {out / 'picture.png'}")
    if out.suffix.lower() not in Image.registered_extensions():
        raise UserError(f"{out} ends in {out.suffix or 'nothing'!r}: give --out a name that ends in .png")
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out)
    print(out)


# --- the commands ----------------------------------------------------------------------------------------------------


def _doctor(options) -> int:
    from gen_affect_lib import doctor

    return doctor.report()


def _render(options) -> None:
    from PIL import Image

    from gen_affect_lib.avatars import Appearance, Avatar, Identity

    avatar = Avatar(
        Identity.sample(options.identity), _expression(options.emotion), Appearance.sample(options.appearance)
    )
    _save(Image.fromarray(avatar.render(options.size)), options.out)


def _expression(word: str):
    from gen_affect_lib.avatars import Expression

    return Expression.neutral() if word == "neutral" else Expression.named(word)


def _train(options) -> None:
    if options.data is not None and not options.data.is_dir():
        raise UserError(f"--data {options.data} is no folder: give an image folder with a metadata.jsonl in it")
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out} is a file: give a folder for the checkpoints")
    from gen_affect_lib.device import processes
    from gen_affect_lib.profiles import get_profile
    from gen_affect_lib.training.assembly import train_profile
    from gen_affect_lib.training.checkpoint import LAST

    if (options.out / LAST).exists() and not options.resume:
        raise UserError(f"--out {options.out} holds a run already: go on with it by --resume, or give another folder")
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


def _train_encoder(options) -> None:
    out = options.out or OUTPUTS / "encoders" / options.name
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: give a folder for the network")
    from gen_affect_lib.readers import train_reader

    train_reader(options.name, out, options.minutes, options.profile)
    print(out)


def _sample(options) -> None:
    words = [word.strip() for word in options.emotions.split(",") if word.strip()]
    if not words:
        raise UserError("--emotions names no emotion: give words separated by commas, such as joy,fear")
    checkpoint = _pipeline_folder(options.checkpoint)
    if options.reference is not None and not options.reference.is_file():
        raise UserError(f"--reference {options.reference} is no file: give a picture of a face")
    expressions = [_told(word) for word in words]  # a misspelt word ends here, before anything heavy loads

    import torch

    from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
    from gen_affect_lib.avatars.splits import VALIDATION_SEED
    from gen_affect_lib.device import pick_device
    from gen_affect_lib.display import grid, to_image
    from gen_affect_lib.pictures import open_picture, square
    from gen_affect_lib.pipeline import GenAffectPipeline

    pipeline = GenAffectPipeline.from_pretrained(checkpoint).to(pick_device())
    unseen = Avatar(Identity.sample(VALIDATION_SEED), Expression.neutral(), Appearance.sample(VALIDATION_SEED))
    reference = options.reference or to_image(unseen.render(256))
    images = pipeline(
        reference,
        expressions,
        options.steps,
        generator=torch.Generator().manual_seed(options.seed),
        which="largest" if options.which is None else options.which,
        consistency=options.consistency,
    ).images
    titles = ["reference", *(Path(word).stem if Path(word).suffix else word for word in words)]
    _save(grid([square(open_picture(reference), 256), *images], titles, tile=160), options.out)


def _told(entry: str):
    """The expression of a word, or the path of a file that shows one."""
    if not Path(entry).suffix:
        return _expression(entry)
    if not Path(entry).is_file():
        raise UserError(f"--emotions {entry} is no file: give a picture of a face, or an emotion word")
    return Path(entry)


def _evaluate(options) -> None:
    _require_file_name(options.json)
    checkpoint = _pipeline_folder(options.checkpoint)
    from gen_affect_lib.evaluation.evaluate import evaluate, say
    from gen_affect_lib.evaluation.sets import Plan

    print(
        say(
            evaluate(
                checkpoint, Plan(options.identities, options.words, options.seeds), options.json, options.consistency
            )
        )
    )
    print(options.json)


def _compare(options) -> None:
    out = options.json or OUTPUTS / f"compare_{options.table}.json"
    _require_file_name(out)
    from gen_affect_lib.avatars.splits import REPORT_SEED, VALIDATION_SEED
    from gen_affect_lib.evaluation.sets import Plan
    from gen_affect_lib.evaluation.studies import variants
    from gen_affect_lib.profiles import get_profile

    # What is chosen by its figures must not be chosen on the people that are reported.
    first = REPORT_SEED if options.table == "baselines" else VALIDATION_SEED
    plan = Plan(options.identities, options.words, 1, first)
    minutes = options.minutes or (None if options.steps else 8.0)
    report = variants.compare(
        options.table, get_profile(options.profile), plan, minutes, options.steps, options.seeds, options.only, out
    )
    print(variants.say(report))
    print(out)


def _require_file_name(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"--json {path} is a folder: give the name of a file")


def _pipeline_folder(checkpoint: Path) -> Path:
    if not checkpoint.is_dir():
        raise UserError(
            f"--checkpoint {checkpoint} is no folder: train one with "
            "`python -m gen_affect_lib train`, or leave the option out"
        )
    return checkpoint / "pipeline" if (checkpoint / "pipeline").is_dir() else checkpoint  # what `train --out` wrote


def _bench(options) -> None:
    _require_file_name(options.json)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    from gen_affect_lib import bench

    bench.run(options.json)


def _course_run(options) -> None:
    from gen_affect_lib.course.release.run import run_course
    from gen_affect_lib.profiles import get_profile

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    run_course(
        get_profile(options.profile).name, only=options.only, in_place=options.in_place, reference=options.reference
    )


def _course_student(options) -> None:
    from gen_affect_lib.course.release.student import write_student

    written = write_student(options.folder)
    print(f"{len(written)} notebooks without solutions are in {options.folder}")


def _course_validate(options) -> None:
    from gen_affect_lib.course.release.validate import validate

    validate(options.only, options.jobs)


def _course_grade(options) -> None:
    from gen_affect_lib.course.grading.grade import grade_folder

    table = grade_folder(
        options.folder, options.out, seconds=options.seconds, memory_gb=options.memory_gb, jobs=options.jobs
    )
    print(f"the points are in {table}, and the feedback in {table.parent / 'feedback'}")


def _course_timings(options) -> None:
    from gen_affect_lib.course.release import timings

    changed = timings.refresh()
    print("changed: " + ", ".join(changed) if changed else "nothing to change")


def _course_light(options) -> None:
    from gen_affect_lib.course import notebooks
    from gen_affect_lib.course.release import light

    saved = light.compress_notebooks(notebooks())
    print("\n".join(f"{name}: {size / 1e6:.1f} MB less" for name, size in saved.items()) or "nothing to compress")
