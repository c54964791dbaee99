"""An answer and a reference implementation, run on the same cases."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from gen_affect_lib.course.checks.differences import difference
from gen_affect_lib.course.checks.wording import describe_call, describe_error, name_of

Mistake = tuple[str, Callable]  # the message for the student, and an implementation with the mistake


class Wrong(Exception):
    """An answer is not right. Its message is for the student: what came, what was expected, the likely mistake."""


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
    expected = [reference(*copy.deepcopy(case)) for case in cases]
    for case, want in zip(cases, expected):
        arguments = copy.deepcopy(case)
        try:
            got = answer(*arguments)
        except NotImplementedError:
            raise
        except Wrong:  # raised by an argument, such as a callback that checks what it receives
            _raise_known_mistake(answer, cases, mistakes, tolerance)
            raise
        except Exception as error:
            _raise_known_mistake(answer, cases, mistakes, tolerance)
            message = f"{describe_error(name_of(answer), error)} It was called with {describe_call(reference, case)}."
            raise Wrong(message) from error
        if problem := difference(got, want, tolerance):
            _raise_known_mistake(answer, cases, mistakes, tolerance)
            raise Wrong(f"called with {describe_call(reference, case)}, {problem}")
        if difference(arguments, case, 0.0):
            raise Wrong(f"`{name_of(answer)}` changes its arguments: work on a copy, or on new tensors.")
    for case in cases if gradients else ():  # last: the messages about wrong values are more helpful
        if problem := _gradient_difference(answer, reference, case, tolerance):
            raise Wrong(problem)


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
    weights = expected.state_dict()
    known_mistakes = []
    for message, mistaken in mistakes:
        try:
            known_mistakes.append((message, _with_weights(mistaken, build, weights)))
        except Exception:
            pass  # it has other parameters, for which `_with_weights` has a message
    module = _with_weights(answer, build, weights)
    compare(module, expected, *cases, mistakes=known_mistakes, gradients=True, tolerance=tolerance)
    for case in cases:
        for one in (module, expected):
            one.zero_grad()
            _weighted_sum(one(*case)).backward()
        for (name, got), (_, want) in zip(sorted(module.named_parameters()), sorted(expected.named_parameters())):
            if want.grad is not None and (got.grad is None or difference(got.grad, want.grad, 10 * tolerance)):
                raise Wrong(
                    f"the outputs are right, but the gradient of `{name}` is not: "
                    "is something detached, or under no_grad?"
                )


def _with_weights(kind: type, build: Mapping[str, object], weights: Mapping[str, Tensor]) -> nn.Module:
    """A module of a student's class with the given weights. Raises Wrong if it has other parameters."""
    module = kind(**build)
    if not isinstance(module, nn.Module):
        raise Wrong(f"`{name_of(kind)}` must be an `nn.Module`.")
    own = module.state_dict()
    for name, value in weights.items():
        if name not in own:
            parameters = ", ".join(own) or "none"
            raise Wrong(f"there is no `{name}` among the parameters of `{name_of(kind)}`, which are {parameters}.")
        shape, expected = tuple(own[name].shape), tuple(value.shape)
        if shape != expected:
            raise Wrong(f"the parameter `{name}` has the shape {shape}, and should have {expected}.")
    module.load_state_dict({name: weights.get(name, value) for name, value in own.items()})
    return module


def _raise_known_mistake(answer: Callable, cases: Sequence, mistakes: Sequence[Mistake], tolerance: float) -> None:
    """Raise Wrong with the message of the first mistake that agrees with the answer in every case."""

    def outcome(function: Callable, case: Sequence) -> tuple[object, bool]:
        try:
            return function(*copy.deepcopy(case)), False
        except Exception:
            return None, True

    def agree(mistaken: Callable, case: Sequence) -> bool:
        (got, got_raised), (want, want_raised) = outcome(answer, case), outcome(mistaken, case)
        return got_raised == want_raised and (got_raised or not difference(got, want, tolerance))

    for message, mistaken in mistakes:
        if all(agree(mistaken, case) for case in cases):
            raise Wrong(message)


def _gradient_difference(answer: Callable, reference: Callable, case: Sequence, tolerance: float) -> str:
    """What is wrong with the gradients in one case, in words; an empty string if nothing is."""
    expected, got = _gradients(reference, case), _gradients(answer, case)
    for want, have in zip(expected, got):
        if want is not None and (have is None or difference(have, want, 10 * tolerance)):
            return (
                "the outputs are right, but the gradients are not: "
                "is something detached, turned into NumPy, or under no_grad?"
            )
    return ""


def _gradients(function: Callable, case: Sequence) -> Sequence[Tensor | None]:
    """The gradient of a weighted sum of the outputs with respect to each floating tensor among the arguments."""
    arguments = [
        value.detach().clone().requires_grad_()
        if isinstance(value, Tensor) and value.is_floating_point()
        else copy.deepcopy(value)
        for value in case
    ]
    leaves = [value for value in arguments if isinstance(value, Tensor) and value.requires_grad]
    if not leaves:
        return []
    total = _weighted_sum(function(*arguments))
    if not total.requires_grad:
        return [None] * len(leaves)
    return torch.autograd.grad(total, leaves, allow_unused=True)


def _weighted_sum(result: object) -> Tensor:
    """The sum of all numbers in a result, each with a different weight, so that errors do not cancel."""
    if isinstance(result, Tensor):
        if not result.ndim:
            return result
        return (result * torch.linspace(0.5, 1.5, max(result.numel(), 1)).reshape(result.shape)).sum()
    values = list(result.values()) if isinstance(result, Mapping) else result
    assert isinstance(values, (tuple, list))
    total = torch.zeros(())
    for value in values:
        if isinstance(value, (Tensor, tuple, list, Mapping)):
            total = total + _weighted_sum(value)
    return total
