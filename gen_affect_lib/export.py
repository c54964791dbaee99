"""Write a pipeline as ONNX files, for programs without PyTorch: the playground of the site runs them in a browser.

Three networks and one table:
    fusion.onnx       identity, expression, and what of them is kept -> condition tokens and pooled vector
    transformer.onnx  noisy latents, conditions and sigma -> velocity; also with consistent attention
    decoder.onnx      latents, identity, expression -> pictures in [-1, 1], refined and plain
    model.json        sizes, settings of the sampler, tokens of the face, and the 135 words

Weights are stored in 16 bits where that loses nothing, as in a saved pipeline; all arithmetic is in 32 bits.

Letters: B images, V views of E numbers each, M condition tokens of D channels, C channels and s side of the latents, S
side of a picture, L image tokens.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from gen_affect_lib.avatars.emotions import GROUPS, table
from gen_affect_lib.avatars.factors import ACTION_UNITS, EXPRESSION_UNIT_NAMES, Expression
from gen_affect_lib.encoders.affect import SPREAD, STRENGTHS
from gen_affect_lib.encoders.onnx_files import halve
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import together, write_json
from gen_affect_lib.flow import timestep
from gen_affect_lib.model.attention import QKV, condition_attention, joint_attention
from gen_affect_lib.model.consistent import Consistency, portrait_tokens
from gen_affect_lib.pipeline import GenAffectPipeline

TRANSFORMER, FUSION, DECODER, TABLE = "transformer.onnx", "fusion.onnx", "decoder.onnx", "model.json"


class SharedVelocity(nn.Module):
    """The transformer as a velocity field in which each image has an anchor, possibly itself.

    This is consistent attention with one anchor and `Replace.QUERIES_KEYS_VALUES`, the default of `Consistency`. With
    one anchor, to drop an image's keys and values at the shared tokens and append the anchor's is to replace them in
    place: softmax does not depend on the order. So one graph serves single images (no token is shared) and sets.
    """

    def __init__(self, pipeline: GenAffectPipeline):
        super().__init__()
        self.transformer, self.flow = pipeline.transformer, pipeline.flow

    def forward(
        self, latents: Tensor, tokens: Tensor, pooled: Tensor, sigma: Tensor, anchor: Tensor, shared: Tensor
    ) -> Tensor:
        """Velocity (B, C, s, s).

        Args:
            latents: noisy latents (B, C, s, s).
            tokens, pooled: of the fusion, (B, M, D) and (B, D).
            sigma: (B,) in [0, 1].
            anchor: int64 (B,), the index of each image's anchor in the batch; an anchor's own index for itself.
            shared: bool (L,), the image tokens whose queries, keys and values are the anchor's.
        """
        replaced = shared[None, :, None, None]  # (L,) -> (1, L, 1, 1)

        def attention(image: QKV, condition: QKV | None, *, block: int, sigma: float):
            of_set = image.map(lambda x: torch.where(replaced, x.index_select(0, anchor), x))  # (B, L, H, D) each
            keys_values = None if condition is None else QKV(None, condition.key, condition.value)
            return joint_attention(of_set, keys_values)[0], condition_attention(image, condition)

        output = self.transformer(latents, tokens, pooled, timestep(sigma), attention=attention, sigma=0.0)
        return self.flow.velocity_from(output, latents, sigma)


class Decoder(nn.Module):
    """The decoder of a codec and the refiner of its pictures, if the pipeline has one, as one network."""

    def __init__(self, pipeline: GenAffectPipeline):
        super().__init__()
        self.codec, self.refiner = pipeline.codec, pipeline.refiner

    def forward(self, latents: Tensor, identity: Tensor, expression: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, S, S) in [-1, 1], refined and plain, of latents (B, C, s, s), identity (B, V, E) and
        expression (B, 48). The pipeline takes the plain ones where a guidance scale is 0; without a refiner both are
        equal."""
        if self.refiner is None:
            plain = cast(Tensor, self.codec.decode(latents))  # pyright: ignore[reportCallIssue] (a method)
            return plain + 0, plain
        plain, features = self.codec.decode_with_features(latents)  # pyright: ignore[reportCallIssue]
        return plain + self.refiner(features, identity, expression), plain


def export_onnx(pipeline: GenAffectPipeline, folder: str | Path) -> list[Path]:
    """Write the files of a pipeline into a folder, all or none, and return their paths.

    The number of images B is free in all graphs, the number of condition tokens M in the transformer as well. Raises
    UserError if onnxscript, which torch's exporter needs, is not installed.
    """
    _require_exporter()
    folder = Path(folder)
    sizes, B = pipeline.condition_encoder.config, 3  # B and M of the examples; the files do not depend on them
    side, channels = pipeline.codec.latent_size(pipeline.config["image_size"]), pipeline.codec.latent_channels
    L = (side // pipeline.transformer.config["patch_size"]) ** 2
    views, expression = (sizes["identity_views"], sizes["identity_dim"]), sizes["expression_dim"]
    batch, many = torch.export.Dim("batch"), torch.export.Dim("tokens")
    keep = torch.ones(2, B, dtype=torch.bool).unbind()  # two tensors: of one, the exporter would make one input
    tokens, pooled = torch.zeros(B, 7, sizes["dim"]), torch.zeros(B, sizes["dim"])
    latents = torch.zeros(B, channels, side, side)
    with together(folder) as partial:
        _write(
            pipeline.condition_encoder,
            partial / FUSION,
            {
                "identity": (torch.zeros(B, *views), {0: batch}),
                "expression": (torch.zeros(B, expression), {0: batch}),
                "keep_identity": (keep[0], {0: batch}),
                "keep_expression": (keep[1], {0: batch}),
            },
            ["tokens", "pooled"],
        )
        _write(
            SharedVelocity(pipeline),
            partial / TRANSFORMER,
            {
                "latents": (latents, {0: batch}),
                "tokens": (tokens, {0: batch, 1: many}),
                "pooled": (pooled, {0: batch}),
                "sigma": (torch.full((B,), 0.5), {0: batch}),
                "anchor": (torch.tensor([0, 0, 2]), {0: batch}),
                "shared": (torch.ones(L, dtype=torch.bool), None),
            },
            ["velocity"],
        )
        _write(
            Decoder(pipeline),
            partial / DECODER,
            {
                "latents": (latents, {0: batch}),
                "identity": (torch.zeros(B, *views), {0: batch}),
                "expression": (torch.zeros(B, expression), {0: batch}),
            },
            ["pictures", "plain"],
        )
        write_json(partial / TABLE, _table(pipeline, side, channels, L))
    return [folder / name for name in (FUSION, TRANSFORMER, DECODER, TABLE)]


def _require_exporter() -> None:
    if find_spec("onnxscript") is None:
        raise UserError(
            "the package onnxscript is not installed: run `make .venv/.installed-site`, or "
            'python -m pip install -c constraints.txt -e ".[site]"'
        )


def _write(net: nn.Module, path: Path, inputs: dict[str, tuple[Tensor, dict | None]], outputs: list[str]) -> None:
    """Write one network; `inputs` are its arguments in order: name -> (example, names of the free dimensions)."""
    import onnx

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net.eval(),
            tuple(example for example, _ in inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=tuple(free for _, free in inputs.values()),
            dynamo=True,
            opset_version=18,
            verbose=False,
        )
    model = program.model_proto  # pyright: ignore[reportOptionalMemberAccess] (None only where a file is given)
    for node in model.graph.node:
        del node.metadata_props[:]  # where in the source each node comes from, with paths of this machine
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    halve(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _table(pipeline: GenAffectPipeline, side: int, channels: int, L: int) -> dict:
    """What a program needs beside the networks, as JSON; words and groups as in `encoders.affect`."""
    config, sharing = pipeline.config, Consistency()
    h = round(L**0.5)
    return {
        "latents": [channels, side, side],
        "identity": [pipeline.condition_encoder.config[name] for name in ("identity_views", "identity_dim")],
        "image_size": config["image_size"],
        "steps": config["num_inference_steps"],
        "shift": config["shift"],
        "identity_scale": config["identity_scale"],
        "expression_scale": config["expression_scale"],
        "face_tokens": portrait_tokens(h, h).flatten().tolist(),  # (h, h) -> (L,)
        "face_above": sharing.face_above,
        "factors": [
            {"name": name, "about": _about(name), "low": 0 if n < len(ACTION_UNITS) else -1}
            for n, name in enumerate(Expression.NAMES)
        ],
        "strengths": STRENGTHS.tolist(),
        "spread": SPREAD,
        "groups": list(GROUPS),
        "words": [
            {
                "word": one.word,
                "family": one.family,
                "group": GROUPS.index(one.group),
                "vector": list(one.expression_vector),
                "affect": [one.valence, one.arousal],
                "note": one.note,
            }
            for one in table().values()
        ],
    }


def _about(name: str) -> str:
    """A factor of an expression in words: an action unit's name, or the factor's own without its underscore."""
    unit = int(name[2:]) if name.startswith("au") else 0
    return f"AU {unit}: {EXPRESSION_UNIT_NAMES[unit]}" if unit else name.replace("_", " ")
