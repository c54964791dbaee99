"""What the checks find out about an answer, next to the answer; see `answer`. Nothing here contains a right answer.

First what `compare` needs, then what single exercises need. A function that a check passes to an answer is here, too:
only by its name can it go to another process.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gen_affect_lib import flow
from gen_affect_lib.course.checks.answer import Wrong, probe
from gen_affect_lib.course.checks.wording import name_of
from gen_affect_lib.model.attention import QKV

# --- for all ---------------------------------------------------------------------------------------------------------


@probe
def gradients(function: Callable) -> Callable:
    """(*case) -> the gradient of a weighted sum of the outputs with respect to each floating tensor of the case."""

    def of_inputs(*case):
        arguments = [
            value.detach().clone().requires_grad_()
            if isinstance(value, Tensor) and value.is_floating_point()
            else copy.deepcopy(value)
            for value in case
        ]
        leaves = [value for value in arguments if isinstance(value, Tensor) and value.requires_grad]
        if not leaves:
            return []
        total = weighted_sum(function(*arguments))
        if not total.requires_grad:
            return [None] * len(leaves)
        return list(torch.autograd.grad(total, leaves, allow_unused=True))

    return of_inputs


@probe
def operations(function: Callable) -> Callable:
    """(*case) -> the names of the torch operations that a call runs, such as "aten.im2col"."""

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            names.add(str(operation).rpartition(".")[0])
            return operation(*args, **(kwargs or {}))

    names: set[str] = set()

    def of_call(*case):
        names.clear()
        with Record():
            function(*case)
        return sorted(names)

    return of_call


@probe
def function_calls(function: Callable) -> Callable:
    """(*case) -> the names of torch's functions that a call uses, such as "softmax"."""

    class Record(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            names.add(getattr(function, "__name__", ""))
            return function(*args, **(kwargs or {}))

    names: set[str] = set()

    def of_call(*case):
        names.clear()
        with Record():
            function(*case)
        return sorted(names)

    return of_call


@probe
def module_calls(kind: Callable) -> Callable:
    """(arguments of the constructor, *case) -> `function_calls` of a new module."""
    return lambda build, *case: function_calls(kind(**build))(*case)


@probe
def shapes(kind: Callable) -> Callable:
    """(arguments of the constructor) -> {parameter: its shape}. Raises Wrong for what is no module."""

    def of_parameters(build: Mapping[str, object]) -> dict[str, tuple]:
        module = kind(**build)
        if not isinstance(module, nn.Module):
            raise Wrong(f"`{name_of(kind)}` must be an `nn.Module`.")
        return {name: tuple(value.shape) for name, value in module.state_dict().items()}

    return of_parameters


@probe
def outputs(kind: Callable) -> Callable:
    """(arguments of the constructor, weights, *case) -> what a module with these weights returns."""
    return lambda build, weights, *case: with_weights(kind, build, weights)(*case)


@probe
def module_gradients(kind: Callable) -> Callable:
    """(arguments of the constructor, weights, *case) -> the gradients of the inputs, as `gradients` gives them, and
    those of the parameters, {name: gradient}."""

    def of_everything(build, weights, *case):
        module = with_weights(kind, build, weights)
        of_inputs = gradients(module)(*case)
        module.zero_grad()
        total = weighted_sum(module(*case))
        if total.requires_grad:
            total.backward()
        return of_inputs, {name: parameter.grad for name, parameter in module.named_parameters()}

    return of_everything


def with_weights(kind: Callable, build: Mapping[str, object], weights: Mapping[str, Tensor]) -> nn.Module:
    """A module with the given weights; its other parameters stay as they are."""
    module = kind(**build)
    module.load_state_dict({name: weights.get(name, value) for name, value in module.state_dict().items()})
    return module


def weighted_sum(result: object) -> Tensor:
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
            total = total + weighted_sum(value)
    return total


# --- 1.2 Expression --------------------------------------------------------------------------------------------------


@probe
def expression_vector(kind: Callable) -> Callable:
    return lambda values: kind(**values).to_vector()


@probe
def expression_from_vector(kind: Callable) -> Callable:
    """(vector) -> whether an expression came back, else the name of its type; as a vector; its argument afterwards."""

    def back(vector):
        given = vector.copy()
        got = kind.from_vector(given)  # type: ignore[attr-defined]
        if not isinstance(got, kind):  # type: ignore[arg-type]
            return type(got).__name__, None, given
        return "", got.to_vector(), given

    return back


@probe
def expression_interpolate(kind: Callable) -> Callable:
    """(values, values, t) -> as `expression_from_vector`, and both as vectors afterwards."""

    def between(one, other, t):
        left, right = kind(**one), kind(**other)
        got = left.interpolate(right, t)
        after = left.to_vector(), right.to_vector()
        if not isinstance(got, kind):  # type: ignore[arg-type]
            return type(got).__name__, None, *after
        return "", got.to_vector(), *after

    return between


# --- 3.6 Projections, 3.10 KeyValueProjections -----------------------------------------------------------------------


@probe
def projected(kind: Callable) -> Callable:
    """(arguments of the constructor, weights, x) -> the QKV of tokens x, and the gradient of x."""

    def of_tokens(build, weights, x):
        made: Any = with_weights(kind, build, weights)
        tokens = x.clone().requires_grad_()
        result = made.qkv(tokens)
        if isinstance(result, (tuple, list)) and getattr(result, "_fields", None) != QKV._fields:
            raise Wrong("return `QKV(query, key, value)`, whose parts have names: the cells below use them.")
        (gradient,) = torch.autograd.grad(weighted_sum(result), tokens, allow_unused=True)
        return tuple(part if part is None else part.detach() for part in result), gradient

    of_tokens.__name__ = "qkv"
    return of_tokens


# --- 3.9 Stream ------------------------------------------------------------------------------------------------------


@probe
def after_attention(kind: Callable) -> Callable:
    """(arguments of the constructor, weights, x, c, seen) -> the tokens after a stream's second half, and the gradients
    of x, c and seen."""

    def after(build, weights, x, c, seen):
        stream: Any = with_weights(kind, build, weights)
        leaves = [value.clone().requires_grad_() for value in (x, c, seen)]
        tokens, vector, attended = leaves
        result = stream.after(tokens, attended, stream.before(tokens, vector)[1])
        gradients = torch.autograd.grad(weighted_sum(result), leaves, allow_unused=True)
        return result.detach(), gradients

    after.__name__ = "Stream"
    return after


# --- 3.13 MMDiT ------------------------------------------------------------------------------------------------------


@probe
def zero_at_start(kind: Callable) -> Callable:
    """(arguments of the constructor) -> the names of the parameters of a new module that are 0 everywhere."""
    return lambda build: [name for name, value in kind(**build).named_parameters() if not value.any()]


# --- 4.4 RectifiedFlow, 4.5 train, 4.9 rectify -----------------------------------------------------------------------


class _Field(nn.Module):
    """The smallest network with the inputs of a flow: (x (B, ...), sigma (B,)) -> (B, ...)."""

    def __init__(self, seed: int):
        super().__init__()
        start = torch.randn(2, generator=torch.Generator().manual_seed(seed))
        self.weight, self.slope = nn.Parameter(start[0].clone()), nn.Parameter(start[1].clone())

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        if not isinstance(sigma, Tensor) or sigma.shape != x.shape[:1]:
            raise ValueError(f"the network expects a sigma for each of the {len(x)} examples, as a tensor ({len(x)},)")
        return (self.weight * x).sin() + self.slope * flow._broadcast(sigma, x) * x


@probe
def objective(kind: Callable) -> Callable:
    """(prediction, sigma_floor, data, noise, sigma) -> the loss of a small network, its gradients with respect to the
    network's two parameters, and the velocity that the class reads from the network's output: at `sigma`, at a sigma
    that is a number, and at sigma 0."""

    def of_class(prediction, sigma_floor, data, noise, sigma):
        made, network = kind(prediction, sigma_floor), _Field(1)
        loss = made.loss(network, data, noise, sigma)
        gradients = [torch.zeros(()), torch.zeros(())]
        if isinstance(loss, Tensor) and loss.requires_grad:
            found = torch.autograd.grad(loss.sum(), list(network.parameters()), allow_unused=True)
            gradients = [torch.zeros(()) if one is None else one for one in found]
        output = network(data, sigma).detach()
        velocities = [made.velocity_from(output, data, s) for s in (sigma, 0.25, torch.zeros_like(sigma))]
        return (loss.detach() if isinstance(loss, Tensor) else loss), gradients, *velocities

    of_class.__name__ = "RectifiedFlow"
    return of_class


@probe
def trained(train: Callable) -> Callable:
    """(seed, steps) -> what a training loop returns, and the network's parameters and learning rate afterwards."""

    def after(seed, steps):
        generator = torch.Generator().manual_seed(seed)
        network, parts = _Field(seed), flow.RectifiedFlow()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.5)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.2, total_iters=steps)
        batches = [
            (*torch.randn(2, 6, 2, generator=generator), torch.rand(6, generator=generator)) for _ in range(steps)
        ]
        losses = train(network, parts, optimizer, decay, iter(batches))
        _plain_numbers(losses)
        return losses, [one.detach().clone() for one in network.parameters()], optimizer.param_groups[0]["lr"]

    after.__name__ = "train"
    return after


def _plain_numbers(losses: object) -> None:
    if isinstance(losses, (list, tuple)) and any(isinstance(loss, Tensor) for loss in losses):
        raise Wrong("the list holds tensors, each with its graph, so memory grows with every step: `loss.item()`.")


@probe
def rectified(rectify: Callable) -> Callable:
    """(seed, steps) -> as `trained`, for a function that learns straight paths between the ends of `a_field`."""

    def after(seed, steps):
        generator = torch.Generator().manual_seed(seed)
        network = _Field(seed)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        noise = torch.randn(9, 2, generator=generator)
        batches = [
            (torch.randint(9, (5,), generator=generator), torch.rand(5, generator=generator)) for _ in range(steps)
        ]
        losses = rectify(network, optimizer, a_field, noise, flow.schedule(6), iter(batches))
        _plain_numbers(losses)
        return losses, [one.detach().clone() for one in network.parameters()]

    after.__name__ = "rectify"
    return after


# --- 4.6 sample, 4.8 midpoint, 4.12 ours_from_theirs, 4.13 ours_from_ddpm --------------------------------------------


def a_field(x: Tensor, sigma: Tensor) -> Tensor:
    """A velocity that depends on x and on sigma."""
    if not isinstance(sigma, Tensor) or sigma.shape != x.shape[:1]:
        what = f"a tensor {tuple(sigma.shape)}" if isinstance(sigma, Tensor) else repr(sigma)
        raise ValueError(
            f"velocity_fn expects a sigma for each of the {len(x)} pictures, ({len(x)},), and was given {what}"
        )
    return (2 * x).sin() + flow._broadcast(sigma, x) ** 2 * x + 0.5


def a_field_above_0(x: Tensor, sigma: Tensor) -> Tensor:
    """The same, but undefined at sigma 0, as the velocity of an x-prediction is."""
    if isinstance(sigma, Tensor) and (sigma <= 0).any():
        raise ValueError("velocity_fn was called at sigma 0. No step needs it: Euler's step begins at a larger sigma")
    return a_field(x, sigma)


@probe
def walked(sampler: Callable) -> Callable:
    """A sampler's result, the calls of its callback, and the noise afterwards: (end, [(step, sigma, x), …], noise)."""

    def walk(velocity_fn, noise, sigmas, method):
        told = []

        def note(step, sigma, x):
            if isinstance(sigma, Tensor):
                raise Wrong("`callback` gets sigma as a tensor. A plain number was asked for: `sigma_next.item()`.")
            told.append((step, float(sigma), x.clone()))  # an answer may go on to change its own x in place

        end = sampler(velocity_fn, noise, sigmas, method, callback=note)
        return end, told, noise

    walk.__name__ = "sample"
    return walk


@probe
def converted(function: Callable) -> Callable:
    """(x, sigma) -> the velocity of the function that the answer makes of `a_field`."""

    def ours(x, sigma):
        velocity = function(a_field)
        if not callable(velocity):
            raise Wrong(
                "the argument is a function, and a function must come out: one of x and sigma, as `sample` calls it."
                if velocity is not None
                else "nothing came back: is there a `return`?"
            )
        return velocity(x, sigma)

    ours.__name__ = "ours_from_theirs"
    return ours


def an_epsilon(z: Tensor, alpha_bar: Tensor) -> Tensor:
    """A prediction of the noise that depends on z and on alpha_bar, as a DDPM's network makes it."""
    if not isinstance(alpha_bar, Tensor) or alpha_bar.shape != z.shape[:1]:
        raise ValueError(f"their network expects an alpha_bar for each of the {len(z)} examples, ({len(z)},)")
    return (2 * z).sin() + flow._broadcast(alpha_bar, z) * z


@probe
def converted_ddpm(function: Callable) -> Callable:
    """(x, sigma) -> the velocity of the function that the answer makes of `an_epsilon`."""

    def ours(x, sigma):
        velocity = function(an_epsilon)
        if not callable(velocity):
            raise Wrong("the argument is a function, and a function of x and sigma must come out: is there a `return`?")
        return velocity(x, sigma)

    ours.__name__ = "ours_from_ddpm"
    return ours


# --- 5.2 ArcFaceLoss, 6.3 Attention, 6.4 Embeddings ------------------------------------------------------------------


@probe
def kept_weights(kind: Callable) -> Callable:
    """(arguments of the constructor, x) -> a module's attribute `weights` after a call; None if it is no tensor."""

    def after_a_call(build, x):
        module = kind(**build)
        module(x)
        kept = getattr(module, "weights", None)
        return kept if isinstance(kept, Tensor) else None

    return after_a_call


@probe
def fresh_parameters(kind: Callable) -> Callable:
    """(arguments of the constructor) -> {name: a new module's parameter}."""
    return lambda build: dict(kind(**build).named_parameters())


# --- 7.3 both_together -----------------------------------------------------------------------------------------------


def product(who: Tensor, what: Tensor) -> Tensor:
    return who[:, :3] * what.mean(dim=1, keepdim=True) + 0.5 * who[:, :3]


def sine(who: Tensor, what: Tensor) -> Tensor:
    return (2 * who + what.mean(dim=1, keepdim=True)).sin() + 0.3 * who[:, :1]


def added(who: Tensor, what: Tensor) -> Tensor:
    return torch.cat([who.exp(), what.cos()], dim=1)


FUNCTIONS = {function.__name__: function for function in (a_field, a_field_above_0, an_epsilon, product, sine, added)}

# --- 8.7 update_average, 8.8 clip_gradients, 8.9 learn, 8.12 Checkpoint ----------------------------------------------


@probe
def updated(update: Callable) -> Callable:
    """(average, parameters, …) -> both after the update."""

    def update_average(average, parameters, step, *most):
        average = [tensor.clone() for tensor in average]
        parameters = [nn.Parameter(tensor.clone()) for tensor in parameters]
        held = list(average)
        update(average, parameters, step, *most)
        if any(tensor.requires_grad for tensor in average):
            raise Wrong(
                "the average has become part of a graph: compute it under `no_grad`, or every step keeps all earlier "
                "steps in memory."
            )
        if any(one is not other for one, other in zip(average, held)):
            raise Wrong(
                "there are new tensors in `average`, and the trainer still has the old ones: change the tensors "
                "themselves."
            )
        return average, [parameter.detach() for parameter in parameters]

    return update_average


@probe
def clipped(clip: Callable) -> Callable:
    """(gradients, most) -> the gradients after clipping, and what clipping returned."""

    def clip_gradients(gradients, most):
        if "clip_grad_norm_" in getattr(getattr(clip, "__code__", None), "co_names", ()):
            raise Wrong("torch's `clip_grad_norm_` does all of it: here you write what it does.")
        parameters = [nn.Parameter(torch.ones(3) if grad is None else torch.ones_like(grad)) for grad in gradients]
        for parameter, grad in zip(parameters, gradients):
            parameter.grad = None if grad is None else grad.clone()
        returned = clip(parameters, most)
        if any((parameter.detach() != 1).any() for parameter in parameters):
            raise Wrong("the weights themselves were changed: clip their gradients, `p.grad`.")
        left = [torch.zeros(3) if parameter.grad is None else parameter.grad for parameter in parameters]
        return left, returned if returned is None else torch.as_tensor(returned, dtype=torch.float32).detach()

    return clip_gradients


class _Model(nn.Module):
    """The smallest network with the inputs of the MM-DiT."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 3, padding=1)
        self.pooled = nn.Linear(4, 2)

    def forward(self, noisy, tokens, pooled, timestep):
        condition = self.pooled(pooled + tokens.mean(1)) + torch.sin(timestep / 300)[:, None]
        return self.layer(noisy) + condition[:, :, None, None]


class _Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.identity, self.expression = nn.Linear(6, 4), nn.Linear(3, 4)

    def forward(self, identity, expression, keep_identity, keep_expression):
        identity = self.identity(identity) * keep_identity[:, None, None]
        expression = self.expression(expression) * keep_expression[:, None]
        return torch.cat([identity, expression[:, None]], dim=1), expression


@probe
def three_steps(step_function: Callable) -> Callable:
    """(description, clip_norm) -> losses, weights and averages after three steps of a small model."""

    def learn(what: str, clip_norm: float) -> dict[str, Sequence]:
        seed = int(10 * clip_norm)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        model, encoder = _Model(), _Encoder()
        parameters = [*model.parameters(), *encoder.parameters()]
        average = [parameter.detach().clone() for parameter in parameters]
        optimizer = torch.optim.SGD(parameters, lr=0.02, momentum=0.5)
        losses = []
        for step in range(3):
            target, noise = 3 * torch.randn(2, 5, 2, 4, 4, generator=generator)
            batch = {
                "identity": torch.randn(5, 2, 6, generator=generator),
                "expression": torch.rand(5, 3, generator=generator),
                "target": target,
            }
            keep = torch.rand(2, 5, generator=generator) > 0.3
            draws = batch, noise, torch.rand(5, generator=generator), *keep
            loss = step_function(model, encoder, optimizer, average, draws, 0.1 / (1 + step), step, clip_norm)
            if isinstance(loss, Tensor) and loss.requires_grad:
                raise Wrong(
                    "the loss comes back with its graph: a list of such losses keeps all steps in memory. Return a "
                    "number, `loss.item()`."
                )
            losses.append(loss)
        return {
            "losses": losses,
            "weights": [parameter.detach().clone() for parameter in parameters],
            "averages": average,
        }

    return learn


@probe
def interrupted(kind: Callable) -> Callable:
    """(seed, stop, steps) -> weights and averages after two runs that are resumed from one checkpoint, and the step and
    the seconds that it kept.

    The checkpoint is made after `stop` steps of a small network. Then the training goes on, which must not change it.
    """

    def begin(seed: int):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        parameters = list(network.parameters())
        average = [parameter.detach().clone() for parameter in parameters]
        return network, parameters, average, torch.optim.AdamW(parameters, lr=0.05)

    def train(network, parameters, average, optimizer, start: int, end: int) -> None:
        for step in range(start, end):
            generator = torch.Generator().manual_seed(step)
            network(torch.randn(6, 3, generator=generator)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for slow, fast in zip(average, parameters):
                    slow.lerp_(fast, 0.3)

    def resumed(seed: int, stop: int, steps: int):
        first = begin(seed)
        train(*first, 0, stop)
        checkpoint: Any = kind(*first[1:], stop, 12.5 * stop)
        train(*first, stop, stop + 2)
        ends = []
        for again in (1, 2):
            network, parameters, average, optimizer = begin(seed + 100 * again)
            held = list(average)
            returned = checkpoint.restore(parameters, average, optimizer)
            if not isinstance(returned, (tuple, list)) or len(returned) != 2:
                raise Wrong("`restore` returns two numbers: the step and the seconds that were kept.")
            if any(one is not other for one, other in zip(average, held)):
                raise Wrong("there are new tensors in `average`: copy the kept numbers into those that are there.")
            train(network, parameters, average, optimizer, int(returned[0]), steps)
            ends.append([[tensor.detach().clone() for tensor in tensors] for tensors in (parameters, average)])
        return {"weights and averages": ends, "step": int(returned[0]), "seconds": float(returned[1])}

    resumed.__name__ = "Checkpoint"
    return resumed


# --- 12.2 fill -------------------------------------------------------------------------------------------------------


def a_network(dtype: torch.dtype = torch.float32) -> nn.Module:
    """A small network with modules inside modules, in which some parameters have equal names."""
    inside = nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 3, bias=False))
    return nn.ModuleDict({"embed": nn.Linear(4, 7), "blocks": nn.ModuleList([inside, nn.Linear(3, 2)])}).to(dtype)


@probe
def filled(fill: Callable) -> Callable:
    """(seed, dtype) -> a network's parameters after it was filled, by name, as float32; the types that they have; how
    often each weight was read; and the most weights in memory at a time that are not the network's own."""

    def after(seed: int, dtype: str):
        generator = torch.Generator().manual_seed(seed)
        kind = getattr(torch, dtype)
        stored = {
            name: torch.randn(rows.shape, generator=generator).to(kind) for name, rows in a_network().named_parameters()
        }
        with torch.device("meta"):
            network = a_network()
        given: list[weakref.ref] = []
        alive: list[set[int]] = []
        reads: dict[str, int] = dict.fromkeys(stored, 0)

        def place(tensor: Tensor) -> int:
            return 0 if tensor.is_meta else tensor.untyped_storage().data_ptr()

        def read(name: str) -> Tensor:
            if name not in stored:
                raise KeyError(f"there is no weight {name!r}; there are {', '.join(stored)}")
            reads[name] += 1
            alive.append({place(tensor) for one in given if (tensor := one()) is not None})
            tensor = stored[name].clone()
            given.append(weakref.ref(tensor))
            return tensor

        fill(network, read)
        if left := [name for name, rows in network.named_parameters() if rows.is_meta]:
            raise Wrong(
                f"{len(left)} of {len(stored)} parameters are still on the device meta, such as `{left[0]}`: they have "
                "no memory into which anything could be copied. Give the module a new `nn.Parameter`, by `setattr`."
            )
        own = {place(rows) for rows in network.parameters()}
        most = max(len(places - own) for places in alive) if alive else 0
        result = {name: rows.detach().float() for name, rows in network.named_parameters()}
        kinds = sorted({str(rows.dtype).removeprefix("torch.") for rows in network.parameters()})
        return result, kinds, reads, most

    after.__name__ = "fill"
    return after
