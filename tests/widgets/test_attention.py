"""The panel shows where patches looked while the pipeline drew the very picture that it draws without being watched."""

import numpy as np
import pytest
import torch

from gen_affect_lib import widgets
from gen_affect_lib.avatars.regions import face_tokens
from gen_affect_lib.widgets import attention
from gen_affect_lib.widgets.attention import FACE


@pytest.fixture(scope="module")
def record(shipped, person):
    return widgets.record_attention(shipped, person(41).render(224), "amusement", steps=4, seed=3)


def test_watching_changes_nothing(shipped, person, record):
    plain = shipped(
        person(41).render(224),
        ["amusement"],
        num_inference_steps=4,
        consistency=0,
        generator=torch.Generator().manual_seed(3),
    ).images[0]
    assert np.array_equal(np.asarray(plain), np.asarray(record.image))


def test_every_step_block_and_head_is_kept_and_each_look_adds_up_to_one(shipped, record):
    config = shipped.transformer.config
    patches = (config.sample_size // config.patch_size) ** 2
    sizes = shipped.condition_encoder.config  # the fused tokens, then the exact ones
    tokens = sizes.condition_tokens + sizes.identity_tokens + sizes.expression_tokens
    assert record.weights.shape == (4, config.num_layers, config.num_attention_heads, patches, patches + tokens)
    assert np.allclose(record.weights.sum(axis=-1), 1, atol=1e-5) and record.weights.min() >= 0
    assert record.sigmas == pytest.approx((1.0, 0.75, 0.5, 0.25)) and record.side**2 == patches


def test_a_look_is_the_row_of_its_patch(record):
    patches, tokens = record.weights_of(2, 3, step=4, block=1, head=2)
    row = record.weights[3, 0, 1, record.side + 2]
    assert np.array_equal(np.concatenate([patches.ravel(), tokens]), row)
    mean = record.weights_of(2, 3, step=4, block=1, head=0)[0]
    each = [record.weights_of(2, 3, step=4, block=1, head=head)[0] for head in range(1, record.weights.shape[2] + 1)]
    assert np.allclose(mean, np.mean(each, axis=0))


def test_the_share_of_the_expression_is_what_a_token_loses_without_it(shipped, person, record):
    """An encoder that tells its tokens apart by name: two of the identity, one of the expression."""

    class Beside:
        device, dtype = torch.device("cpu"), torch.float32

        def __call__(self, identity, expression, keep_identity=None, keep_expression=None):
            who = 0 if keep_identity is not None else identity.mean()
            what = 0 if keep_expression is not None else expression.mean()
            return torch.tensor([[[who, 0.0], [who, 0.0], [0.0, what], [who, what]]]), None

    class Pipeline:
        transformer = condition_encoder = Beside()
        read_expressions = staticmethod(lambda expressions: np.full((1, 48), 2.0, np.float32))

    share = attention.expression_share(Pipeline(), np.full((2, 512), 6.0, np.float32), "joy")
    assert share.tolist() == pytest.approx([0, 0, 1, 0.25])
    assert record.expression_share.min() >= 0 and record.expression_share.max() <= 1
    assert record.expression_share.max() - record.expression_share.min() > 0.3, (
        "the shipped tokens have learned to divide the work"
    )


def test_the_light_falls_where_the_patch_looks(record):
    each = FACE // record.side
    picture = np.asarray(widgets.draw_attention(record, 2, 2, 4, 5, 0)).astype(float)
    face = np.asarray(record.image.resize((FACE, FACE), 1)).astype(float)
    looks = record.weights_of(2, 2, 4, 5, 0)[0]

    def light(row, column):  # of the patch's middle, where neither number nor frame is
        place = slice(row * each + 8, (row + 1) * each - 28), slice(column * each + 8, (column + 1) * each - 8)
        return picture[place].mean() / face[place].mean()

    brightness = np.array([[light(r, c) for c in range(record.side)] for r in range(record.side)])
    assert np.array_equal(np.argsort(brightness, axis=None)[-3:], np.argsort(looks, axis=None)[-3:])
    assert brightness.max() > 0.9 and brightness.min() < 0.5


def test_other_steps_blocks_and_heads_give_other_pictures(record):
    places = [(2, 2, 4, 5, 0), (3, 2, 4, 5, 0), (2, 2, 1, 5, 0), (2, 2, 4, 1, 0), (2, 2, 4, 5, 1)]
    pictures = [widgets.draw_attention(record, *place).tobytes() for place in places]
    said = [attention.say_attention(record, *place) for place in places]
    assert len(set(pictures)) == len(set(said)) == len(places)


def test_the_shipped_model_looks_as_notebook_07_says(shipped, person):
    """Means over eight people, all steps and heads: what the patches of the face and the other patches attend to."""
    words = ("joy", "relief", "pride", "amusement", "surprise", "anger", "disgust", "contempt")
    totals = []
    for k, word in enumerate(words):
        record = widgets.record_attention(shipped, person(200 + k).render(128), word, seed=k)
        weights = record.weights.mean(axis=(0, 2))  # (K, L, L + M)
        picture, condition = weights[..., :64].sum(axis=-1), weights[..., 64:]
        what = (condition * record.expression_share).sum(axis=-1)
        totals.append([picture, condition.sum(axis=-1) - what, what])
    face = face_tokens(8).numpy().ravel()
    on_face, elsewhere = (np.mean(totals, axis=0)[..., places].mean(axis=-1) for places in (face, ~face))  # (3, K)
    picture, who, what = on_face
    assert what[0] == pytest.approx(0.23, abs=0.05) and who[0] == pytest.approx(0.09, abs=0.05)
    assert elsewhere[0, 0] == pytest.approx(0.92, abs=0.04)
    assert (who + what).argmax() == 3 and who[3] == pytest.approx(0.24, abs=0.05) == what[3]
    assert picture[6] == pytest.approx(0.81, abs=0.06) and elsewhere[0, 6] == pytest.approx(0.97, abs=0.03)


def test_a_press_or_an_arrow_key_asks_another_patch(shown, drawn, press, shipped, person):
    panel = widgets.attention_panel(shipped, person(41).render(224), "amusement", steps=2)
    before = drawn(panel)
    face = FACE / before.shape[1]  # its share of the picture's width
    press(panel, point=(face * 0.9, 0.6))
    assert (panel.values["row"], panel.values["column"]) == (5, 8) and (drawn(panel) != before).any()
    assert "row 5, column 8" in panel.picture.alt
    press(panel, step=(1, 0))  # at the edge already
    press(panel, step=(0, 1))
    assert (panel.values["row"], panel.values["column"]) == (6, 8)
    press(panel, point=(0.9, 0.5))  # the charts
    assert (panel.values["row"], panel.values["column"]) == (6, 8)
    panel.sliders["head"].value = 2
    assert "head 2" in panel.picture.alt


def test_the_still_picture_says_where_the_patch_looks(shown, shipped, person):
    widgets.attention_panel(shipped, person(41).render(224), "amusement", steps=2)
    ((picture, alt),) = shown
    assert "row 4, column 4" in alt and "%" in alt and picture.size[1] == FACE


def test_a_press_is_answered_in_50_milliseconds_of_computing(shown, press, shipped, person, fastest):
    panel = widgets.attention_panel(shipped, person(41).render(224), "amusement")
    at = iter(range(100))
    assert fastest(lambda: panel.set(row=1 + next(at) % 8, column=3)) < 0.05


def test_a_face_is_watched_in_two_seconds_of_computing(shipped, person, fastest):
    assert fastest(lambda: widgets.record_attention(shipped, person(41).render(224), "joy"), times=3) < 2.0
