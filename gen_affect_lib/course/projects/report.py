"""The report on a project: criteria with points, the measured numbers, and pictures.

Of the 100 points of a project, `AUTOMATIC` are given here; a person gives the others for what no number shows, by the
rubric in `notebooks/projects/README.md`.

A criterion compares the answer with the baseline on the same people, by the interval of the paired bootstrap
(`evaluation.metrics.bootstrap.difference`). `gain` gives points for what is better than the baseline and none for the
baseline itself; `kept` gives points for what must not become worse.
"""

from __future__ import annotations

import base64
import io
import json
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from gen_affect_lib.display import SHORTEST_ALT, show, to_png
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import atomic, write_json
from gen_affect_lib.paths import OUTPUTS
from gen_affect_lib.pictures import open_picture

AUTOMATIC, BY_HAND = 60, 40  # points of a project: of its report, and of a person who reads the notebook
WIDEST = 720  # pixels of a picture on the page; a larger one is shown at a higher density
LARGEST = 4 * 2**20  # bytes of a report's file
_STYLE = """
:root { color-scheme: light dark; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; }
table { border-collapse: collapse; } caption { text-align: left; font-weight: bold; padding: .3rem 0; }
th, td { border: 1px solid #767676; padding: .3rem .7rem; text-align: left; vertical-align: top; }
td.number { text-align: right; white-space: nowrap; } img { max-width: 100%; background: #fff; }
pre { overflow-x: auto; padding: .7rem; border: 1px solid #767676; font: .9rem/1.4 monospace; }
"""


@dataclass(frozen=True)
class Criterion:
    """One line of a report.

    name: what is asked, such as "larger area than the baseline". points: what was reached, 0 to `of`. said: one
    sentence with the measured number, its 95 % interval and the bar.

    Raises ValueError for points out of their range.
    """

    name: str
    points: float
    of: float
    said: str

    def __post_init__(self):
        if not 0 <= self.points <= self.of:
            raise ValueError(f"{self.name}: {self.points} points are not in 0 to {self.of}")


def gain(name: str, of: float, difference: Mapping[str, float], full: float) -> Criterion:
    """Points for being better than the baseline: all from `full` on, and in proportion below.

    Where the interval contains 0, the gain may be chance, and half of the points are given. None for no gain.

    Args:
        difference: ours minus the baseline's, "value", "low" and "high", as from `bootstrap.difference`.
        full: the difference that gives all points, > 0.
    """
    value = difference["value"]
    part = min(1.0, max(0.0, value / full)) * (1.0 if difference["low"] > 0 else 0.5)
    bar = f"all points from {full:+.3g} on"
    if value > 0 >= difference["low"]:
        bar += ", half as many since the interval contains 0"
    return _criterion(name, of, part, f"{_said(difference)}; {bar}")


def kept(name: str, of: float, difference: Mapping[str, float], margin: float) -> Criterion:
    """Points for not being worse than the baseline by more than `margin`; none from twice the margin on.

    Args:
        difference: ours minus the baseline's, higher is better, as for `gain`.
        margin: the loss that costs nothing, > 0.
    """
    part = min(1.0, max(0.0, 2 + difference["value"] / margin))
    bar = f"all points down to {-margin:+.3g}, none from {-2 * margin:+.3g}"
    return _criterion(name, of, part, f"{_said(difference)}; {bar}")


def reached(name: str, of: float, estimate: Mapping[str, float], none: float, full: float) -> Criterion:
    """Points for a number that is compared with no baseline: none at `none`, all at `full`, in proportion between.

    full may be below `none`, for a number that should be small. estimate: "value", "low" and "high", as from
    `bootstrap.estimate`.
    """
    part = min(1.0, max(0.0, (estimate["value"] - none) / (full - none)))
    number = f"{estimate['value']:.3f}, 95 % interval {estimate['low']:.3f} to {estimate['high']:.3f}"
    return _criterion(name, of, part, f"Measured: {number}; no points at {none:.3g}, all at {full:.3g}")


def _criterion(name: str, of: float, part: float, said: str) -> Criterion:
    if math.isnan(part):  # nothing could be measured
        return Criterion(name, 0.0, of, f"{said}. Nothing could be measured.")
    return Criterion(name, round(of * part, 1), of, f"{said}.")


def _said(difference: Mapping[str, float]) -> str:
    value, low, high = (difference[key] for key in ("value", "low", "high"))
    return f"Yours minus the baseline's: {value:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}"


@dataclass(frozen=True)
class Report:
    """What a project has reached. The last expression of a cell shows it; `print` prints it as a table.

    figures: every measured number, with the plan of people and words, the seeds and the machine; plain data for JSON.
    pictures: each with its alternative text.

    Raises UserError for a picture whose alternative text is too short.
    """

    project: str
    criteria: tuple[Criterion, ...]
    figures: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[tuple[Image.Image, str], ...] = ()

    def __post_init__(self):
        for _, alt in self.pictures:
            if len(alt) < SHORTEST_ALT:
                raise UserError(f"alt is {alt!r}: describe the picture in at least {SHORTEST_ALT} characters")

    @property
    def points(self) -> float:
        """The points of all criteria together."""
        return round(sum(criterion.points for criterion in self.criteria), 1)

    @property
    def of(self) -> float:
        """The points that could be reached, `AUTOMATIC` in a whole report."""
        return round(sum(criterion.of for criterion in self.criteria), 1)

    def __str__(self) -> str:
        width = max((len(criterion.name) for criterion in self.criteria), default=0)
        lines = [f"{self.project}: {self.points:g} of {self.of:g} points"]
        for one in self.criteria:
            lines.append(f"  {one.name:{width}}  {one.points:5.1f} of {one.of:g}")
            lines += textwrap.wrap(one.said, 100, initial_indent="    ", subsequent_indent="    ")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The table of criteria."""
        rows = [
            f'<tr><th scope="row">{escape(one.name)}</th><td class="number">{one.points:g} of {one.of:g}</td>'
            f"<td>{escape(one.said)}</td></tr>"
            for one in self.criteria
        ]
        caption = f"Project {escape(self.project)}: {self.points:g} of {self.of:g} points"
        head = '<tr><th scope="col">Criterion</th><th scope="col">Points</th><th scope="col">Measured</th></tr>'
        body = "\n".join(rows)
        return f"<table>\n<caption>{caption}</caption>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"

    def _ipython_display_(self) -> None:
        """Show the table, and then the pictures, which `show` describes."""
        from IPython.display import display

        display({"text/html": self._repr_html_(), "text/plain": str(self)}, raw=True)
        for picture, alt in self.pictures:
            show(picture, alt, width=min(picture.width, WIDEST))

    def page(self) -> str:
        """One HTML page that loads nothing else."""
        title = f"Report on the project {escape(self.project)}"
        parts = [f"<h1>{title}</h1>", self._repr_html_()]
        parts.append(
            f"<p>These are the {AUTOMATIC} points that are counted. The other {BY_HAND} are given by a person who "
            "reads the notebook: see the rubric of the projects.</p>"
        )
        for picture, alt in self.pictures:
            parts.append(f'<p><img src="data:image/png;base64,{_encoded(picture)}" alt="{escape(alt)}"></p>')
        parts.append(f'<h2>All numbers</h2>\n<pre tabindex="0">{escape(json.dumps(self.figures, indent=1))}</pre>')
        body = "\n".join(parts)
        policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n"
            f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
        )

    def write(self, folder: str | Path | None = None) -> Path:
        """Write report.html and report.json into a folder, by default outputs/projects/PROJECT; return the folder."""
        folder = place(self.project) if folder is None else Path(folder)
        with atomic(folder / "report.html") as partial:
            partial.write_text(self.page(), encoding="utf-8")
        pictures = [{"alt": alt, "png": _encoded(picture)} for picture, alt in self.pictures]
        content = {"project": self.project, "points": self.points, "of": self.of}
        content |= {"criteria": [vars(one) for one in self.criteria], "figures": self.figures, "pictures": pictures}
        write_json(folder / "report.json", content)
        return folder


def place(project: str) -> Path:
    """The folder into which a report is written by default."""
    return OUTPUTS / "projects" / project


def read_report(path: str | Path) -> Report:
    """The report that `write` has left as report.json. It may come from a stranger, so nothing of it is believed.

    Raises UserError for a file that is no such report, or too large.
    """
    path = Path(path)
    try:
        size, text = path.stat().st_size, path.read_bytes()[:LARGEST]
    except OSError as error:
        raise UserError(f"there is no report: {error.strerror}") from error
    if size > LARGEST:
        raise UserError(f"{path.name} is larger than {LARGEST >> 20} MB: show fewer or smaller pictures")
    try:
        content = json.loads(text)
        criteria = tuple(
            Criterion(str(one["name"])[:200], float(one["points"]), float(one["of"]), str(one["said"])[:1000])
            for one in content["criteria"]
        )
        pictures = tuple((_decoded(one["png"]), str(one["alt"])[:2000]) for one in content["pictures"])
        report = Report(str(content["project"])[:60], criteria, dict(content["figures"]), pictures)
        json.dumps(report.figures, allow_nan=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path.name} is no report ({type(error).__name__}): make it with `Report.write`") from error
    return report


def _encoded(picture: Image.Image) -> str:
    return base64.b64encode(to_png(picture)).decode("ascii")


def _decoded(text: str) -> Image.Image:
    return open_picture(Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)))
