"""Exercises: how an answer is checked, what is said about it, and what helps.

In a notebook an exercise is three cells: what is asked; the answer, whose solution stands between nbgrader's marks; and

    NAME = check_NAME(NAME)

The check holds the answer against the library's own component. It says what is wrong and why, and it never stops the
notebook: until the answer is right, the library's component stands in under its name, and the check says so.
"""

from __future__ import annotations

import copy
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec

import nbformat
import numpy as np
import torch

from gen_affect_lib.course import notebooks
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import ROOT

KINDS = ("implement", "repair", "predict", "read")  # the first two are code, the others an answer that is checked
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"

_NOT_THEIRS = (str(ROOT / "gen_affect_lib"), sys.base_prefix)

Mistake = tuple[str, Callable]  # what to say to those who make it, and a function that makes it


class Wrong(Exception):
    """An answer that is not right. Its words go to the student: what came, what was expected, the likely mistake."""


@dataclass(frozen=True)
class Verdict:
    """state: "right", "wrong" or "unfinished". message: what to tell the student, in one or two sentences."""

    state: str
    message: str = ""

    @property
    def right(self) -> bool:
        return self.state == "right"


@dataclass(frozen=True)
class Exercise:
    """One exercise, called with an answer.

    number: "2.1", the notebook's number and a running one. name: of what the student writes; the check is `check_NAME`.
    kind: one of KINDS. difficulty: 1 to 5. minutes: for somebody who reads along. points: what grading gives for it.
    purpose: what it is good for, one sentence. reference: what stands in; it has the answer's signature.
    test: called with the answer; returns when it is right, else raises Wrong. hints: two, the second nearer to the answer.
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

    def __post_init__(self):
        assert self.kind in KINDS and 1 <= self.difficulty <= 5 and len(self.hints) == 2, self.number

    @property
    def is_code(self) -> bool:
        return self.kind in ("implement", "repair")

    @property
    def heading(self) -> str:
        """How the cell that asks begins."""
        return (
            f"### Exercise {self.number} · {self.title}\n\n*{self.kind.capitalize()}, difficulty {self.difficulty} of 5, "
            f"{self.minutes} minutes, {self.points} point{'s' * (self.points != 1)}. {self.purpose}*"
        )

    def judge(self, answer) -> Verdict:
        """What is to be said about an answer. Prints nothing, and leaves the notebook's random numbers as they are."""
        if answer is self.reference:
            return Verdict(
                "unfinished",
                f"this is the kit's own `{self.name}`: your cell has not been run since, stopped with an "
                "error, or gives its function another name.",
            )
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            try:
                self.test(answer)
            except NotImplementedError:
                return Verdict(
                    "unfinished", "nothing is written yet, or a `raise NotImplementedError()` still stands in it."
                )
            except Wrong as wrong:
                return Verdict("wrong", str(wrong))
            except Exception as error:  # whatever a student's code may raise
                return Verdict("wrong", _say_error(self.name, error))
        return Verdict("right")

    def __call__(self, answer):
        """Say what is to be said; return the answer when it is right, else what stands in for it."""
        verdict = self.judge(answer)
        if verdict.right:
            print(f"✓ Exercise {self.number}, {self.name}: right.")
            return answer
        # On stderr: it stands out, and nbgrader gives no points for a cell that writes there.
        print(
            f"✗ Exercise {self.number}, {self.name}: {'unfinished' if verdict.state == 'unfinished' else 'not yet'}, "
            f"{verdict.message}\n  The kit's own stands in from here on, so that the notebook runs. "
            f"Help: check_{self.name}.hint(1), .hint(2), .reveal()",
            file=sys.stderr,
        )
        return self.reference

    def hint(self, step: int = 1) -> None:
        """Print the first or the second hint."""
        if step not in (1, 2):
            raise UserError(f"hint({step}): there are hint(1) and hint(2), and then reveal()")
        print(f"Hint {step} of 2 on exercise {self.number}: {self.hints[step - 1]}")

    def reveal(self) -> None:
        """Print the solution, which stands in the kit's own notebook. It is one way of several."""
        print(
            self.solution()
            or f"The solution of exercise {self.number} is not in this copy of the kit: ask whoever gave it to you."
        )

    def solution(self) -> str:
        """The code of the kit's own answer, without its marks; empty where the notebooks came without their solutions."""
        for cell in nbformat.read(notebooks(self.number.partition(".")[0])[0], as_version=4).cells:
            if cell.metadata.get("nbgrader", {}).get("grade_id") == self.name and BEGIN in cell.source:
                return "\n".join(line for line in cell.source.splitlines() if line.strip() not in (BEGIN, END))
        return ""


def exercises(notebook: str) -> list[Exercise]:
    """The exercises of a notebook, "02" or "02_patches", in order; none where it has no module of checks."""
    module = f"gen_affect_lib.course.checks.notebook_{notebook[:2]}"
    if find_spec(module) is None:
        return []
    found = [
        value
        for name, value in vars(import_module(module)).items()
        if name.startswith("check_") and isinstance(value, Exercise)
    ]
    return sorted(found, key=lambda exercise: int(exercise.number.partition(".")[2]))


def _say_error(name: str, error: Exception) -> str:
    """One sentence on an error, with the line of the student's code that it came from."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_NOT_THEIRS) and "site-packages" not in frame.filename
    ]
    where = f" in the line `{own[-1].line}`" if own and own[-1].line else ""
    lines = str(error).strip().splitlines()
    said = f"`{name}` stopped with {type(error).__name__}{where}" + (f": {lines[0][:300]}" if lines else "")
    return said if said.endswith((".", "?", "!")) else said + "."


# --- holding an answer against the reference -------------------------------------------------------------------------


def compare(
    answer: Callable,
    reference: Callable,
    *cases: Sequence,
    mistakes: Sequence[Mistake] = (),
    gradients: bool = False,
    tolerance: float = 1e-5,
) -> None:
    """Raise Wrong unless `answer` gives what `reference` gives in every case.

    cases: tuples of arguments; each function gets copies, and an answer that changes its arguments is refused.
    mistakes: when the answer is wrong and agrees with one of these functions in every case, its words are the verdict. A
        mistake may raise in a case: then it agrees with an answer that raises there too.
    gradients: whether the gradients in the floating tensors among the arguments must agree too.
    tolerance: absolute, and relative to the largest expected number where that exceeds 1.
    """
    wanted = [reference(*copy.deepcopy(case)) for case in cases]
    for case, want in zip(cases, wanted):
        given = copy.deepcopy(case)
        try:
            got = answer(*given)
        except NotImplementedError:
            raise
        except Wrong:  # an argument, such as a callback, saw what is wrong
            _diagnose(answer, cases, mistakes, tolerance)
            raise
        except Exception as error:
            _diagnose(answer, cases, mistakes, tolerance)
            raise Wrong(
                f"{_say_error(_name(answer), error)} It was called with {_say_call(reference, case)}."
            ) from error
        problem = difference(got, want, tolerance)
        if problem:
            _diagnose(answer, cases, mistakes, tolerance)
            raise Wrong(f"called with {_say_call(reference, case)}, {problem}")
        if difference(given, case, 0.0):
            raise Wrong(f"`{_name(answer)}` changes what it is given: work on a copy, or on new tensors.")
    for case in cases if gradients else ():  # only now: what is wrong elsewhere should be heard first
        if problem := _gradient_difference(answer, reference, case, tolerance):
            raise Wrong(problem)


def compare_modules(
    answer: type,
    reference: type,
    build: Mapping,
    *cases: Sequence,
    mistakes: Sequence[tuple[str, type]] = (),
    tolerance: float = 1e-5,
) -> None:
    """Raise Wrong unless the class `answer`, with the weights of `reference`, computes the same with the same gradients.

    build: keyword arguments of both classes. cases, mistakes, tolerance: as for `compare`; mistakes are classes.
    """
    model = reference(**build)
    with torch.no_grad():
        for parameter in model.parameters():  # a zero at the start would hide what it multiplies
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    weights = model.state_dict()

    def loaded(kind: type) -> torch.nn.Module:
        own = kind(**build)
        if not isinstance(own, torch.nn.Module):
            raise Wrong(f"`{_name(kind)}` must be an `nn.Module`.")
        shapes = {name: tuple(value.shape) for name, value in own.state_dict().items()}
        for name, value in weights.items():
            if name not in shapes:
                raise Wrong(
                    f"there is no `{name}` among the parameters of `{_name(kind)}`, which are "
                    f"{', '.join(shapes) or 'none'}."
                )
            if shapes[name] != tuple(value.shape):
                raise Wrong(
                    f"the parameter `{name}` has the shape {shapes[name]}, and should have {tuple(value.shape)}."
                )
        own.load_state_dict({name: weights.get(name, value) for name, value in own.state_dict().items()})
        return own

    usable = []
    for words, kind in mistakes:
        try:
            usable.append((words, loaded(kind)))
        except Exception:
            pass  # this mistake changes the parameters: it cannot be told by its outputs
    own = loaded(answer)
    compare(own, model, *cases, mistakes=usable, gradients=True, tolerance=tolerance)
    for case in cases:
        for module in (own, model):
            module.zero_grad()
            _scalar(module(*case)).backward()
        for (name, got), (_, want) in zip(sorted(own.named_parameters()), sorted(model.named_parameters())):
            if want.grad is not None and (got.grad is None or difference(got.grad, want.grad, 10 * tolerance)):
                raise Wrong(
                    f"the outputs are right, but the gradient of `{name}` is not: is something detached, or under no_grad?"
                )


def difference(got, want, tolerance: float = 1e-5) -> str:
    """What is different about `got`, in words; empty when it is as `want`. Takes tensors, arrays, numbers and their nests."""
    if got is None and want is not None:
        return "nothing came back: is there a `return`?"
    if isinstance(want, Mapping):
        if not isinstance(got, Mapping) or set(got) != set(want):
            return f"a dict with {', '.join(map(repr, want))} was expected, and {_say(got)} came back."
        return next(
            (f"under {key!r}, {problem}" for key in want if (problem := difference(got[key], want[key], tolerance))), ""
        )
    if hasattr(want, "_fields"):
        if getattr(got, "_fields", None) != want._fields:
            return f"a `{type(want).__name__}({', '.join(want._fields)})` was expected, and {_say(got)} came back."
        return next(
            (
                f"in `{name}`, {problem}"
                for name, *pair in zip(want._fields, got, want)
                if (problem := difference(*pair, tolerance))
            ),
            "",
        )
    if isinstance(want, (tuple, list)):
        if not isinstance(got, (tuple, list)) or len(got) != len(want):
            return f"{len(want)} results were expected, and {_say(got)} came back."
        return next(
            (
                f"in result {k + 1}, {problem}"
                for k, pair in enumerate(zip(got, want))
                if (problem := difference(*pair, tolerance))
            ),
            "",
        )
    if isinstance(want, (torch.Tensor, np.ndarray)):
        if isinstance(got, (tuple, list)):
            way = "tensor, `torch.stack(…)` or `torch.tensor" if isinstance(want, torch.Tensor) else "array, `np.array"
            return f"{_say(want)} was expected, and a {type(got).__name__} of {len(got)} came back: make it a{'n' * (way[0] == 'a')} {way}(…)`."
        if not isinstance(got, type(want)):
            return f"{_say(want)} was expected, and {_say(got)} came back."
        if tuple(got.shape) != tuple(want.shape):
            return f"the shape is {tuple(got.shape)}, and should be {tuple(want.shape)}."
        if _is_floating(got) != _is_floating(want):
            return f"the numbers are of type {got.dtype}, and should be {want.dtype}."
        have, need = (
            np.asarray(value.detach() if isinstance(value, torch.Tensor) else value, dtype=np.float64)
            for value in (got, want)
        )
        if np.isnan(have).any() and not np.isnan(need).any():
            return "some of the numbers are NaN: is something divided by zero, or is 0 multiplied by infinity?"
        same = (have == need) | (np.isnan(have) & np.isnan(need))  # infinities that agree have no difference
        apart = np.abs(np.subtract(have, need, out=np.zeros_like(have), where=~same))
        if apart.size and apart.max() > tolerance * max(1.0, float(np.abs(need[np.isfinite(need)]).max(initial=0.0))):
            place = tuple(int(k) for k in np.unravel_index(apart.argmax(), apart.shape))
            digits = next((d for d in (4, 6, 9, 12) if f"{have[place]:.{d}g}" != f"{need[place]:.{d}g}"), 17)
            if not place:
                return f"it gives {have[place]:.{digits}g}, and should give {need[place]:.{digits}g}."
            return (
                f"the shape {tuple(need.shape)} is right, but {(apart > tolerance).mean():.0%} of the numbers are not: "
                f"at {place} it is {have[place]:.{digits}g}, and should be {need[place]:.{digits}g}."
            )
        return ""
    if isinstance(want, (bool, np.bool_, str)) or want is None:
        return (
            ""
            if type(got) in (type(want), bool, np.bool_) and got == want or got is want
            else f"{_say(got)} came back, and should be {want!r}."
        )
    if isinstance(want, (int, float, np.number)):
        if isinstance(got, torch.Tensor) and got.numel() == 1:
            got = got.item()
        if isinstance(got, bool) or not isinstance(got, (int, float, np.number)):
            return f"a number was expected, and {_say(got)} came back."
        if got != got or want != want:
            return "" if got != got and want != want else f"{got:.6g} came back, and should be {want:.6g}."
        return (
            ""
            if abs(got - want) <= tolerance * max(1.0, abs(want))
            else f"{got:.6g} came back, and should be {want:.6g}."
        )
    return "" if got == want else f"{_say(got)} came back, and should be {_say(want)}."


def _is_floating(numbers: torch.Tensor | np.ndarray) -> bool:
    return numbers.dtype.is_floating_point if isinstance(numbers, torch.Tensor) else numbers.dtype.kind == "f"


def check_choice(answer: Callable[[], str], right: str, wrong: Mapping[str, str]) -> None:
    """Hold a prediction, a function without arguments that returns one of a few letters or words, against the right one.

    wrong: for each other choice what to say to those who take it.
    """
    said = answer()
    if isinstance(said, str) and said.strip().lower() == right.lower():
        return
    for choice, words in wrong.items():
        if isinstance(said, str) and said.strip().lower() == choice.lower():
            raise Wrong(words)
    raise Wrong(
        f"return one of {', '.join(sorted(repr(choice) for choice in (right, *wrong)))}; {_say(said)} came back."
    )


def check_number(
    answer: Callable[[], float], right: float, within: float = 0.0, wrong: Sequence[tuple[float, str]] = ()
) -> None:
    """Hold a predicted number against the right one, up to `within`.

    wrong: (number, what to say to those who give it) for the mistakes that are likely.
    """
    said = answer()
    if isinstance(said, torch.Tensor) and said.numel() == 1:
        said = said.item()
    if isinstance(said, bool) or not isinstance(said, (int, float, np.number)):
        raise Wrong(f"return a number; {_say(said)} came back.")
    if abs(said - right) <= within:
        return
    for number, words in wrong:
        if abs(said - number) <= min(
            within, 0.15 * abs(number) or within
        ):  # a coarse scale does not make all small numbers alike
            raise Wrong(words)
    raise Wrong(f"{said:g} is too {'large' if said > right else 'small'}.")


def _diagnose(answer, cases, mistakes, tolerance) -> None:
    """Raise Wrong with the words of the first mistake that explains all that the answer does."""

    def outcome(function, case):
        try:
            return function(*copy.deepcopy(case)), False
        except Exception:
            return None, True

    for words, mistaken in mistakes:
        pairs = [(outcome(answer, case), outcome(mistaken, case)) for case in cases]
        if all(
            a_raised == m_raised and (a_raised or not difference(a, m, tolerance))
            for (a, a_raised), (m, m_raised) in pairs
        ):
            raise Wrong(words)


def _gradient_difference(answer, reference, case, tolerance) -> str:
    grads = []
    for function in (reference, answer):
        arguments = [
            value.detach().clone().requires_grad_()
            if isinstance(value, torch.Tensor) and value.is_floating_point()
            else copy.deepcopy(value)
            for value in case
        ]
        leaves = [value for value in arguments if isinstance(value, torch.Tensor) and value.requires_grad]
        total = _scalar(function(*arguments))
        if not leaves:
            return ""
        if not total.requires_grad:
            grads.append([None] * len(leaves))
        else:
            grads.append(torch.autograd.grad(total, leaves, allow_unused=True))
    for want, got in zip(*grads):
        if want is not None and (got is None or difference(got, want, 10 * tolerance)):
            return "the outputs are right, but the gradients are not: is something detached, turned into NumPy, or under no_grad?"
    return ""


def _scalar(result) -> torch.Tensor:
    """One number that hangs on every number of a result, each with a weight of its own."""
    if isinstance(result, torch.Tensor):
        weights = (
            torch.linspace(0.5, 1.5, max(result.numel(), 1)).reshape(result.shape) if result.ndim else torch.ones(())
        )
        return (result * weights).sum()
    values = result.values() if isinstance(result, Mapping) else result
    return sum(_scalar(value) for value in values if isinstance(value, (torch.Tensor, tuple, list, Mapping)))


def _name(function) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def _say_call(function, case: Sequence) -> str:
    """The arguments of a call, with their names where they have any."""
    try:
        known = list(inspect.signature(getattr(function, "forward", function)).parameters.values())
    except (TypeError, ValueError):
        known = []
    named = len(known) >= len(case) and all(one.kind is one.POSITIONAL_OR_KEYWORD for one in known)
    said = [f"{one.name}={_say(value)}" for one, value in zip(known, case)] if named else list(map(_say, case))
    return ", ".join(said) or "no arguments"


def _say(value) -> str:
    """A value in few words, tensors by their shapes."""
    if isinstance(value, torch.Tensor):
        return f"a tensor {tuple(value.shape)}" if value.ndim else f"the tensor {value.item():.4g}"
    if isinstance(value, np.ndarray):
        return f"an array {value.shape}"
    if hasattr(value, "_fields"):
        return (
            f"{type(value).__name__}({', '.join(f'{name}={_say(part)}' for name, part in zip(value._fields, value))})"
        )
    if isinstance(value, (tuple, list)):
        return f"{'a tuple' if isinstance(value, tuple) else 'a list'} ({', '.join(map(_say, value[:4]))}{', …' if len(value) > 4 else ''})"
    if callable(value):
        return f"`{_name(value)}`"
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:50]}…"
