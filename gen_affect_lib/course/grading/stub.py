"""The checks as a graded notebook sees them: each sends its answer to the judge. There are no references here."""

from __future__ import annotations


class Asked:
    """A check without a reference. Called with an answer, it returns what the cells below use, and prints nothing."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, answer):
        from gen_affect_lib.course.grading.player import Player

        return Player.current.ask(self.name, answer)

    def hint(self, step: int = 1) -> None:
        """Does nothing: hints are for the student's own notebook."""

    def reveal(self) -> None:
        """Does nothing."""
