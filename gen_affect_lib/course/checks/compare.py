"""An answer and a reference implementation, run on the same cases."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from gen_affect_lib.course.checks import probes
from gen_affect_lib.course.checks.answer import Wrong
from gen_affect_lib.course.checks.differences import difference
from gen_affect_lib.course.checks.wording import describe_call, describe_error, name_of

Mistake = tuple[str, Callable]  # the message for the student, and an implementation with the mistake


def compare(
    answer: Callable,
    reference: Callable,
    *cases: Sequence,
    mistakes: Sequence[Mistake] = (),
    gradients: bool = False,
    tolerance: float = 1e-5,
) -> None:
    """Raise Wrong unless `answer` returns what `reference` returns in every case.

    cases: tuples of arguments; each function gets copies, and an answer must not change its arguments.
    mistakes: implementations of common mistakes. If the answer is wrong and one of them agrees with it in every case,
        its message is shown. An error counts as agreement if both raise one in the same case.
    gradients: whether the gradients with respect to the floating tensors among the arguments must agree, too.
    tolerance: absolute, and relative to the largest expected number if that exceeds 1. Ten times as much for gradients.
    """
    _compare_outputs(answer, reference, cases, mistakes, tolerance)
    if gradients:
        _compare_gradients(probes.gradients(answer), reference, cases, tolerance)


def compare_modules(
    answer: type,
    reference: type[nn.Module],
    build: Mapping[str, object],
    *cases: Sequence,
    mistakes: Sequence[tuple[str, type]] = (),
    tolerance: float = 1e-5,
) -> None:
    """Raise Wrong unless the class `answer`, with the weights of `reference`, has the same outputs and gradients.

    build: keyword arguments of both constructors. cases, mistakes, tolerance: as for `compare`; mistakes are classes.
    """
    expected = reference(**build)
    with torch.no_grad():
        for parameter in expected.parameters():  # parameters that are 0 would hide errors in what they multiply
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    weights = {name: value.detach() for name, value in expected.state_dict().items()}
    known_mistakes = []
    for message, mistaken in mistakes:
        try:
            if not shape_difference(mistaken, build, weights):
                known_mistakes.append((message, probes.with_weights(mistaken, build, weights)))
        except Exception:
            pass  # it has other parameters, for which `shape_difference` has a message
    if problem := shape_difference(answer, build, weights):
        raise Wrong(problem)
    of_answer, of_everything = probes.outputs(answer), probes.module_gradients(answer)

    def module(*case):
        return of_answer(build, weights, *case)

    module.__name__ = name_of(answer)
    _compare_outputs(module, expected, cases, known_mistakes, tolerance)
    got = [of_everything(build, weights, *copy.deepcopy(case)) for case in cases]
    of_case = iter(of_inputs for of_inputs, _ in got)
    _compare_gradients(lambda *_: next(of_case), expected, cases, tolerance)
    of_reference = probes.module_gradients(reference)
    for case, (_, of_parameters) in zip(cases, got):
        for name, want in of_reference(build, weights, *copy.deepcopy(case))[1].items():
            if want is not None and _gradient_differs(of_parameters.get(name), want, tolerance):
                raise Wrong(
                    f"the outputs are right, but the gradient of `{name}` is not: "
                    "is something detached, or under no_grad?"
                )


def shape_difference(kind: Callable, build: Mapping[str, object], weights: Mapping[str, torch.Tensor]) -> str:
    """What is wrong with the parameters of a class, in words; an empty string if nothing is."""
    own = probes.shapes(kind)(build)
    for name, value in weights.items():
        if name not in own:
            return f"there is no `{name}` among the parameters of `{name_of(kind)}`, which {_listed(name, list(own))}."
        shape, expected = tuple(own[name]), tuple(value.shape)
        if shape != expected:
            return f"the parameter `{name}` has the shape {shape}, and should have {expected}."
    return ""


def _listed(missing: str, own: list[str]) -> str:
    """The parameters of an answer in words; of many, those whose names are nearest to the missing one."""
    if len(own) <= 8:
        return "are " + (", ".join(own) or "none")
    near = difflib.get_close_matches(missing, own, n=3, cutoff=0)
    return f"are {len(own)}, such as {', '.join(near)}"


def _compare_outputs(
    answer: Callable, reference: Callable, cases: Sequence, mistakes: Sequence[Mistake], tolerance: float
) -> None:
    """Raise Wrong unless both return the same in every case and the answer leaves its arguments as they are."""
    expected = [reference(*copy.deepcopy(case)) for case in cases]

    def wrong(message: str) -> Wrong:
        """The error, with the message of a known mistake if there is one, and with the share of right cases."""
        outcomes = [_outcome(answer, case) for case in cases]
        right = sum(
            not raised and not difference(got, want, tolerance) for (got, raised), want in zip(outcomes, expected)
        )
        known = _known_mistake(outcomes, cases, mistakes, tolerance)
        return Wrong(known or message, right / len(cases))

    for case, want in zip(cases, expected):
        arguments = copy.deepcopy(case)
        try:
            got = answer(*arguments)
        except NotImplementedError:
            raise
        except Wrong as error:  # raised by a probe
            raise wrong(str(error)) from None
        except Exception as error:
            message = f"{describe_error(name_of(answer), error)} It was called with {describe_call(reference, case)}."
            raise wrong(message) from error
        if problem := difference(got, want, tolerance):
            raise wrong(f"called with {describe_call(reference, case)}, {problem}")
        if difference(arguments, case, 0.0):
            raise Wrong(f"`{name_of(answer)}` changes its arguments: work on a copy, or on new tensors.")


def _outcome(function: Callable, case: Sequence) -> tuple[object, bool]:
    """The result of a function and False, or None and True if it raises an error."""
    try:
        return function(*copy.deepcopy(case)), False
    except Exception:
        return None, True


def _known_mistake(
    outcomes: Sequence[tuple[object, bool]], cases: Sequence, mistakes: Sequence[Mistake], tolerance: float
) -> str:
    """The message of the first mistake that agrees with the outcomes in every case; empty if none does."""

    def agree(mistaken: Callable, case: Sequence, got: object, got_raised: bool) -> bool:
        want, want_raised = _outcome(mistaken, case)
        return got_raised == want_raised and (got_raised or not difference(got, want, tolerance))

    for message, mistaken in mistakes:
        if all(agree(mistaken, case, *outcome) for case, outcome in zip(cases, outcomes)):
            return message
    return ""


def _compare_gradients(
    gradients_of: Callable, reference: Callable, cases: Sequence, tolerance: float
) -> None:  # last: the messages about wrong values are more helpful
    """Raise Wrong unless the gradients with respect to the inputs agree. gradients_of: a function of a case."""
    for case in cases:
        for want, have in zip(probes.gradients(reference)(*case), gradients_of(*case)):
            if want is not None and _gradient_differs(have, want, tolerance):
                raise Wrong(
                    "the outputs are right, but the gradients are not: "
                    "is something detached, turned into NumPy, or under no_grad?"
                )


def _gradient_differs(have: torch.Tensor | None, want: torch.Tensor, tolerance: float) -> bool:
    """No gradient is as good as one that is 0: an answer need not use what has no influence."""
    return bool(difference(torch.zeros_like(want) if have is None else have, want, 10 * tolerance))
