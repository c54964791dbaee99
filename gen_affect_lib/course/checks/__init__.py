"""Exercises, and how answers to them are checked. Everything here runs in the student's notebook.

Reading order:

1. `exercise`: `Exercise`, which the last cell of an exercise calls with the answer, and its `Verdict`;
2. `compare`: runs an answer and a reference on the same cases and recognises common mistakes;
3. `answer`, `probes`: an answer here or in another process, and what is found out about it there;
4. `settings`: torch's and NumPy's settings while an answer is judged;
5. `differences`: how one value differs from the expected one, in words;
6. `predictions`: checks answers that are one word or one number;
7. `wording`: values, calls and errors as text;
8. `notebook_01`, `notebook_02`, …: the exercises of each notebook;
9. `catalog`: finds the exercises of a notebook.
"""

from gen_affect_lib.course.checks.answer import Wrong
from gen_affect_lib.course.checks.catalog import exercises
from gen_affect_lib.course.checks.compare import Mistake, compare, compare_modules
from gen_affect_lib.course.checks.differences import difference
from gen_affect_lib.course.checks.exercise import Exercise, Verdict
from gen_affect_lib.course.checks.predictions import check_choice, check_number

__all__ = [
    "Exercise",
    "Mistake",
    "Verdict",
    "Wrong",
    "check_choice",
    "check_number",
    "compare",
    "compare_modules",
    "difference",
    "exercises",
]
