"""Speed of our MM-DiT relative to diffusers' with the same weights.

The two models run alternately, in pairs, and the result is the median over the pairs of the ratio of their times. Other
load slows both runs of a pair, so the ratio varies less than the times. Several shapes are measured, since different
operations dominate: in small models the overhead of calls (*dispatch-bound*), in large ones the matrix products
(*matrix-bound*). The kit's own model lies between. `run_scale` does the same with a block of Stable Diffusion 3.5.
"""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen_affect_lib.device import pick_device
from gen_affect_lib.files import write_json
from gen_affect_lib.model.consistent import Consistency, Replace
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.model.sd35 import MEDIUM, TEXT_TOKENS
from gen_affect_lib.parity import to_diffusers

Steps = dict[str, Callable[[], object]]  # what is timed, by name
WARM_UP = 3  # pairs that are not counted
LEAST_PAIRS = 10  # for a meaningful median


@dataclass(frozen=True)
class Shape:
    """Sizes of a model and batch, and the required ratio `bar` of diffusers' time to ours."""

    name: str
    bar: float
    batch: int
    sample_size: int
    condition_tokens: int
    num_layers: int
    attention_head_dim: int
    num_attention_heads: int

    def model(self) -> MMDiT:
        """A model of this size with all weights random; the zeros of adaLN-Zero would hide differences of outputs."""
        model = MMDiT(
            sample_size=self.sample_size,
            num_layers=self.num_layers,
            attention_head_dim=self.attention_head_dim,
            num_attention_heads=self.num_attention_heads,
        )
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.05)
        return model

    def inputs(self, model: MMDiT) -> dict[str, Tensor]:
        """Random arguments for `MMDiT.forward`."""
        sizes = model.config
        return {
            "hidden_states": torch.randn(self.batch, sizes["in_channels"], self.sample_size, self.sample_size),
            "encoder_hidden_states": torch.randn(self.batch, self.condition_tokens, sizes["joint_attention_dim"]),
            "pooled_projections": torch.randn(self.batch, sizes["pooled_projection_dim"]),
            "timestep": torch.rand(self.batch) * 1000,
        }


SHAPES = (
    Shape("dispatch-bound", 1.2, 1, 8, 12, num_layers=6, attention_head_dim=32, num_attention_heads=2),
    Shape("kit", 1.0, 16, 8, 12, num_layers=5, attention_head_dim=32, num_attention_heads=5),  # as a laptop trains it
    Shape("matrix-bound", 1.0, 1, 32, 32, num_layers=2, attention_head_dim=64, num_attention_heads=12),
)


def seconds(step: Callable[[], object], device: torch.device) -> float:
    """Duration of one call in seconds, including the work of the accelerator."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - start


def forward(network: Callable[[], Tensor]) -> None:
    with torch.no_grad():
        network()


def forward_backward(network: Callable[[], Tensor]) -> None:
    network().square().mean().backward()


PASSES = {"forward": forward, "forward+backward": forward_backward}


def measure(shape: Shape, pass_name: str, pairs: int, patience: float, device: torch.device) -> dict:
    """Time one pass at one shape in pairs of runs; which model runs first alternates.

    Runs `pairs` pairs, or fewer (at least 10) if they take longer than `patience` seconds in total.

    Returns "ratio", the median of diffusers' time over ours, with "noise", the half-width of its approximate 95 %
    interval; the median milliseconds of each; and "largest_difference" between the outputs, relative to the largest
    output.
    """
    torch.manual_seed(0)
    ours = cast(MMDiT, nn.Module.to(shape.model(), device))
    theirs = to_diffusers(ours)
    inputs = {name: tensor.to(device) for name, tensor in shape.inputs(ours).items()}
    with torch.no_grad():
        expected = theirs(**inputs).sample
        difference = (ours(**inputs) - expected).abs().max() / expected.abs().max()

    networks = {"ours": lambda: ours(**inputs), "diffusers": lambda: theirs(**inputs, return_dict=False)[0]}

    def forget_gradients():
        ours.zero_grad()
        theirs.zero_grad()

    steps: Steps = {name: partial(PASSES[pass_name], network) for name, network in networks.items()}
    taken = alternately(steps, pairs, patience, device, forget_gradients)
    return (
        {"shape": asdict(shape), "pass": pass_name}
        | compared(taken)
        | {"bar": shape.bar, "largest_difference": difference.item()}
    )


def alternately(
    steps: Steps,
    pairs: int,
    patience: float,
    device: torch.device,
    before: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of two steps, in pairs of runs, after a few that are not counted; `before` is called before each run.

    Runs `pairs` pairs, or fewer (at least 10) if they take longer than `patience` seconds in total.
    """
    taken: dict[str, list[float]] = {name: [] for name in steps}
    start = time.perf_counter()
    for pair in range(WARM_UP + pairs):
        if pair >= WARM_UP + LEAST_PAIRS and time.perf_counter() - start > patience:
            break
        for name in list(steps) if pair % 2 else reversed(list(steps)):
            before()
            taken[name].append(seconds(steps[name], device))
    return {name: times[WARM_UP:] for name, times in taken.items()}


def compared(taken: dict[str, list[float]]) -> dict:
    """The number of pairs, the median milliseconds of each, the ratio of the second to the first, and its noise."""
    first, second = taken.values()
    ratios = [b / a for a, b in zip(first, second, strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    noise = 1.57 * (high - low) / len(ratios) ** 0.5  # from the quartiles (McGill, Tukey and Larsen 1978)
    return (
        {"pairs": len(ratios)}
        | {f"{name}_ms": 1000 * statistics.median(times) for name, times in taken.items()}
        | {"ratio": ratio, "noise": noise}
    )


def run(
    json_path: str | Path | None = None, pairs: int = 50, patience: float = 15.0, shapes: tuple[Shape, ...] = SHAPES
) -> dict:
    """Measure every shape and pass, print a line for each, and write the report to `json_path` if given.

    Each measurement takes at most about `patience` seconds, unless ten pairs take longer.

    Returns the report: "machine", and "results" with the record of `measure` for each shape and pass. Its additional
    entry "passed" is whether ratio + noise reaches the bar.
    """
    device = pick_device()
    report = {"machine": machine(device), "results": []}
    for shape in shapes:
        for pass_name in PASSES:
            result = measure(shape, pass_name, pairs, patience, device)
            result["passed"] = result["ratio"] + result["noise"] >= shape.bar
            report["results"].append(result)
            times = f"{result['ours_ms']:7.1f} ms, diffusers {result['diffusers_ms']:7.1f} ms"
            ratio = f"{result['ratio']:.2f} ± {result['noise']:.2f} times as fast, bar {shape.bar}"
            print(f"{shape.name:14} {pass_name:16} {times}: {ratio}", flush=True)
    if json_path is not None:
        write_json(json_path, report)
    return report


def machine(device: torch.device) -> dict:
    return {
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


# One block of Stable Diffusion 3.5 medium

SCALE = {"image_tokens": 1024, "text_tokens": TEXT_TOKENS, "images": 4}  # pictures of 512 × 512 pixels
SETS = {
    "the default": Consistency(),
    "tokens appended": Consistency(replace=Replace.NOTHING),
}


def run_scale(
    json_path: str | Path | None = None,
    pairs: int = 20,
    patience: float = 60.0,
    sizes: dict | None = None,
    tokens: dict[str, int] = SCALE,
) -> dict:
    """Time a block of SD3.5 medium, with two attentions, against that of diffusers; and consistent attention of a set
    against as many independent images. Prints a line for each, and writes the report to `json_path` if given.

    On the CPU in float32. On a GPU in bfloat16, as it is and compiled. Speeds are also given as a share of the speed of
    a large matrix product on the same device, which is its practical peak.

    Args:
        sizes: of the model, see `sd35.MEDIUM`.
        tokens: of an image and of its text, and the number of images of a set, as in `SCALE`.

    Returns the report: "machine", "peak_tflops" (of the matrix product), "sizes", and "results", each with the record
    of `compared`, "tflops" and "share_of_peak" of ours.
    """
    device = pick_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    sizes = (sizes or MEDIUM) | {"num_layers": 2, "dual_attention_layers": (0,)}  # the first is a whole dual block
    sizes |= {"joint_attention_dim": 64, "pooled_projection_dim": 64}  # of layers outside the blocks
    torch.manual_seed(0)
    model = MMDiT(**sizes)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    model = cast(MMDiT, nn.Module.to(model, device, dtype))
    block, other = model.blocks[0], to_diffusers(model).transformer_blocks[0]
    dim = sizes["num_attention_heads"] * sizes["attention_head_dim"]
    draw = partial(torch.randn, device=device, dtype=dtype)
    image, text = draw(1, tokens["image_tokens"], dim), draw(1, tokens["text_tokens"], dim)
    c = draw(1, dim)

    peak = peak_flops(device, dtype)
    report = {"machine": machine(device), "peak_tflops": peak / 1e12, "sizes": sizes | tokens, "results": []}

    def add(name: str, steps: Steps, flops: float) -> None:
        with torch.no_grad():
            result = compared(alternately(steps, pairs, patience, device))
        first = next(iter(steps))
        speed = flops / (result[f"{first}_ms"] / 1000)
        result |= {"tflops": speed / 1e12, "share_of_peak": speed / peak}
        report["results"].append({"name": name} | result)
        times = ", ".join(f"{way} {result[f'{way}_ms']:.1f} ms" for way in steps)
        ratio = f"ratio {result['ratio']:.2f} ± {result['noise']:.2f}"
        print(f"{name:44} {times}: {ratio}, {result['share_of_peak']:.0%} of {peak / 1e12:.2f} Tflop/s", flush=True)

    # diffusers' modulations apply the SiLU themselves, ours get c after it
    given, theirs_given = (image, text, F.silu(c)), {"hidden_states": image, "encoder_hidden_states": text, "temb": c}
    with torch.no_grad():
        a, b = block(*given)[0], other(**theirs_given)[1]
    report["largest_difference"] = ((a - b).abs().max() / b.abs().max()).item()
    work = flops_of(lambda: block(*given))
    ways: dict[str, tuple[Callable, Callable]] = {"a block": (block, other)}
    if device.type == "cuda":
        ways["a block, compiled"] = (torch.compile(block, fullgraph=True), torch.compile(other))
    for name, (ours, theirs) in ways.items():
        steps = {"ours": lambda: ours(*given), "diffusers": lambda: theirs(**theirs_given)}
        add(f"{name}, {tokens['image_tokens']} + {tokens['text_tokens']} tokens", steps, work)

    N = tokens["images"]
    set_given = draw(N, tokens["image_tokens"], dim), draw(N, tokens["text_tokens"], dim), F.silu(draw(N, dim))
    first, rest = [x[:1] for x in set_given], [x[1:] for x in set_given]
    grid = (1, tokens["image_tokens"])
    face = torch.zeros(grid, dtype=torch.bool)

    def consistently(consistency: Consistency) -> None:
        step = consistency.step(grid, 1.0, 1, device, face)
        block(*first, step.record, 0, 1.0)
        block(*rest, step.read, 0, 1.0)

    for about, consistency in SETS.items():
        shared = partial(consistently, consistency)
        steps = {"a set": shared, "independent": lambda: block(*set_given)}
        add(f"{N} images, consistent attention, {about}", steps, flops_of(shared))
    if json_path is not None:
        write_json(json_path, report)
    return report


def flops_of(step: Callable[[], object]) -> int:
    """Floating-point operations of matrix products and attention in a step."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    # The counter knows only the attention kernels of GPUs.
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    formula = {kernel: lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formula) as counter:
        step()
    return counter.get_total_flops()


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest of five products of large square matrices."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    best = min(seconds(lambda: a @ b, device) for _ in range(6))  # the first one warms up
    return 2 * side**3 / best
