"""Speed of our MM-DiT relative to diffusers' with the same weights.

The two models run alternately, in pairs, and the result is the median over the pairs of the ratio of their times. Other
load slows both runs of a pair, so the ratio varies less than the times. Several shapes are measured, since different
operations dominate: in small models the overhead of calls (*dispatch-bound*), in large ones the matrix products
(*matrix-bound*). The kit's own model lies between.
"""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from gen_affect_lib.device import pick_device
from gen_affect_lib.files import write_json
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.parity import to_diffusers

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
    taken: dict[str, list[float]] = {name: [] for name in networks}
    start = time.perf_counter()
    for pair in range(WARM_UP + pairs):
        if pair >= WARM_UP + LEAST_PAIRS and time.perf_counter() - start > patience:
            break
        for name in ("ours", "diffusers") if pair % 2 else ("diffusers", "ours"):
            ours.zero_grad()
            theirs.zero_grad()
            taken[name].append(seconds(lambda: PASSES[pass_name](networks[name]), device))
    taken = {name: times[WARM_UP:] for name, times in taken.items()}

    ratios = [b / a for a, b in zip(*taken.values(), strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    return {
        "shape": asdict(shape),
        "pass": pass_name,
        "pairs": len(ratios),
        "ours_ms": 1000 * statistics.median(taken["ours"]),
        "diffusers_ms": 1000 * statistics.median(taken["diffusers"]),
        "ratio": ratio,
        "noise": 1.57 * (high - low) / len(ratios) ** 0.5,  # from the quartiles (McGill, Tukey and Larsen 1978)
        "bar": shape.bar,
        "largest_difference": difference.item(),
    }


def run(
    json_path: str | Path | None = None, pairs: int = 50, patience: float = 15.0, shapes: tuple[Shape, ...] = SHAPES
) -> dict:
    """Measure every shape and pass, print a line for each, and write the report to `json_path` if given.

    Each measurement takes at most about `patience` seconds, unless ten pairs take longer.

    Returns the report: "machine", and "results" with the record of `measure` for each shape and pass. Its additional
    entry "passed" is whether ratio + noise reaches the bar.
    """
    device = pick_device()
    report = {
        "machine": {
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu",
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "results": [],
    }
    for shape in shapes:
        for pass_name in PASSES:
            result = measure(shape, pass_name, pairs, patience, device)
            result["passed"] = result["ratio"] + result["noise"] >= shape.bar
            report["results"].append(result)
            times = f"{result['ours_ms']:7.1f} ms, diffusers {result['diffusers_ms']:7.1f} ms"
            ratio = f"{result['ratio']:.2f} ± {result['noise']:.2f} times as fast, bar {shape.bar}"
            print(f"{shape.name:14} {pass_name:16} {times}: {ratio}", flush=True)
    if json_path is not None:
        path = Path(json_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, report)
    return report
