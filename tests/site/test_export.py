"""The ONNX files against the networks in torch, and a whole picture against the pipeline's."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from gen_affect_lib.avatars import Avatar, Expression, Identity
from gen_affect_lib.export import DECODER, FUSION, TABLE, TRANSFORMER
from gen_affect_lib.flow import guide, schedule
from gen_affect_lib.model.consistent import AnchorBank, Consistency

CLOSE = 1e-3  # largest difference of any output, which has about unit scale
FACE = Avatar(Identity.sample(90_001), Expression.neutral()).render(128)
WORDS = ["glee", "wrath", "fear", "neutral"]


@pytest.fixture(scope="module")
def run(onnx_files):
    """name of a file, its inputs by name -> its outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(onnx_files / name, options) for name in (FUSION, TRANSFORMER, DECODER)
    }

    def one(name, **inputs):
        feeds = {key: np.asarray(value) for key, value in inputs.items()}
        return [torch.from_numpy(output) for output in sessions[name].run(None, feeds)]

    return one


@pytest.fixture(scope="module")
def given(pipeline):
    """The conditions of one person with four words, and noise for each."""
    identity = torch.from_numpy(pipeline.read_identity(FACE))[None].expand(len(WORDS), -1, -1)
    expression = torch.from_numpy(pipeline.read_expressions(WORDS))
    keep_identity, keep_expression = torch.tensor([True, True, False, True]), torch.tensor([True, False, False, True])
    kept = {"keep_identity": keep_identity, "keep_expression": keep_expression}
    with torch.no_grad():
        tokens, pooled = pipeline.condition_encoder(identity, expression, **kept)
    latents = torch.randn(len(WORDS), 16, 8, 8, generator=torch.Generator().manual_seed(0))
    return SimpleNamespace(
        identity=identity, expression=expression, kept=kept, tokens=tokens, pooled=pooled, latents=latents
    )


def test_fusion_equals_torch_whatever_is_kept(run, given):
    tokens, pooled = run(FUSION, identity=given.identity, expression=given.expression, **given.kept)
    assert (tokens - given.tokens).abs().max() < CLOSE
    assert (pooled - given.pooled).abs().max() < CLOSE


@pytest.mark.parametrize("sigma", [1.0, 0.4, 0.02])
@pytest.mark.parametrize("images, tokens", [(1, 10), (4, 10), (2, 3)])
def test_transformer_equals_torch_for_any_number_of_images_and_tokens(run, pipeline, given, sigma, images, tokens):
    one = {"latents": given.latents[:images], "tokens": given.tokens[:images, :tokens], "pooled": given.pooled[:images]}
    with torch.no_grad():
        expected = pipeline.transformer(*one.values(), torch.full((images,), 1000 * sigma))
    alone = {"anchor": torch.arange(images), "shared": torch.zeros(64, dtype=torch.bool)}
    (velocity,) = run(TRANSFORMER, **one, sigma=torch.full((images,), sigma), **alone)
    assert (velocity - expected).abs().max() < CLOSE


@pytest.mark.parametrize("sigma", [0.9, 0.3])
def test_transformer_equals_consistent_attention_in_torch(run, pipeline, given, sigma, onnx_files):
    bank = AnchorBank(Consistency())
    one = given.latents, given.tokens, given.pooled, torch.full((4,), 1000 * sigma)
    with torch.no_grad():
        for images, attention in bank.passes(4):
            expected = pipeline.transformer(*(x[images] for x in one), attention=attention, sigma=sigma)
    table = json.loads((onnx_files / TABLE).read_text())
    shared = torch.tensor([sigma > table["face_above"] or not face for face in table["face_tokens"]])
    inputs = {"latents": one[0], "tokens": one[1], "pooled": one[2], "sigma": torch.full((4,), sigma)}
    (velocity,) = run(TRANSFORMER, **inputs, anchor=torch.zeros(4, dtype=torch.int64), shared=shared)
    assert (velocity[1:] - expected).abs().max() < CLOSE
    (alone,) = run(TRANSFORMER, **inputs, anchor=torch.arange(4), shared=shared)
    assert (alone[1:] - expected).abs().max() > 10 * CLOSE  # sharing changes the result


def test_decoder_equals_torch(run, pipeline, given):
    with torch.no_grad():
        plain, features = pipeline.codec.decode_with_features(given.latents)
        refined = plain + pipeline.refiner(features, given.identity, given.expression)
    ours = run(DECODER, latents=given.latents, identity=given.identity, expression=given.expression)
    assert (ours[0] - refined).abs().max() < CLOSE
    assert (ours[1] - plain).abs().max() < CLOSE


def test_a_whole_picture_equals_the_pipelines(run, pipeline, given):
    """Four Euler steps and guidance with two scales, as any program with these files would run them."""
    identity, expression = given.identity[:1].expand(3, -1, -1), given.expression[:1].expand(3, -1)
    kept = {"keep_identity": np.array([False, True, True]), "keep_expression": np.array([False, False, True])}
    tokens, pooled = run(FUSION, identity=identity, expression=expression, **kept)
    alone = {"anchor": np.arange(3), "shared": np.zeros(64, bool)}
    x, sigmas = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(5)), schedule(4)
    for sigma, following in zip(sigmas[:-1], sigmas[1:]):
        noisy = {"latents": x.expand(3, -1, -1, -1), "sigma": sigma.expand(3)}
        (velocity,) = run(TRANSFORMER, **noisy, tokens=tokens, pooled=pooled, **alone)
        x = x + (following - sigma) * guide(*velocity[:, None], 1.5, 2.0)
    picture, _ = run(DECODER, latents=x, identity=given.identity[:1], expression=given.expression[:1])
    expected = pipeline(FACE, WORDS[:1], 4, 1.5, 2.0, generator=torch.Generator().manual_seed(5), consistency=0).images[
        0
    ]
    ours = ((picture[0].clamp(-1, 1) + 1) * 127.5).round().numpy().transpose(1, 2, 0)
    assert np.abs(ours - np.asarray(expected, float)).max() <= 1


def test_weights_take_two_bytes_each_and_the_files_name_no_folder(onnx_files, pipeline):
    weights = sum(weight.numel() for weight in pipeline.transformer.parameters())
    assert (onnx_files / TRANSFORMER).stat().st_size < 2.2 * weights
    for name in (FUSION, TRANSFORMER, DECODER):
        assert not any(node.metadata_props for node in onnx.load(onnx_files / name).graph.node)


def test_the_table_has_every_word_and_the_settings_of_the_pipeline(onnx_files, pipeline):
    table = json.loads((onnx_files / TABLE).read_text())
    assert len(table["words"]) == 135 and len(table["groups"]) == 25
    assert [factor["name"] for factor in table["factors"]] == list(Expression.NAMES)
    assert table["identity_scale"] == pipeline.config["identity_scale"]
    glee = next(word for word in table["words"] if word["word"] == "glee")
    assert glee["vector"] == pytest.approx(Expression.named("glee").to_vector().tolist())
