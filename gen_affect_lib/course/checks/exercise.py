"""An exercise: its task, how an answer is judged, and its hints.

In a notebook an exercise is three cells: the task; the answer, its solution between nbgrader's marks; and the check,

    NAME = check_NAME(NAME)

The check compares the answer with the library's own component and prints what is wrong and why. It never stops the
notebook: as long as the answer is not right it returns the library's component, and the cells below use that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks.answer import Wrong
from gen_affect_lib.course.checks.settings import own_settings
from gen_affect_lib.course.checks.wording import describe_error, sentence
from gen_affect_lib.errors import UserError

KINDS = ("implement", "repair", "predict", "read")  # the answer to the first two is code
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


@dataclass(frozen=True)
class Verdict:
    """state: "right", "wrong" or "unfinished". message: what the student reads, one or two sentences. share: of a wrong
    answer, the part of the cases in which it is right, from 0 to 1."""

    state: str
    message: str = ""
    share: float = 0.0

    @property
    def right(self) -> bool:
        return self.state == "right"


@dataclass(frozen=True)
class Exercise:
    """One exercise. Called with an answer, it prints a verdict and returns the answer if it is right, else `reference`.

    number: "2.1", the number of the notebook and of the exercise in it. name: the function or class that the student
    writes; the check is `check_NAME`. kind: one of KINDS. difficulty: 1 to 5. minutes: an estimate.
    points: for a right answer. purpose: why the exercise matters, one sentence. reference: the library's component,
    with the answer's signature. test: called with the answer, raises Wrong unless it is right. hints: two; the second
    says more.
    """

    number: str
    name: str
    title: str
    kind: str
    difficulty: int
    minutes: int
    points: int
    purpose: str
    reference: Callable
    test: Callable[[Callable], None] = field(repr=False)
    hints: tuple[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        assert self.kind in KINDS and 1 <= self.difficulty <= 5 and len(self.hints) == 2, self.number

    @property
    def is_code(self) -> bool:
        return self.kind in ("implement", "repair")

    @property
    def heading(self) -> str:
        """The beginning of the cell with the task, as Markdown."""
        return (
            f"### Exercise {self.number} · {self.title}\n\n"
            f"*{self.kind.capitalize()}, difficulty {self.difficulty} of 5, {self.minutes} minutes, "
            f"{self.points} point{'s' * (self.points != 1)}. {self.purpose}*"
        )

    def judge(self, answer: Callable) -> Verdict:
        """The verdict on an answer. Prints nothing, and leaves the notebook's settings and random state unchanged."""
        if answer is self.reference:
            return Verdict(
                "unfinished",
                f"this is the kit's own `{self.name}`: your cell was not run since the last check, it stopped with an "
                "error, or it defines another name.",
            )
        with own_settings():
            try:
                self.test(answer)
            except NotImplementedError:
                return Verdict(
                    "unfinished", "nothing is written yet, or there is still a `raise NotImplementedError()` in it."
                )
            except Wrong as wrong:
                return Verdict("wrong", str(wrong), wrong.share)
            except Exception as error:  # a student's code may raise any exception
                return Verdict("wrong", describe_error(self.name, error))
        return Verdict("right")

    def __call__(self, answer: Callable) -> Callable:
        """Print the verdict on an answer; return the answer if it is right, else the reference."""
        verdict = self.judge(answer)
        if verdict.right:
            print(f"✓ Exercise {self.number}, {self.name}: right.")
            return answer
        # On stderr, which Jupyter highlights; and nbgrader gives no points for a cell that writes there.
        state = "unfinished" if verdict.state == "unfinished" else "not yet right"
        print(
            f"✗ Exercise {self.number}, {self.name}: {state}. {sentence(verdict.message)}\n"
            f"  The cells below use the kit's own `{self.name}` until yours is right. "
            f"Help: check_{self.name}.hint(1), .hint(2), .reveal()",
            file=sys.stderr,
        )
        return self.reference

    def hint(self, step: int = 1) -> None:
        """Print the first or the second hint. Raises UserError for another number."""
        if step not in (1, 2):
            raise UserError(f"hint({step}): there are hint(1) and hint(2); after them, reveal() shows the solution")
        print(f"Hint {step} of 2 on exercise {self.number}: {self.hints[step - 1]}")

    def reveal(self) -> None:
        """Print the solution in the kit's own notebook. It is one of several ways."""
        print(
            self.solution()
            or f"This copy of the kit does not contain the solution of exercise {self.number}: ask your instructor."
        )

    def solution(self) -> str:
        """The code of the kit's own answer, without nbgrader's marks; empty if the notebooks contain no solutions."""
        import nbformat  # slow, and every graded submission would wait for it

        (path,) = notebooks(self.number.partition(".")[0])
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.metadata.get("nbgrader", {}).get("grade_id") == self.name and BEGIN in cell.source:
                return "\n".join(line for line in cell.source.splitlines() if line.strip() not in (BEGIN, END))
        return ""
