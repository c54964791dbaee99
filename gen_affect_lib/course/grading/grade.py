"""Grades a folder of submitted notebooks: a table of points, and a page of feedback each. There is no database."""

from __future__ import annotations

import hashlib
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.grading import jail, sandbox, submissions, suspects
from gen_affect_lib.course.grading.alike import pairs
from gen_affect_lib.course.grading.feedback import page
from gen_affect_lib.course.grading.grades import Grade, attempts, keep, plain_number, standing, write_rows, write_table
from gen_affect_lib.course.grading.roster import Student, belongs_to, by_student, read_roster, write_students
from gen_affect_lib.course.grading.rules import MANUAL, Rules, deadline, read_manual
from gen_affect_lib.course.grading.submissions import Submission, page_name
from gen_affect_lib.course.jobs import run_parallel
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import atomic
from gen_affect_lib.paths import ROOT


def grade_folder(
    folder: Path,
    out: Path | None = None,
    *,
    seconds: float = sandbox.SECONDS,
    memory_gb: float = sandbox.MEMORY_GB,
    jobs: int | None = None,
    counts: str = "best",
    container: str | None = None,
    roster: Path | None = None,
    form: str = "csv",
    due: str | None = None,
    late_percent: float = 0.0,
    partial: bool = False,
) -> Path:
    """Grade everything in a folder and its subfolders; return the path of the table, grades.csv.

    out: the folder for grades.csv and feedback/SUBMISSION.html; by default FOLDER_grades beside `folder`. Grades that
    it contains already are merged with the new ones: what has not changed is not graded again, and of several attempts
    of one submission, those with the same name, the best or the last `counts`. seconds, memory_gb: limits for one
    submission. container: an image in which submissions run, by docker or podman. jobs: how many run at once. The table
    is written again while submissions end.

    roster: a CSV file of all students; their grades are written as `form`, one of `roster.FORMATS`. due, late_percent,
    partial: see `rules`; points by hand are read from manual.csv in `out`. Raises UserError if `folder` is empty, or
    one of the files cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the folder that contains the submitted notebooks")
    out = Path(out) if out is not None else folder.resolve().parent / f"{folder.resolve().name}_grades"
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: give a folder for the grades")
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"--out {out} is inside the folder of submissions: give a folder outside {folder}")
    with tempfile.TemporaryDirectory(prefix="gen_affect_unpacked_", ignore_cleanup_errors=True) as unpacked:
        found = submissions.find(folder, Path(unpacked))
        if not found:
            raise UserError(f"there is no notebook in {folder}: give the folder that contains the submitted files")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {out} cannot be made: {error.strerror}") from error
        rules = Rules(partial, deadline(due) if due else None, late_percent, read_manual(out / MANUAL))
        students = read_roster(roster) if roster else []
        book = Book(out, counts, rules)
        same = [one for one in found if book.has(one, [kit_digest(), seconds, memory_gb])]

        def work(submission: Submission, stopped: Callable[[], bool]) -> Grade:
            limits = {"seconds": seconds, "memory_gb": memory_gb, "container": container}
            return grade_file(submission, **limits, stopped=stopped)

        if container:
            jail.container_program()
        elif missing := jail.namespaces_missing():
            say(f"submissions run without namespaces ({missing}): they can read and change your files; see --container")
        width = min(48, max(len(one.name) for one in found))
        ending = _ended_by_signals()
        try:
            for grade in run_parallel(work, [one for one in found if one not in same], jobs):
                book.add(grade)
                points = " " * 25
                if grade.of:
                    points = f"{plain_number(grade.points):>3} of {grade.of:3} points {grade.outcome.seconds:5.0f} s"
                say(f"{grade.submission:{width}}  {points}  {grade.problem}".rstrip())
        finally:
            ending()
            book.write()
    for line in book.about_students(students, form):
        say(line)
    refused = sum(bool(grade.broken) for grade in book.new)
    said = f"{len(found)} handed in: {len(book.new) - refused} graded, {len(same)} unchanged since they were graded"
    say(f"{said}, {refused} that could not be graded")
    if book.unwritten:
        raise UserError(
            f"not everything could be written to {out}: {book.unwritten}; free space there, and grade again"
        )
    return out / "grades.csv"


def _ended_by_signals() -> Callable[[], None]:
    """Let SIGTERM and SIGHUP end the grading as Ctrl-C does: nothing is left running. Returns what undoes this."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, stop) for number in known}

    def undo() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return undo


class Book:
    """All attempts in a folder of grades, and the files made of them. A file that cannot be written stops nothing."""

    def __init__(self, out: Path, counts: str, rules: Rules):
        self.out, self.counts, self.rules = out, counts, rules
        self.attempts = {(grade.submission, grade.digest): grade for grade in attempts(out / "attempts")}
        self.new: list[Grade] = []
        self.next_table = 0.0  # when the table is due again: writing it takes at most a tenth of the time
        self.unwritten = ""  # the last error

    def has(self, submission: Submission, graded_with: list) -> bool:
        """Whether it was graded before as it is now, with this kit; and with these limits, if it had a problem."""
        known = self.attempts.get((submission.name, digest(submission)))
        if known is None or known.broken or not known.graded_with:
            return False
        return known.graded_with == graded_with or (
            known.graded_with[0] == graded_with[0] and not known.outcome.problems
        )

    def add(self, grade: Grade) -> None:
        """Keep a new attempt, and write its page; the table, too, if it was not written just now."""
        self.new.append(grade)
        for key in [key for key, old in self.attempts.items() if key[0] == grade.submission and old.broken]:
            del self.attempts[key]  # what could not be graded is no attempt, once something can be
        self.attempts[grade.submission, grade.digest] = grade
        self._try(lambda: keep(grade, self.out / "attempts"))
        if time.monotonic() >= self.next_table:
            start = time.monotonic()
            self.write()
            self.next_table = time.monotonic() + 10 * (time.monotonic() - start)

    def write(self) -> None:
        """Write the table of all that counts, and the pages of what is new."""
        table = self.standing()
        self._try(lambda: write_table(table, self.out / "grades.csv"))
        new = {grade.submission for grade in self.new} | {submission for submission, _ in self.rules.manual}
        for grade in table:
            path = self.out / "feedback" / f"{page_name(grade.submission)}.html"
            if grade.submission in new or not path.exists():
                self._try(lambda: _write(path, page(grade)))

    def standing(self) -> list[Grade]:
        """The attempt of each submission that counts, under the rules of this run."""
        for grade in self.attempts.values():
            grade.rules = self.rules
        return standing(sorted(self.attempts.values(), key=lambda grade: grade.handed_in), self.counts)

    def about_students(self, students: Sequence[Student], form: str) -> list[str]:
        """Write the pairs that are alike, and the grades of the students; return lines to print."""
        table, lines = self.standing(), []
        alike = pairs(table)
        self._try(lambda: write_rows(alike, self.out / "alike.csv"))
        if len(alike) > 1:
            lines.append(f"{len(alike) - 1} pairs of answers are nearly identical: see {self.out / 'alike.csv'}")
        known = {grade.submission for grade in table}
        if unknown := sorted({submission for submission, _ in self.rules.manual} - known):
            lines.append(f"{MANUAL} names submissions that do not exist: {', '.join(unknown[:5])}")
        if students:
            files: list[Path] = []
            self._try(lambda: files.extend(write_students(table, students, form, self.out)))
            has = {student for student, _ in by_student(table, students)}
            missing = [student.name or student.id for student in students if student.id not in has]
            lines.append(f"the grades of {len(students)} students are in {', '.join(str(file) for file in files)}")
            if missing:
                lines.append(f"{len(missing)} handed in nothing that could be graded: {', '.join(missing)}")
            nobodys = [grade.submission for grade in table if belongs_to(grade.submission, students) is None]
            if nobodys:
                lines.append(f"{len(nobodys)} submissions belong to nobody in the roster: {', '.join(nobodys)}")
        return lines

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # of the disk, or of what a submission contains
            self.unwritten = f"{type(error).__name__}: {error}"


def grade_file(
    submission: Submission,
    *,
    seconds: float,
    memory_gb: float,
    container: str | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Grade:
    """Grade one submission, whatever it contains. seconds, memory_gb, container, stopped: as for `sandbox.run`."""
    grade = Grade(submission.name, broken=submission.refused)
    try:
        grade.handed_in = submission.path.stat().st_mtime
        grade.digest, grade.graded_with = digest(submission), [kit_digest(), seconds, memory_gb]
        if not grade.broken:
            content = submissions.read(submission.path)
            number = submissions.belongs_to(content, submission.path.name)
            grade.notebook = notebooks(number)[0].stem
            cells, helpers = submissions.code_cells(content), submissions.helpers(submission.path)
            limits = {"seconds": seconds, "memory_gb": memory_gb, "stopped": stopped}
            grade.outcome = sandbox.run(cells, number, helpers=helpers, container=container, **limits)
            beside = [{"number": name, "source": path.read_text(errors="replace")} for name, path in helpers.items()]
            grade.outcome.look_at[:0] = suspects.found([*cells, *beside], _own_cells(grade.notebook))
    except UserError as error:
        grade.broken = str(error)
    except Exception as error:  # an error of the grader must not stop the grading of other submissions
        traceback.print_exc()
        grade.broken = f"grading it failed with {type(error).__name__}: {error}"
    return grade


def digest(submission: Submission) -> str:
    """A digest of what was handed in."""
    try:
        content = submission.path.read_bytes() if submission.path.is_file() else b""
    except OSError:
        content = b""
    parts = [submission.refused.encode(), content]
    if not submission.refused:
        parts += [path.read_bytes() for path in submissions.helpers(submission.path).values()]
    return hashlib.sha256(b"\n".join(parts)).hexdigest()


@cache
def _own_cells(notebook: str) -> frozenset[str]:
    """The sources of the code cells of the course's own notebook."""
    (path,) = notebooks(notebook)
    return frozenset(cell["source"] for cell in submissions.code_cells(submissions.read(path)))


@cache
def kit_digest() -> str:
    """A digest of the library's source: with another kit everything is graded again."""
    content = hashlib.sha256()
    for path in sorted((ROOT / "gen_affect_lib").rglob("*.py")):
        content.update(path.read_bytes())
    return content.hexdigest()


def say(text: str) -> None:
    """Print a line; what the terminal cannot show becomes a question mark, and a closed one stops nothing."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "replace").decode(encoding), flush=True)
    except OSError:
        pass


def _write(path: Path, text: str) -> None:
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")
