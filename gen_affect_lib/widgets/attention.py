"""What a patch of a generated face attends to: the other patches and the condition tokens. Taught in notebook 07.

Letters: T sampling steps, K blocks, H heads, L image tokens (patches), M condition tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gen_affect_lib.display import BLUE, GREY, ORANGE
from gen_affect_lib.widgets.panel import WIDE, Panel, Pointing
from gen_affect_lib.widgets.sheet import GREY_INK, INK, PAPER, RULE, Sheet, ink_on

FACE = 512  # side of the face in pixels
CARD = 440  # width of the charts beside it in pixels
DARK = 0.3  # brightness of a patch with attention weight 0


@dataclass(frozen=True)
class AttentionRecord:
    """One generated face and the attention weights of its patches while it was sampled.

    Attributes:
        image: the face.
        sigmas: of the steps, (T,).
        weights: float32 (T, K, H, L, L + M): the attention weights of each patch over patches, then condition tokens;
            rows sum to 1.
        expression_share: float32 (M,), `expression_share` of each condition token, in [0, 1].
    """

    image: Image.Image
    sigmas: tuple[float, ...]
    weights: np.ndarray
    expression_share: np.ndarray

    @property
    def side(self) -> int:
        """Patches in a row."""
        return round(self.weights.shape[3] ** 0.5)

    def weights_of(self, row: int, column: int, step: int, block: int, head: int) -> tuple[np.ndarray, np.ndarray]:
        """Attention weights of one patch over the patches (side, side) and the condition tokens (M,).

        All arguments count from 1; head 0 is the mean of all heads.
        """
        weights = self.weights[step - 1, block - 1]  # (H, L, L + M)
        weights = weights.mean(axis=0) if head == 0 else weights[head - 1]
        own = weights[(row - 1) * self.side + column - 1]
        return own[: self.side**2].reshape(self.side, self.side), own[self.side**2 :]


def record_attention(pipeline, reference, expression, *, steps: int | None = None, seed: int = 0) -> AttentionRecord:
    """Generate one face and record its attention weights.

    The pipeline's argument `attention` replaces joint attention. The one passed here computes joint attention and
    records the weights under the full condition, which guidance puts last in the batch.
    """
    import torch

    from gen_affect_lib.model.attention import attention_weights, joint_attention

    recorded: dict[float, list] = {}  # sigma -> weights of each block (H, L, L + M)

    def attention(image, condition, *, block: int, sigma: float):
        key = torch.cat([image.key[-1:], condition.key[-1:]], dim=1)  # (1, L + M, H, D)
        recorded.setdefault(sigma, []).append(attention_weights(image.query[-1:], key)[0])
        return joint_attention(image, condition)

    pipeline.set_progress_bar_config(disable=True)
    identity = pipeline.read_identity(reference)
    (face,) = pipeline(
        reference=identity,
        expressions=[expression],
        num_inference_steps=steps,
        attention=attention,
        generator=torch.Generator().manual_seed(seed),
    ).images
    weights = torch.stack([torch.stack(blocks) for blocks in recorded.values()]).float().cpu().numpy()
    return AttentionRecord(face, tuple(recorded), weights, expression_share(pipeline, identity, expression))


def expression_share(pipeline, identity: np.ndarray, expression) -> np.ndarray:
    """How much each condition token depends on the expression, not the identity: float32 (M,) in [0, 1].

    ‖f(i, e) − f(i, ∅)‖ / (‖f(i, e) − f(i, ∅)‖ + ‖f(i, e) − f(∅, e)‖) for each token of the fusion f, with ∅ for a
    dropped input.
    """
    import torch

    encoder, device = pipeline.condition_encoder, pipeline.transformer.device
    with torch.no_grad():
        inputs = [
            torch.from_numpy(x).to(device, pipeline.transformer.dtype)
            for x in (identity[None], pipeline.read_expressions([expression]))
        ]
        drop = torch.zeros(1, dtype=torch.bool, device=device)
        full, *without = (
            encoder(*inputs, **keep)[0][0] for keep in ({}, {"keep_identity": drop}, {"keep_expression": drop})
        )
        by_identity, by_expression = ((full - other).float().norm(dim=1) for other in without)  # (M,)
    return (by_expression / (by_identity + by_expression).clamp(min=1e-9)).cpu().numpy()


def draw_attention(record: AttentionRecord, row: int, column: int, step: int, block: int, head: int) -> Image.Image:
    """The face, each patch as bright as its attention weight, and charts of the weights beside it."""
    patches, tokens = record.weights_of(row, column, step, block, head)
    sheet, side = Sheet(FACE + 32 + CARD, FACE), record.side
    light = DARK + (1 - DARK) * (patches / patches.max()) ** 0.5  # the square root makes small weights visible
    face = np.asarray(record.image.convert("RGB").resize((FACE, FACE), Image.Resampling.LANCZOS), np.float32)
    at = np.arange(FACE) * side // FACE  # index of the patch of each pixel, along one side
    sheet.paste(Image.fromarray((face * light[np.ix_(at, at)][..., None]).astype(np.uint8)), 0, 0)
    each = FACE / side
    for n in range(1, side):
        sheet.line(0, n * each, FACE, n * each, PAPER)
        sheet.line(n * each, 0, n * each, FACE, PAPER)
    if each >= 40:
        for r, c in np.argwhere(patches >= 0.005):  # less would read as 0 %
            sheet.text(
                (c + 0.5) * each, (r + 1) * each - 14, f"{100 * patches[r, c]:.0f} %", 15, PAPER, "middle", halo=INK
            )
    x, y = (column - 1) * each, (row - 1) * each
    sheet.rect(x + 2, y + 2, each - 4, each - 4, INK, line=7)
    sheet.rect(x + 2, y + 2, each - 4, each - 4, PAPER, line=3)
    _chart(sheet, FACE + 32, record, patches, tokens, (row, column, step, block, head))
    return sheet.image


def _chart(sheet: Sheet, x: float, record: AttentionRecord, patches, tokens, chosen) -> None:
    row, column, step, block, head = chosen
    sheet.text(x, 14, f"The patch in row {row}, column {column} attends to", 17)
    steps, blocks, heads = record.weights.shape[:3]
    which = f"head {head} of {heads}" if head else f"mean of {heads} heads"
    sheet.text(
        x,
        40,
        f"step {step} of {steps} (sigma {record.sigmas[step - 1]:.2f}), block {block} of {blocks}, {which}",
        13,
        GREY_INK,
    )

    left = x
    for name, share, color in zip(
        ("the picture", "identity", "expression"), _totals(record, patches, tokens), (GREY, BLUE, ORANGE)
    ):
        width = CARD * share
        sheet.rect(left, 62, width, 34, color)
        if width > 62:
            sheet.text(left + width / 2, 72, name, 12, ink_on(color), "middle")
            sheet.text(left + width / 2, 87, f"{share:.0%}", 13, ink_on(color), "middle")
        left += width

    top, floor, shown = 196, FACE - 52, np.ceil(10 * tokens.max()) / 10
    sheet.text(x, 130, f"Weight on each of the {len(tokens)} condition tokens", 15)
    for y, color, meaning in (
        (150, BLUE, "identity: how far the token moves without it"),
        (168, ORANGE, "expression: how far the token moves without it"),
    ):
        sheet.rect(x, y - 5, 11, 11, color)
        sheet.text(x + 18, y, meaning, 12)
    for line in (0.0, 0.5, 1.0):
        y = floor - line * (floor - top)
        sheet.line(x + 40, y, x + CARD, y, RULE)
        sheet.text(x + 34, y, f"{100 * shown * line:.0f} %", 11, GREY_INK, "right")
    each = (CARD - 40) / len(tokens)
    for n, (token, expression) in enumerate(zip(tokens, record.expression_share)):
        left, y = x + 40 + n * each, floor
        for share, color in ((1 - expression, BLUE), (expression, ORANGE)):
            height = float(share * token) / shown * (floor - top)
            sheet.rect(left + 0.12 * each, y - height, 0.76 * each, height, color)
            y -= height
        if each >= 14 or n % 4 == 0:
            sheet.text(left + each / 2, floor + 12, str(n + 1), 11, GREY_INK, "middle")
    sheet.text(x + 40 + (CARD - 40) / 2, floor + 34, "condition token", 13, anchor="middle")


def _totals(record: AttentionRecord, patches, tokens) -> tuple[float, float, float]:
    """Sums of the attention weights over patches, and over condition tokens for identity and for expression."""
    expression = float((tokens * record.expression_share).sum())
    return float(patches.sum()), float(tokens.sum()) - expression, expression


def say_attention(record: AttentionRecord, row: int, column: int, step: int, block: int, head: int) -> str:
    patches, tokens = record.weights_of(row, column, step, block, head)
    picture, who, what = _totals(record, patches, tokens)
    r, c = np.unravel_index(patches.argmax(), patches.shape)
    return (
        f"A generated face in {record.side} by {record.side} patches, brightened where the patch in row {row}, column "
        f"{column} attends to, at step {step}, block {block}, {f'head {head}' if head else 'mean of the heads'}: "
        f"{picture:.0%} to patches, most of it to row {r + 1}, column {c + 1}; {who:.0%} to the identity, {what:.0%} "
        "to the "
        f"expression; of the condition tokens most to number {int(tokens.argmax()) + 1}."
    )


def attention_panel(
    pipeline, reference, expression, *, steps: int | None = None, block: int | None = None, seed: int = 0
) -> Panel:
    """A generated face: press a patch to see what it attends to. Sliders choose step, block and head.

    Args:
        pipeline: a `GenAffectPipeline`. The face is generated once, by `record_attention`.
        reference, expression, steps: as for the pipeline.
        block: shown first, counted from 1; None: the last.
        seed: of the noise.

    Returns the panel.
    """
    import ipywidgets

    record = record_attention(pipeline, reference, expression, steps=steps, seed=seed)
    side, (step_count, blocks, heads) = record.side, record.weights.shape[:3]
    width = (FACE + 32 + CARD) / FACE  # of the whole picture, relative to the face

    def point(x: float, y: float) -> Mapping:
        row, column = int(y * side) + 1, int(x * width * side) + 1
        return {"row": min(row, side), "column": column} if column <= side else {}

    def step_to(dx: int, dy: int, at: Mapping) -> Mapping:
        return {"row": min(side, max(1, at["row"] + dy)), "column": min(side, max(1, at["column"] + dx))}

    def slider(description: str, value: int, most: int, least: int = 1):
        return ipywidgets.IntSlider(value=value, min=least, max=most, description=description, **WIDE)

    middle = max(1, side // 2)  # near an eye
    panel = Panel(
        lambda **values: draw_attention(record, **values),
        {
            "row": slider("row of the patch", middle, side),
            "column": slider("column of the patch", middle, side),
            "step": slider("step", -(-step_count // 2), step_count),
            "block": slider("block", block or blocks, blocks),
            "head": slider("head (0: their mean)", 0, heads, least=0),
        },
        lambda **values: say_attention(record, **values),
        Pointing(
            point,
            step_to,
            "Generated face in patches. The arrow keys choose the patch whose attention weights are shown.",
        ),
    )
    panel.show(panel.draw(**panel.values), panel.say(**panel.values), instead=True)
    return panel
