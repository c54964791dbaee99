"""A reference and expressions go in, pictures come out: the same for the same seed, from a folder on this machine."""

import json
import shutil
import subprocess
import sys
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from gen_affect_lib import model
from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.codec import LatentCodec, PixelCodec
from gen_affect_lib.encoders.expression import read_expression
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.errors import UserError
from gen_affect_lib.flow import guide
from gen_affect_lib.model.attention import joint_attention
from gen_affect_lib.model.consistent import AnchorBank, Consistency
from gen_affect_lib.model.fusion import IdentityExpressionFusion
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.model.refiner import Refiner
from gen_affect_lib.pipeline import GenAffectPipeline

SIDE, SMALL, CHANNELS, WIDTH = 64, 16, 16, 16


@cache
def shipped_pack():
    return FacePack()


def make_pipeline(codec=None, **settings):
    torch.manual_seed(0)
    codec = codec or LatentCodec(CHANNELS, (8, 8, 16), (1, 1, 1), (16, 16, 8, 8), (1, 1, 1, 1))
    side, channels = codec.latent_size(SIDE), codec.latent_channels
    transformer = MMDiT(
        sample_size=side,
        patch_size=side // 4,
        in_channels=channels,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
    )
    for p in transformer.parameters():  # a new network predicts zero for every input
        nn.init.normal_(p, std=0.2)
    settings = dict(prediction="x", image_size=SIDE, num_inference_steps=3) | settings
    fusion = IdentityExpressionFusion(dim=WIDTH, identity_tokens=4, condition_tokens=6, num_layers=1, num_heads=2)
    pipeline = GenAffectPipeline(transformer, fusion, codec, **settings)
    pipeline.face_pack = shipped_pack()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def pipeline():
    return make_pipeline()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    make_pipeline(shift=2.0, identity_scale=1.5).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def face():
    return Image.fromarray(Avatar(Identity.sample(1_000_000), Expression(), Appearance.sample(0)).render(SIDE))


def seed(number=0):
    return torch.Generator().manual_seed(number)


def count_evaluations(pipeline):
    sizes = []
    pipeline.transformer.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    return sizes


def pixels(images):
    return np.stack([np.asarray(image) for image in images]).astype(int)


# What comes out


class Painter(ModelMixin, ConfigMixin):
    """A network whose prediction is exact: every pixel has the colour of the pooled condition."""

    @register_to_config
    def __init__(self):
        super().__init__()
        self.unit = nn.Parameter(torch.ones(1))

    def forward(self, hidden_states, encoder_hidden_states, pooled_projections, timestep):
        return self.unit * pooled_projections[:, :, None, None].expand_as(hidden_states)


class Palette:
    """A face pack whose identity token is the mean colour of a picture."""

    mark = "palette"

    def one(self, picture, which, name):
        return SimpleNamespace(tokens=picture.mean((0, 1), dtype=np.float32)[None] / 127.5 - 1)  # (1 view, 3)


class Colour(ModelMixin, ConfigMixin):
    """The reference's colour, made lighter by the first entry of the expression."""

    @register_to_config
    def __init__(self):
        super().__init__()
        self.unit = nn.Parameter(torch.ones(1))

    def forward(self, identity, expression, keep_identity=None, keep_expression=None):
        colour = identity[:, 0] * keep_identity[:, None] + expression[:, :1] * keep_expression[:, None]
        return colour[:, None], colour


def test_the_pictures_are_of_the_reference_with_the_expressions_in_the_order_asked_for():
    pipeline = GenAffectPipeline(Painter(), Colour(), PixelCodec(), prediction="x", image_size=8)
    pipeline.face_pack = Palette()
    reference = np.full((8, 8, 3), (51, 102, 0), np.uint8)  # -0.6, -0.2, -1 in [-1, 1]
    images = pipeline(
        reference, [Expression(), Expression(au1=0.4), Expression(au1=0.8)], generator=seed(), consistency=0
    ).images
    assert [image.mode for image in images] == ["RGB"] * 3 and {image.size for image in images} == {(8, 8)}
    for image, lighter in zip(images, (0, 51, 102)):
        expected = np.broadcast_to(np.array([51 + lighter, 102 + lighter, lighter]), (8, 8, 3))
        assert np.abs(np.asarray(image).astype(int) - expected).max() <= 1


def test_guidance_exaggerates_what_its_scale_belongs_to():
    pipeline = GenAffectPipeline(Painter(), Colour(), PixelCodec(), prediction="x", image_size=8)
    pipeline.face_pack = Palette()
    reference = np.full((8, 8, 3), 153, np.uint8)  # 0.2
    for scales, expected in [((1, 1), 0.5), ((2, 1), 0.7), ((1, 2), 0.8), ((2, 2), 1.0), ((0, 1), 0.3), ((1, 0), 0.2)]:
        options = dict(identity_scale=scales[0], expression_scale=scales[1], generator=seed(), consistency=0)
        value = np.asarray(pipeline(reference, [Expression(au1=0.3)], **options).images[0])
        assert np.abs(value - 127.5 * (expected + 1)).max() <= 1, scales


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(pipeline, face):
    words = ["glee", "neutral"]
    once = pixels(pipeline(face, words, generator=seed(1)).images)
    assert (pixels(pipeline(face, words, generator=seed(1)).images) == once).all()
    assert (pixels(pipeline(face, words, generator=seed(2)).images) != once).any()


def test_reference_and_expression_both_count(pipeline, face):
    def draw(reference, word):
        return pixels(pipeline(reference, [word], generator=seed()).images)

    plain = draw(face, "neutral")
    assert (draw(face, "rage") != plain).any()
    other = Avatar(Identity.sample(1_000_001), Expression(), Appearance.sample(0)).render(SIDE)
    assert (draw(other, "neutral") != plain).any()


def test_with_a_generator_each_and_nothing_shared_a_picture_does_not_depend_on_its_company(pipeline, face):
    both = pixels(pipeline(face, ["glee", "rage"], generator=[seed(1), seed(2)], consistency=0).images)
    alone = pixels(pipeline(face, ["rage"], generator=seed(2)).images)
    assert np.abs(both[1] - alone[0]).max() <= 1  # a batch of another size may round another way
    with pytest.raises(UserError, match="1 generators for 2 expressions"):
        pipeline(face, ["glee", "rage"], generator=[seed()])


def test_it_works_on_pixels_too(face):
    pipeline = make_pipeline(PixelCodec())
    images = pipeline(face, ["glee"], generator=seed()).images
    assert images[0].size == (SIDE, SIDE) and np.asarray(images[0]).std() > 0


def test_dropout_is_off_even_if_the_networks_were_just_training(pipeline, face):
    pipeline.transformer.train()
    pipeline(face, ["glee"], generator=seed())
    assert not pipeline.transformer.training


# What it costs


@pytest.mark.parametrize(
    "scales, conditions", [((1.0, 1.0), 1), ((1.0, 2.0), 2), ((2.0, 2.0), 2), ((2.0, 1.5), 3), ((0.0, 0.0), 1)]
)
def test_a_step_is_one_evaluation_of_no_more_conditions_than_the_scales_need(pipeline, face, scales, conditions):
    sizes = count_evaluations(pipeline)
    words = ["glee", "rage"]
    pipeline(face, words, 5, identity_scale=scales[0], expression_scale=scales[1], generator=seed(), consistency=0)
    assert sizes == [conditions * len(words)] * 5
    sizes.clear()  # the anchor comes first where images share, and then the others
    pipeline(face, [*words, "fear"], 5, identity_scale=scales[0], expression_scale=scales[1], generator=seed())
    assert sizes == [conditions] * 5 + [conditions * 2] * 5


def test_the_condition_is_embedded_once_a_run_each_kind_of_it_for_all_expressions_side_by_side(pipeline, face):
    asked = []
    pipeline.condition_encoder.register_forward_pre_hook(
        lambda module, _, kept: asked.append((kept["keep_identity"].tolist(), kept["keep_expression"].tolist())),
        with_kwargs=True,
    )
    pipeline(face, ["glee", "rage"], identity_scale=2.0, expression_scale=3.0, generator=seed(), consistency=0)
    assert asked == [([False, False, True, True, True, True], [False, False, False, False, True, True])]


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1.7, 1.0), (1.0, 2.5), (3.0, 3.0), (2.0, 1.5), (0.0, 0.0), (0.0, 1.0)])
def test_the_guided_velocity_is_flows_guide_of_three_evaluations(pipeline, scales):
    identity, expressions, x = torch.randn(1, 2, 512), torch.rand(3, 48), torch.randn(3, CHANNELS, 4, 4)
    sigma = torch.full((3,), 0.6)
    with torch.no_grad():
        ours = pipeline.guided_velocity(identity, expressions, *scales)(x, sigma)
        velocities = []
        for keep in [(False, False), (True, False), (True, True)]:
            flags = [torch.tensor([flag] * 3) for flag in keep]
            tokens, pooled = pipeline.condition_encoder(identity.expand(3, -1, -1), expressions, *flags)
            output = pipeline.transformer(x, tokens, pooled, 1000 * sigma)
            velocities.append((x - output) / 0.6)
    torch.testing.assert_close(ours, guide(*velocities, *scales), rtol=1e-4, atol=1e-4)


def test_what_is_not_asked_for_comes_from_the_settings(face):
    pipeline = make_pipeline(num_inference_steps=4, identity_scale=2.0, expression_scale=3.0)
    sizes = count_evaluations(pipeline)
    pipeline(face, ["glee"], generator=seed())
    assert sizes == [3] * 4
    sizes.clear()
    pipeline(face, ["glee"], 2, identity_scale=1.0, expression_scale=1.0, generator=seed())
    assert sizes == [1] * 2


# A folder


def test_a_saved_pipeline_is_half_as_large_and_comes_back_in_full_precision(saved, face):
    for name in ("transformer", "condition_encoder", "codec"):
        stored = load_file(saved / name / "diffusion_pytorch_model.safetensors")
        assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.float16}
    original, back = make_pipeline(shift=2.0, identity_scale=1.5), GenAffectPipeline.from_pretrained(saved)
    assert {p.dtype for p in back.transformer.state_dict().values()} == {torch.float32}
    for name, tensor in original.transformer.state_dict().items():
        torch.testing.assert_close(back.transformer.state_dict()[name], tensor.half().float(), rtol=0, atol=0)
    assert back.config.shift == 2.0 and back.config.identity_scale == 1.5 and back.config.image_size == SIDE
    assert back.flow.prediction == "x" and not back.transformer.training
    difference = pixels(back(face, ["glee"], generator=seed()).images) - pixels(
        original(face, ["glee"], generator=seed()).images
    )
    assert np.abs(difference).mean() < 3


def test_saving_leaves_the_pipeline_itself_as_it_was(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    assert pipeline.transformer.dtype == torch.float32


def test_full_precision_is_there_for_who_wants_it(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path, dtype=torch.float32)
    back = GenAffectPipeline.from_pretrained(tmp_path)
    for name, tensor in pipeline.transformer.state_dict().items():
        assert torch.equal(back.transformer.state_dict()[name], tensor)


def test_it_runs_in_bfloat16(saved, face):
    pipeline = GenAffectPipeline.from_pretrained(saved, dtype=torch.bfloat16)
    assert pipeline.transformer.dtype == torch.bfloat16
    assert len(pipeline(face, ["glee"], generator=seed()).images) == 1


def test_the_folder_says_where_its_classes_are_and_holds_nothing_pickled(saved):
    index = json.loads((saved / "model_index.json").read_text())
    assert index["transformer"] == ["gen_affect_lib.model.mmdit", "MMDiT"]
    assert index["condition_encoder"] == ["gen_affect_lib.model.fusion", "IdentityExpressionFusion"]
    assert index["codec"] == ["gen_affect_lib.codec", "LatentCodec"]
    files = [path for path in saved.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".sha256"}


def test_a_folder_does_not_tell_where_its_weights_were_read_from(saved, tmp_path):
    GenAffectPipeline.from_pretrained(saved).save_pretrained(tmp_path)
    assert not [file for file in tmp_path.rglob("*.json") if str(saved) in file.read_text()]


def test_it_loads_where_nothing_was_imported_before(saved, monkeypatch):
    for name in ("fusion", "mmdit"):
        monkeypatch.setattr(model, name, getattr(model, name))  # so that afterwards the first import is back
        monkeypatch.delitem(sys.modules, f"gen_affect_lib.model.{name}")
    assert type(GenAffectPipeline.from_pretrained(saved).transformer).__name__ == "MMDiT"


@pytest.mark.parametrize("name", ["nowhere", "nowhere/at/all", "gen-affect/large", "google/ddpm-celebahq-256"])
def test_a_folder_that_is_not_there_is_never_looked_for_on_the_network(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DiffusionPipeline, "download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match=f"{name} is no folder on this machine.*data/checkpoints/gen_affect"):
        GenAffectPipeline.from_pretrained(name)


def test_a_folder_without_a_pipeline_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="has no model_index.json in it"):
        GenAffectPipeline.from_pretrained(tmp_path)


def test_a_checkpoint_of_the_first_edition_is_refused_with_what_to_do(saved, tmp_path):
    """It drew 64 pixels, in the latents of another codec, whose configuration had `widths` and `blocks`."""
    old = shutil.copytree(saved, tmp_path / "old")
    config = {"_class_name": "LatentCodec", "latent_channels": 16, "widths": [8, 16], "blocks": [1, 1]}
    (old / "codec" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        GenAffectPipeline.from_pretrained(old)
    assert str(caught.value) == (
        f"{old / 'codec'} belongs to a checkpoint of version 0.1 for 64 pixels, which this version does not load: use "
        "data/checkpoints/gen_affect, or train again with `python -m gen_affect_lib train` in another folder"
    )


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def lose_a_tensor(path):
    tensors = load_file(path)
    del tensors["proj_out.bias"]
    save_file(tensors, path, metadata={"format": "pt"})


def change_a_size(path):
    path.write_text(path.read_text().replace('"num_attention_heads": 2', '"num_attention_heads": 4'))


WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    "file, harm",
    [
        (WEIGHTS, truncate),
        (WEIGHTS, lambda path: path.write_bytes(b"")),
        (WEIGHTS, lambda path: path.unlink()),
        (WEIGHTS, lose_a_tensor),
        ("transformer/config.json", change_a_size),
        ("transformer/config.json", truncate),
        ("model_index.json", truncate),
        ("codec", shutil.rmtree),
        ("model_index.json", lambda path: path.write_text(path.read_text().replace("MMDiT", "Unknown"))),
        ("model_index.json", lambda path: path.write_text(path.read_text().replace("model.mmdit", "model.nothing"))),
        ("model_index.json", lambda path: path.write_text("[]")),
    ],
)
def test_a_damaged_folder_is_one_clear_line(saved, tmp_path, monkeypatch, file, harm):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("asked the hub"))
    folder = shutil.copytree(saved, tmp_path / "damaged")
    harm(folder / file)
    with pytest.raises(UserError, match="damaged.*copy or train it again") as error:
        GenAffectPipeline.from_pretrained(folder)
    assert "\n" not in str(error.value)


# A reference


def test_paths_images_and_arrays_are_the_same_reference(pipeline, tmp_path, face):
    face.save(tmp_path / "face.png")
    tokens = pipeline.read_identity(face)
    assert tokens.shape == (2, 512) and tokens.dtype == np.float32
    for reference in (tmp_path / "face.png", str(tmp_path / "face.png"), np.asarray(face)):
        assert (pipeline.read_identity(reference) == tokens).all()


def test_an_identity_that_was_read_before_is_the_same_reference(pipeline, face):
    who = pipeline.read_identity(face)
    again, twice = (pipeline(one, ["glee"], generator=seed()).images for one in (who, pipeline.read_identity(who)))
    plain = pipeline(face, ["glee"], generator=seed()).images
    assert np.array_equal(pixels(again), pixels(plain)) and np.array_equal(pixels(twice), pixels(plain))


def test_an_identity_of_another_shape_is_refused(pipeline):
    with pytest.raises(UserError, match=r"an identity has shape \(2, 100\): give what read_identity gave, \(2, 512\)"):
        pipeline(np.zeros((2, 100), np.float32), ["glee"])


def test_a_reference_may_be_larger_than_what_is_drawn(pipeline, face):
    large = Avatar(Identity.sample(1_000_000), Expression(), Appearance.sample(0)).render(300)
    other = Avatar(Identity.sample(1_000_007), Expression(), Appearance.sample(0)).render(300)
    small, same, stranger = (pipeline.read_identity(picture)[0] for picture in (face, large, other))
    assert small @ same / 512 > 0.7 > small @ stranger / 512
    assert pipeline(large, ["glee"], generator=seed()).images[0].size == (SIDE, SIDE)


def test_of_several_faces_the_one_that_was_asked_for_counts(pipeline, face):
    right = Avatar(Identity.sample(1_000_007), Expression(), Appearance.sample(3)).render(SIDE)
    two = np.concatenate([np.asarray(face), right], axis=1)
    first, second = (pipeline.read_identity(two, which)[0] for which in (0, 1))
    assert first @ pipeline.read_identity(face)[0] / 512 > 0.7 > second @ pipeline.read_identity(face)[0] / 512
    with pytest.raises(UserError, match="which is 2, but the reference has 2 face"):
        pipeline(two, ["glee"], which=2)


def test_a_picture_without_a_face_says_so(pipeline):
    with pytest.raises(UserError, match="no face found in the reference"):
        pipeline(np.full((SIDE, SIDE, 3), (20, 90, 200), np.uint8), ["glee"])


def test_another_recognizer_than_it_learned_from_is_refused(face):
    pipeline = make_pipeline(recognizer="0123456789ab")
    with pytest.raises(UserError, match="trained with recognizer 0123456789ab, but the face pack has "):
        pipeline(face, ["glee"])
    pipeline = make_pipeline(recognizer=shipped_pack().mark)
    assert len(pipeline(face, ["glee"]).images) == 1


@pytest.mark.parametrize(
    "reference, message",
    [
        ("nowhere.png", "nowhere.png is no file"),
        (np.zeros((3, 8, 8), np.uint8), r"uint8 \(3, 8, 8\): give uint8"),
        (np.zeros((8, 8, 3), np.float32), r"float32 \(8, 8, 3\): give uint8"),
        (np.zeros((8, 8, 3), np.uint8), "8 x 8 pixels: give one with at least 32"),
        (np.zeros((0, 8, 3), np.uint8), "uint8 \\(0, 8, 3\\)"),
        (torch.zeros(8, 8, 3), "is a Tensor: give a PIL image"),
        (None, "is a NoneType: give a PIL image"),
    ],
)
def test_a_reference_that_is_no_picture_says_what_it_is(pipeline, reference, message):
    with pytest.raises(UserError, match=message):
        pipeline(reference, ["glee"])


# Expressions


def test_all_that_tells_an_expression_may_be_mixed(pipeline):
    glee = Expression.named("glee")
    numbers = glee.to_vector()
    told = pipeline.read_expressions(["glee", glee, numbers, list(numbers), torch.tensor(numbers), (0.8, 0.6)])
    assert told.shape == (6, 48) and told.dtype == np.float32
    assert np.abs(told[:5] - told[0]).max() < 1e-6 and np.abs(told[5] - told[0]).max() > 0.1
    assert (pipeline.read_expressions(["neutral"])[0, :21] == 0).all()
    assert (pipeline.read_expressions(np.stack([numbers, numbers]))[:, :21] == numbers).all()


def test_another_persons_face_tells_an_expression(pipeline, face):
    other = Avatar(Identity.sample(1_000_012), Expression.named("rage"), Appearance.sample(5)).render(SIDE)
    seen, told, else_told = pipeline.read_expressions([other, "rage", "contentment"])
    assert np.abs(seen - told).sum() < 0.5 * np.abs(seen - else_told).sum()
    assert len(pipeline(face, [Image.fromarray(other), "rage"], generator=seed()).images) == 2


@pytest.mark.parametrize("seed", range(8))
def test_every_drawn_portrait_tells_its_expression_and_no_other_picture_does(pipeline, seed):
    avatar = Avatar(Identity.sample(1_000_100 + seed), Expression.sample(seed), Appearance.sample(seed))
    large = avatar.render(192)
    assert pipeline.read_expressions([avatar.render(64), large]).shape == (2, 48)
    wide = np.full((192, 400, 3), 90, np.uint8)
    wide[:, 104:296] = large
    assert pipeline.read_expressions([wide]).shape == (1, 48)  # the centred square is that portrait
    small = np.full((400, 400, 3), 90, np.uint8)
    small[100:292, 100:292] = large
    with pytest.raises(UserError, match="crop it so that the head reaches from 16 % to 84 %"):
        pipeline.read_expressions([small])
    with pytest.raises(UserError, match="no face found in a picture of an expression"):
        pipeline.read_expressions([np.full((64, 64, 3), (20, 90, 200), np.uint8)])


def test_what_reads_expressions_can_be_replaced(pipeline):
    class Cheerful:
        def read(self, pictures):
            return read_expression("joy")

    pipeline.expression_encoder = Cheerful()
    seen, told = pipeline.read_expressions([np.zeros((8, 8, 3), np.uint8), "joy"])
    assert (seen == told).all()


def test_an_unknown_word_suggests_the_nearest_ones(pipeline):
    with pytest.raises(UserError, match="'gleee' is not one of the 135 emotion words: did you mean glee"):
        pipeline.read_expressions(["joy", "gleee"])


@pytest.mark.parametrize(
    "expressions, message",
    [
        ("glee", "expressions is 'glee': give a list, such as \\[\"glee\"\\]"),
        (Expression(), "give a list"),
        (None, "give a list"),
        ([], "expressions is empty"),
        ([np.zeros(20)], "a vector of 21 numbers"),
        (np.zeros(21), "a vector of 21 numbers"),
        ([None], "an expression is None"),
        ([{"au1": 1.0}], "an expression is {'au1': 1.0}"),
        ([["a"] * 21], "a vector of 21 numbers"),
        ([[2.0] + [0.0] * 20], "Expression.au1 is 2.0: give"),
        ([[float("nan")] + [0.0] * 20], "Expression.au1 is nan: give"),
        ([(2.0, 0.0)], "valence is 2.0: give a number from -1 to 1"),
        (["nowhere.png"], "nowhere.png is no file"),
    ],
)
def test_what_is_no_expression_says_what_it_is(pipeline, expressions, message):
    with pytest.raises(UserError, match=message):
        pipeline.read_expressions(expressions)


# --- one set, one look -----------------------------------------------------------------------------------------------

WORDS = ["joy", "anger", "fear", "sadness"]


def drawn(pipeline, face, words=WORDS, generator=None, **more):
    output = pipeline(face, words, generator=generator or [seed(number) for number in range(len(words))], **more)
    return pixels(output.images).astype(int), output.bank


def test_without_consistency_it_is_the_plain_sampler_to_the_bit(pipeline, face, monkeypatch):
    plain, bank = drawn(pipeline, face, consistency=0)
    together, by_default = drawn(pipeline, face, consistency=1.0), drawn(pipeline, face)
    assert np.array_equal(together[0], by_default[0]) and not np.array_equal(together[0], plain)
    for number, word in enumerate(WORDS):  # each image is as if it had been drawn alone
        alone, _ = drawn(pipeline, face, [word], [seed(number)], consistency=0)
        assert abs(alone[0] - plain[number]).max() <= 1
    assert bank is None
    calls, forward = [], pipeline.transformer.forward  # equal to the bit, since shared attention is not called

    def plainly(*args, **kwargs):
        calls.append(kwargs)
        return forward(*args, **kwargs)

    monkeypatch.setattr(pipeline.transformer, "forward", plainly)
    assert np.array_equal(drawn(pipeline, face, consistency=0)[0], plain) and calls and not any(calls)


def test_one_anchor_is_drawn_as_without_and_a_set_of_one_is_the_plain_image(pipeline, face):
    plain, _ = drawn(pipeline, face, consistency=0)
    together, _ = drawn(pipeline, face, consistency=1.0)
    assert np.array_equal(together[0], drawn(pipeline, face, WORDS[:1], consistency=0)[0][0])
    assert not any(np.array_equal(together[n], plain[n]) for n in (1, 2, 3))
    assert np.array_equal(drawn(pipeline, face, WORDS[:1], consistency=Consistency(anchors=None))[0][0], together[0])


@pytest.mark.parametrize(
    "sharing", [Consistency(), Consistency(anchors=2, share=0.5, above=0.2), Consistency(shared_noise=0.5)]
)
def test_a_bank_adds_to_a_set_what_would_have_come_with_it(pipeline, face, sharing):
    whole, bank = drawn(pipeline, face, consistency=sharing)
    begun, kept = drawn(pipeline, face, WORDS[:2], consistency=sharing)
    added, same = drawn(pipeline, face, WORDS[2:], [seed(2), seed(3)], bank=kept)
    assert same is kept and bank.bytes == kept.bytes > 0
    assert abs(np.concatenate([begun, added]) - whole).max() <= 1


def test_the_order_of_a_set_does_not_matter_after_its_anchor(pipeline, face):
    straight, _ = drawn(pipeline, face, consistency=1.0)
    order = [0, 3, 1, 2]
    mixed, _ = drawn(pipeline, face, [WORDS[n] for n in order], [seed(n) for n in order], consistency=1.0)
    assert abs(mixed - straight[order]).max() <= 1


def test_a_new_bank_that_keeps_its_tensors_on_the_cpu_draws_the_same_set(pipeline, face):
    whole, _ = drawn(pipeline, face, consistency=1.0)
    bank = AnchorBank(Consistency(), on_cpu=True)
    first, same = drawn(pipeline, face, WORDS[:2], [seed(0), seed(1)], bank=bank)
    added, _ = drawn(pipeline, face, WORDS[2:], [seed(2), seed(3)], bank=bank)
    assert same is bank and bank.bytes > 0
    assert np.abs(np.concatenate([first, added]) - whole).max() <= 1
    with pytest.raises(UserError, match="the bank was made with steps 3, not 4"):
        drawn(pipeline, face, bank=bank, num_inference_steps=4)


def test_a_bank_is_not_read_with_other_steps_or_scales(pipeline, face):
    _, bank = drawn(pipeline, face, consistency=1.0)
    with pytest.raises(UserError, match="the bank was made with steps 3, not 4: give the same"):
        drawn(pipeline, face, bank=bank, num_inference_steps=4)
    with pytest.raises(UserError, match="the bank was made with identity_scale 1.0, not 3.0"):
        drawn(pipeline, face, bank=bank, identity_scale=3.0)


def test_a_bank_of_another_person_model_or_type_is_refused(pipeline, face):
    _, bank = drawn(pipeline, face, consistency=1.0)
    other = Avatar(Identity.sample(1_000_001), Expression(), Appearance.sample(0)).render(SIDE)
    with pytest.raises(UserError, match="the bank was made with the person .*, not .*: give the same"):
        drawn(pipeline, other, bank=bank)
    drawn(make_pipeline(), face, bank=bank)  # the same weights
    changed = make_pipeline()
    with torch.no_grad():
        next(changed.transformer.parameters()).mul_(1.5)
    with pytest.raises(UserError, match="the bank was made with the weights"):
        drawn(changed, face, bank=bank)
    with pytest.raises(UserError, match="the bank was made with the type torch.float32, not torch.float64"):
        drawn(make_pipeline().to(torch.float64), face, bank=bank)
    with pytest.raises(UserError, match="bank is a list: give the bank of an earlier output"):
        drawn(pipeline, face, bank=[])


def test_numbers_of_numpy_are_numbers(pipeline, face):
    plain = drawn(pipeline, face, consistency=0.5, num_inference_steps=2, identity_scale=2.0)[0]
    numpy = dict(consistency=np.float32(0.5), num_inference_steps=np.int64(2), identity_scale=np.float32(2))
    assert np.array_equal(drawn(pipeline, face, **numpy)[0], plain)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(num_inference_steps=10**9), "num_steps is 1000000000: give at least 1 and at most 10,000"),
        (dict(num_inference_steps=2.5), "num_steps is 2.5"),
        (dict(num_inference_steps=True), "num_steps is True"),
        (dict(num_inference_steps="20"), "num_steps is '20'"),
        (dict(identity_scale=float("nan")), "identity_scale is nan: give a number"),
        (dict(expression_scale="2"), "expression_scale is '2': give a number"),
        (dict(consistency=float("nan")), "consistency nan: give a number"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named_before_anything_is_read(pipeline, wrong, message):
    with pytest.raises(UserError, match=message):
        pipeline("no such file", ["joy"], **wrong)


def test_a_generator_that_is_none_is_named(pipeline, face):
    for generator in (0, [seed(), 1], np.random.default_rng(0)):
        with pytest.raises(UserError, match=r"generator is .*: give torch.Generator\(\).manual_seed\(0\)"):
            pipeline(face, ["joy", "fear"], generator=generator)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_the_type_of_the_weights_has_two_names(saved, name):
    for dtype in (torch.float16, "float16", "torch.float16"):
        loaded = GenAffectPipeline.from_pretrained(saved, **{name: dtype})
        assert next(loaded.transformer.parameters()).dtype == torch.float16
    for dtype in ("half a float", torch.int8, np.float32):
        with pytest.raises(UserError, match="dtype is .*: give torch.float32, torch.float16 or torch.bfloat16"):
            GenAffectPipeline.from_pretrained(saved, **{name: dtype})


@pytest.mark.parametrize("much", [-1, 1.5, "much"])
def test_consistency_outside_of_zero_to_one_is_refused(pipeline, face, much):
    with pytest.raises(UserError, match="give a number from 0"):
        drawn(pipeline, face, consistency=much)


# --- an attention of one's own ---------------------------------------------------------------------------------------


def test_an_attention_of_ones_own_is_called_in_every_block_of_every_step(pipeline, face):
    calls = []

    def attention(image, condition, *, block, sigma):
        calls.append((round(sigma, 4), block, len(image.key)))
        return joint_attention(image, condition)

    mine, bank = drawn(pipeline, face, attention=attention)
    plain, _ = drawn(pipeline, face, consistency=0)
    assert np.array_equal(mine, plain) and bank is None
    assert calls == [(sigma, block, len(WORDS)) for sigma in (1.0, 0.6667, 0.3333) for block in (0, 1)]


def test_joint_attention_itself_is_one(pipeline, face):
    plain, _ = drawn(pipeline, face, consistency=0)
    assert np.array_equal(drawn(pipeline, face, attention=joint_attention)[0], plain)


# --- what it loads ---------------------------------------------------------------------------------------------------


def test_importing_the_pipeline_loads_nothing_that_trains():
    program = "import sys, gen_affect_lib.pipeline; print(*(m for m in sys.modules if m.startswith('gen_affect_lib')))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "gen_affect_lib.model.consistent" in loaded
    assert not [name for name in loaded if name.startswith(("gen_affect_lib.training", "gen_affect_lib.evaluation"))]


def test_a_picture_of_an_expression_is_opened_once(pipeline, tmp_path, monkeypatch):
    path = tmp_path / "rage.png"
    Image.fromarray(Avatar(Identity.sample(1_000_012), Expression.named("rage"), Appearance.sample(5)).render(64)).save(
        path
    )
    opened, real = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file, *rest, **more: opened.append(file) or real(file, *rest, **more))
    pipeline.read_expressions([path, "rage"])
    assert len(opened) == 1


# --- damaged and not finite -------------------------------------------------------------------------------------------


def spoil(pipeline, value, name="transformer"):
    with torch.no_grad():
        weight = next(getattr(pipeline, name).parameters())
        weight[(0,) * weight.ndim] = value
    return pipeline


@pytest.mark.parametrize("part", ["transformer", "condition_encoder", "codec"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(part, value, tmp_path):
    with pytest.raises(UserError, match=f"was not written: {part}: .* not finite"):
        spoil(make_pipeline(), value, part).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    make_pipeline().save_pretrained(tmp_path / "old")
    (file,) = (tmp_path / "old" / part).glob("*.safetensors")
    tensors = load_file(file)
    name = next(name for name in sorted(tensors) if tensors[name].is_floating_point())
    tensors[name][(0,) * tensors[name].ndim] = value
    save_file(tensors, file)
    (tmp_path / "old" / "weights.sha256").unlink()  # a pipeline that was written before there were checksums
    with pytest.raises(UserError, match=f"{part}: .* not finite"):
        GenAffectPipeline.from_pretrained(tmp_path / "old")


def test_weights_too_large_for_half_precision_are_saved_in_single(tmp_path):
    large = spoil(make_pipeline(), 70_000.0)
    with pytest.raises(UserError, match="not finite in torch.float16"):
        large.save_pretrained(tmp_path / "half", dtype=torch.float16)
    large.save_pretrained(tmp_path / "single")
    loaded = GenAffectPipeline.from_pretrained(tmp_path / "single")
    assert next(loaded.transformer.parameters()).view(-1)[0] == 70_000
    with pytest.raises(UserError, match="not finite in torch.float16: .*use dtype=torch.float32"):
        GenAffectPipeline.from_pretrained(tmp_path / "single", dtype=torch.float16)


@pytest.mark.parametrize("part", ["transformer", "codec"])
def test_pictures_that_are_not_finite_are_refused(part, face):
    pipeline = make_pipeline()
    for parameter in getattr(pipeline, part).parameters():
        nn.init.constant_(parameter, float("nan"))
    with pytest.raises(UserError, match="the pictures are not finite in torch.float32"):
        pipeline(face, ["joy"], generator=seed())


def test_a_damaged_weight_is_found_by_its_checksum(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "copy")
    (file,) = (folder / "transformer").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="copy is damaged .*weights.sha256.*: copy or train it again"):
        GenAffectPipeline.from_pretrained(folder)


def test_a_full_disk_leaves_the_pipeline_that_was_there(saved, tmp_path, monkeypatch):
    from diffusers.models import modeling_utils
    from safetensors import SafetensorError

    folder = shutil.copytree(saved, tmp_path / "copy")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    def full(tensors, path, **_):
        if "codec" in str(path):
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        save_file(tensors, path)

    monkeypatch.setattr(modeling_utils.safetensors.torch, "save_file", full)
    with pytest.raises(UserError, match="copy could not be written .*No space left.*what was there is kept"):
        make_pipeline().save_pretrained(folder)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert list(tmp_path.iterdir()) == [folder]


# --- the refiner ------------------------------------------------------------------------------------------------------


def with_refiner():
    pipeline = make_pipeline()
    pipeline.register_modules(refiner=Refiner((16, 16, 8, 8), (8, 8, 8, 8), hidden=8))
    for parameter in pipeline.refiner.parameters():
        nn.init.normal_(parameter, std=0.2)
    return pipeline


def test_a_refiner_adds_to_decoded_pictures_what_it_makes_of_features_and_condition(face):
    refined, plain = with_refiner(), make_pipeline()
    images = [
        np.asarray(pipeline(face, ["joy"], generator=torch.Generator().manual_seed(0)).images[0]).astype(int)
        for pipeline in (refined, plain)
    ]
    assert abs(images[0] - images[1]).max() > 5
    latents = torch.randn(2, CHANNELS, SIDE // 16, SIDE // 16)
    identity = torch.from_numpy(plain.read_identity(face))[None]
    shown = torch.from_numpy(plain.read_expressions(["joy", "fear"]))
    with torch.no_grad():
        decoded, features = refined.codec.decode_with_features(latents)
        added = refined.refiner.eval()(features, identity.expand(2, -1, -1), shown)
        torch.testing.assert_close(refined.decode(latents, identity, shown, 1.0, 1.5), decoded + added)


@pytest.mark.parametrize("scales", [(0.0, 1.0), (1.0, 0.0)])
def test_a_picture_that_ignores_a_condition_is_not_refined(face, scales):
    settings = dict(zip(("identity_scale", "expression_scale"), scales))
    both = [
        pipeline(face, ["joy"], generator=torch.Generator().manual_seed(0), **settings).images[0]
        for pipeline in (with_refiner(), make_pipeline())
    ]
    assert (np.asarray(both[0]) == np.asarray(both[1])).all()


def test_a_refiner_is_saved_with_the_pipeline_and_a_folder_without_one_loads(tmp_path, face):
    pipeline = with_refiner()
    pipeline.save_pretrained(tmp_path / "with", dtype=torch.float32)
    loaded = GenAffectPipeline.from_pretrained(tmp_path / "with")
    torch.testing.assert_close(dict(loaded.refiner.state_dict()), dict(pipeline.refiner.state_dict()))
    make_pipeline().save_pretrained(tmp_path / "without")
    assert GenAffectPipeline.from_pretrained(tmp_path / "without").refiner is None
    index = tmp_path / "without" / "model_index.json"
    older = json.loads(index.read_text())
    older.pop("refiner")  # as in folders of the time before there were refiners
    index.write_text(json.dumps(older))
    assert GenAffectPipeline.from_pretrained(tmp_path / "without").refiner is None
