"""Write networks to ONNX files with weights in half precision, and read them back.

Weights with two or more dimensions are stored in 16 bits, which halves the file; the others (gains, means) in 32. A
Cast node behind each 16-bit weight makes runtimes convert it to 32 bits when they load the file. So all arithmetic is
in 32 bits, and a torch network with the rounded weights gives the same results.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from gen_affect_lib.errors import UserError
from gen_affect_lib.files import atomic
from gen_affect_lib.tensors import require_finite

Net = TypeVar("Net", bound=nn.Module)


@torch.no_grad()
def round_weights(net: Net) -> Net:
    """Round the weights of a network to half precision in place; their type stays float32."""
    for weight in net.parameters():
        if weight.ndim >= 2:
            weight.copy_(weight.half())
    return net


def export(net: nn.Module, path: Path, example: Tensor, outputs: list[str], dynamic: dict[int, str]) -> None:
    """Write a network with rounded weights as an ONNX file.

    Args:
        net: the network, see `round_weights`.
        path: the file.
        example: an input; only its shape matters.
        outputs: the names of the outputs.
        dynamic: index → name of the dimensions of the input that may vary.

    Raises UserError if the weights are not rounded.
    """
    import warnings

    net = net.eval()
    require_finite(net, f"{path} was not written")
    for name, weight in net.named_parameters():
        if weight.ndim >= 2 and not torch.equal(weight, weight.half().float()):
            raise UserError(f"{name} is not rounded: call round_weights before export")
    # The tracing exporter keeps the names of the weights and needs no other package. PRESERVE and no folding keep it
    # from merging normalizations into the weights, which could not be read back then.
    with atomic(path) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (example,),
            str(partial),
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            output_names=outputs,
            dynamic_axes={"input": dynamic, **({name: {0: "batch"} for name in outputs} if 0 in dynamic else {})},
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
        model = onnx.load(str(partial))
        halve(model.graph)
        onnx.checker.check_model(model)
        onnx.save(model, str(partial))


def halve(graph) -> None:
    """Store each weight that 16 bits hold exactly in 16 bits, with a Cast to 32 bits behind it."""
    casts, renamed = [], {}
    for weight in graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) >= 2:
            name, full = weight.name, numpy_helper.to_array(weight)
            with np.errstate(over="ignore"):
                half = full.astype(np.float16)
            if not np.array_equal(half.astype(np.float32), full):
                continue
            weight.CopyFrom(numpy_helper.from_array(half, name))
            renamed[name] = f"{name}.float32"
            casts.append(helper.make_node("Cast", [name], [renamed[name]], f"{name}.cast", to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend(casts + nodes)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file of `export`: name in torch → float32 tensor.

    Raises UserError if the file is missing or is not an ONNX file.
    """
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # onnx raises whatever its parser raises
        raise UserError(
            f"{path} cannot be read as an ONNX file ({type(error).__name__}): fetch it again, or train "
            "anew with `python -m gen_affect_lib train-encoder identity`"
        ) from None
    weights = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in graph.initializer}
    for node in graph.node:  # equal weights are stored once; the second name refers to the first
        if node.op_type == "Identity" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    return {name: w.float() if w.is_floating_point() else w for name, w in weights.items()}


def load_weights(net: Net, path: Path) -> Net:
    """Load a file of `export` into a network of the same sizes; returns it in evaluation mode.

    Raises UserError if the file is missing or has other weights.
    """
    weights = read_weights(path)
    wanted = {name: tensor for name, tensor in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    wrong = [name for name, tensor in wanted.items() if name not in weights or weights[name].shape != tensor.shape]
    if wrong:
        raise UserError(
            f"{path} belongs to another network ({wrong[0]} and {len(wrong) - 1} more weights do not fit config.json): "
            "take both files from one training"
        )
    net.load_state_dict({name: weights[name] for name in wanted}, strict=False)
    require_finite(net, str(path))
    return net.eval()
