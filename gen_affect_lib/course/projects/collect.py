"""Runs the notebooks of projects that were handed in, and collects their reports: a table, and a page for each.

A notebook runs as one that is graded does, in a `sandbox`: without a network, in a folder of its own. Its report is
made by its own code. It is read as plain data and drawn again as a page, so that nothing of a submission runs when the
page is looked at. A person reads the notebook for the other points, and sees whether the report was honestly made.
"""

from __future__ import annotations

import re
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gen_affect_lib.course.grading import jail, sandbox, submissions, suspects
from gen_affect_lib.course.grading.grade import say
from gen_affect_lib.course.grading.grades import plain_number, write_rows
from gen_affect_lib.course.grading.submissions import Submission, page_name
from gen_affect_lib.course.jobs import run_parallel
from gen_affect_lib.course.projects import PROJECTS
from gen_affect_lib.course.projects.report import AUTOMATIC, BY_HAND, Report, read_report
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import atomic, require_output_folder
from gen_affect_lib.paths import NOTEBOOKS

SECONDS, MEMORY_GB = 7200.0, 6.0  # of computing time: a project trains several times
HEADER = ["submission", "project", "points", "of", f"by hand, of {BY_HAND}", "problem", "look at", "page", "criteria"]
# Run after the last cell: the notebook's last report is written, whether or not the notebook does so itself.
_WRITE = """
from gen_affect_lib.course.projects.report import Report as _Report
_reports = [one for one in list(globals().values()) if isinstance(one, _Report) and one.project == "{project}"]
if _reports:
    _reports[-1].write()
"""


@dataclass
class Collected:
    """What became of one submission: its report, or the problem in one line; `project` is empty if it has none.

    look_at: cells that a person should look at, since honest work does not contain such code.
    """

    submission: str
    project: str = ""
    report: Report | None = None
    problem: str = ""
    look_at: str = ""

    @property
    def row(self) -> list[str]:
        if self.report is None:
            return [self.submission, self.project, "", "", "", self.problem, self.look_at, "", ""]
        criteria = "; ".join(f"{one.name} {plain_number(one.points)}/{one.of:g}" for one in self.report.criteria)
        points = [plain_number(self.report.points), f"{self.report.of:g}", ""]
        page = f"{page_name(self.submission)}.html"
        return [self.submission, self.project, *points, self.problem, self.look_at, page, criteria]


def collect(
    source: Path,
    out: Path,
    profile: str,
    *,
    seconds: float = SECONDS,
    memory_gb: float = MEMORY_GB,
    jobs: int | None = 1,
    container: str | None = None,
) -> Path:
    """Run one notebook, or all in a folder; return the path of the table, projects.csv in `out`.

    One row for each submission. One that fails has its problem in its row; the others are not affected. The pages are
    beside the table. The table is written again after each submission.

    Args:
        profile: at which all of them run, whatever their parameters say.
        seconds, memory_gb, container: limits for one submission, as for `sandbox.run`.
        jobs: how many run at once.

    Raises UserError if there is nothing to run, or if `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    if not source.exists():
        raise UserError(f"{source} does not exist: give a notebook, or the folder of those that were handed in")
    require_output_folder(out, "the reports")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"--out {out} is inside the folder of submissions: give a folder outside {source}")
    with tempfile.TemporaryDirectory(prefix="gen_affect_unpacked_", ignore_cleanup_errors=True) as unpacked:
        if source.is_dir():
            found = submissions.find(source, Path(unpacked))
        else:
            found = [Submission(submissions.name_of(source.name), source)]
        if not found:
            raise UserError(f"there is no notebook in {source}: give the folder of those that were handed in")
        if not container and (missing := jail.namespaces_missing()):
            say(f"projects run without namespaces ({missing}): they can read and change your files; see --container")
        limits = {"seconds": seconds, "memory_gb": memory_gb, "container": container}

        def work(submission: Submission, stopped: Callable[[], bool]) -> Collected:
            return collect_one(submission, profile, **limits, stopped=stopped)

        rows: dict[str, Collected] = {}
        for one in run_parallel(work, found, jobs):
            rows[one.submission] = one
            if one.report is not None:
                with atomic(out / f"{page_name(one.submission)}.html") as partial:
                    partial.write_text(one.report.page(), encoding="utf-8")
            write_rows([HEADER, *(rows[name].row for name in sorted(rows))], out / "projects.csv")
            points = f"{one.report.points:g} of {one.report.of:g} points" if one.report is not None else ""
            say(f"{one.submission}  {one.project}  {points}  {one.problem}".rstrip())
    return out / "projects.csv"


def collect_one(
    submission: Submission,
    profile: str,
    *,
    seconds: float = SECONDS,
    memory_gb: float = MEMORY_GB,
    container: str | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Collected:
    """Run one submission, whatever it contains."""
    one = Collected(submission.name, problem=submission.refused)
    if one.problem:
        return one
    try:
        content = submissions.read(submission.path)
        one.project = project_of(content, submission.path.name)
        cells = submissions.code_cells(content)
        one.look_at = "; ".join(suspects.found(cells, _own_cells(one.project)))
        cells.append({"number": len(cells) + 1, "source": _WRITE.format(project=one.project)})
        with tempfile.TemporaryDirectory(prefix="gen_affect_report_") as folder:
            file = Path(folder) / "report.json"
            outcome = sandbox.run(
                cells,
                one.project,
                seconds=seconds,
                memory_gb=memory_gb,
                profile=profile,
                helpers=submissions.helpers(submission.path),
                container=container,
                returned={f"projects/{one.project}/report.json": file},
                stopped=stopped,
            )
            errors = [f"cell [{error['cell']}] stopped: {error['error']}" for error in outcome.errors]
            one.problem = "; ".join([*outcome.problems, *errors][:3])
            if file.exists():
                one.report = _checked(read_report(file), one.project)
            elif not one.problem:
                one.problem = "it made no report: its last cell has to call `score` and keep what it returns"
    except UserError as error:
        one.problem = "; ".join(filter(None, [one.problem, str(error)]))
    except Exception as error:  # an error here must not lose the other submissions
        traceback.print_exc()
        one.problem = f"collecting it failed with {type(error).__name__}: {error}"
    return one


def _checked(report: Report, project: str) -> Report:
    """The report. Raises UserError if it is of another project, or if its points are not those of a project."""
    if report.project != project or report.of != AUTOMATIC:
        raise UserError(f"its report is on {report.project} with {report.of:g} points, not {project} with {AUTOMATIC}")
    return report


def _own_cells(project: str) -> frozenset[str]:
    """The sources of the code cells of the project's starting notebook."""
    path = NOTEBOOKS / "projects" / f"{project}.ipynb"
    if not path.is_file():
        return frozenset()
    return frozenset(cell["source"] for cell in submissions.code_cells(submissions.read(path)))


def project_of(cells: list[dict], file_name: str) -> str:
    """The project of a notebook: of whose module it calls `score`, or else the name of the file.

    Raises UserError if neither names one.
    """
    text = "\n".join(cell["source"] for cell in submissions.code_cells(cells))
    imported = re.findall(r"course\.projects(?:\.|\s+import\s+)(\w+)", text)
    named = [project for project in PROJECTS if project in file_name.lower()]
    for project in (*imported, *named):
        if project in PROJECTS:
            return project
    raise UserError(f"it is no project: it imports none of {', '.join(PROJECTS)} from gen_affect_lib.course.projects")
