"""Where a patch of a generated face looks: at the other patches, and at the tokens of the condition. Taught in notebook 07.

Letters: T sampling steps, K blocks, H heads, L image tokens (patches), M condition tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gen_affect_lib.display import BLUE, GREY, ORANGE
from gen_affect_lib.widgets.panel import WIDE, Panel, Pointing
from gen_affect_lib.widgets.sheet import GREY_INK, INK, PAPER, RULE, Sheet, ink_on

FACE = 512  # pixels: the side of the face
CARD = 440  # pixels: how wide the charts beside it are
DARK = 0.3  # how bright a patch still is at which the chosen one does not look at all


@dataclass(frozen=True)
class AttentionRecord:
    """One generated face, and where its patches looked while it was drawn.

    Attributes:
        image: the face.
        sigmas: of each step, (T,).
        weights: float32 (T, K, H, L, L + M); a row is what one patch looks at, patches first, and adds up to 1.
        carries: float32 (M,), how much of a condition token hangs on the expression, and not on the identity, in [0, 1].
    """

    image: Image.Image
    sigmas: tuple[float, ...]
    weights: np.ndarray
    carries: np.ndarray

    @property
    def side(self) -> int:
        """Patches in a row."""
        return round(self.weights.shape[3] ** 0.5)

    def looks(self, row: int, column: int, step: int, block: int, head: int) -> tuple[np.ndarray, np.ndarray]:
        """How much a patch looks at the others (side, side), and at the condition's tokens (M,). All are counted from 1;
        head 0 is the mean of all heads."""
        weights = self.weights[step - 1, block - 1]  # (H, L, L + M)
        weights = weights.mean(axis=0) if head == 0 else weights[head - 1]
        looks = weights[(row - 1) * self.side + column - 1]
        return looks[: self.side**2].reshape(self.side, self.side), looks[self.side**2 :]


def record_attention(pipeline, reference, expression, *, steps: int | None = None, seed: int = 0) -> AttentionRecord:
    """Generate one face, and keep where its patches look.

    `GenAffectPipeline` takes an attention of one's own. This one does what joint attention does, and writes down the softmax
    of the patches under the whole condition: guidance compares several conditions, and that one comes last.
    """
    import torch

    from gen_affect_lib.model.attention import attention_weights, joint_attention

    sigmas, maps = [], []

    def attention_at(sigma: float, members: int):
        sigmas.append(sigma)
        maps.append([])

        def attention(image, condition, block: int):
            key = torch.cat([image.key[-1:], condition.key[-1:]], dim=1)  # (1, L + M, H, D)
            maps[-1].append(attention_weights(image.query[-1:], key)[0])  # (H, L, L + M)
            return joint_attention(image, condition)

        return attention

    pipeline.set_progress_bar_config(disable=True)
    who = pipeline.read_identity(reference)
    (face,) = pipeline(
        reference=who,
        expressions=[expression],
        num_inference_steps=steps,
        attention=attention_at,
        generator=torch.Generator().manual_seed(seed),
    ).images
    weights = torch.stack([torch.stack(blocks) for blocks in maps]).float().cpu().numpy()
    return AttentionRecord(face, tuple(sigmas), weights, carried(pipeline, who, expression))


def carried(pipeline, identity: np.ndarray, expression) -> np.ndarray:
    """How much of each condition token hangs on the expression, and not on the identity: float32 (M,) in [0, 1].

    Leave out the one, then the other, and compare how far the token moves.
    """
    import torch

    encoder, device = pipeline.condition_encoder, pipeline.transformer.device
    with torch.no_grad():
        given = [
            torch.from_numpy(x).to(device, pipeline.transformer.dtype)
            for x in (identity[None], pipeline.read_expressions([expression]))
        ]
        out = torch.zeros(1, dtype=torch.bool, device=device)
        whole, *without = (
            encoder(*given, **left)[0][0] for left in ({}, {"keep_identity": out}, {"keep_expression": out})
        )
        by_identity, by_expression = ((whole - other).float().norm(dim=1) for other in without)  # (M,)
    return (by_expression / (by_identity + by_expression).clamp(min=1e-9)).cpu().numpy()


def draw_attention(record: AttentionRecord, row: int, column: int, step: int, block: int, head: int) -> Image.Image:
    """The face with a light on every patch that the chosen one looks at, and beside it how much it looks at what."""
    patches, tokens = record.looks(row, column, step, block, head)
    sheet, side = Sheet(FACE + 32 + CARD, FACE), record.side
    light = DARK + (1 - DARK) * (patches / patches.max()) ** 0.5  # the root: weak looks are seen too
    face = np.asarray(record.image.convert("RGB").resize((FACE, FACE), Image.Resampling.LANCZOS), np.float32)
    at = np.arange(FACE) * side // FACE  # the patch of each pixel, along one side
    sheet.paste(Image.fromarray((face * light[np.ix_(at, at)][..., None]).astype(np.uint8)), 0, 0)
    each = FACE / side
    for n in range(1, side):
        sheet.line(0, n * each, FACE, n * each, PAPER)
        sheet.line(n * each, 0, n * each, FACE, PAPER)
    if each >= 40:
        for r in range(side):
            for c in range(side):
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
    sheet.text(x, 14, f"The patch in row {row}, column {column} looks at", 17)
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
        ("the picture", "who", "what"), _totals(record, patches, tokens), (GREY, BLUE, ORANGE)
    ):
        width = CARD * share
        sheet.rect(left, 62, width, 34, color)
        if width > 62:
            sheet.text(left + width / 2, 72, name, 12, ink_on(color), "middle")
            sheet.text(left + width / 2, 87, f"{share:.0%}", 13, ink_on(color), "middle")
        left += width

    top, floor, shown = 196, FACE - 52, np.ceil(10 * tokens.max()) / 10
    sheet.text(x, 130, f"of the {len(tokens)} condition tokens at", 15)
    for y, color, meaning in (
        (150, BLUE, "who: what a token loses without the identity"),
        (168, ORANGE, "what: what it loses without the expression"),
    ):
        sheet.rect(x, y - 5, 11, 11, color)
        sheet.text(x + 18, y, meaning, 12)
    for line in (0.0, 0.5, 1.0):
        y = floor - line * (floor - top)
        sheet.line(x + 40, y, x + CARD, y, RULE)
        sheet.text(x + 34, y, f"{100 * shown * line:.0f} %", 11, GREY_INK, "right")
    each = (CARD - 40) / len(tokens)
    for n, (token, expression) in enumerate(zip(tokens, record.carries)):
        left, y = x + 40 + n * each, floor
        for share, color in ((1 - expression, BLUE), (expression, ORANGE)):
            height = float(share * token) / shown * (floor - top)
            sheet.rect(left + 0.12 * each, y - height, 0.76 * each, height, color)
            y -= height
        if each >= 14 or n % 4 == 0:
            sheet.text(left + each / 2, floor + 12, str(n + 1), 11, GREY_INK, "middle")
    sheet.text(x + 40 + (CARD - 40) / 2, floor + 34, "condition token", 13, anchor="middle")


def _totals(record: AttentionRecord, patches, tokens) -> tuple[float, float, float]:
    """How much of the look falls on the picture, on what the condition says of the identity, and of the expression."""
    expression = float((tokens * record.carries).sum())
    return float(patches.sum()), float(tokens.sum()) - expression, expression


def say_attention(record: AttentionRecord, row: int, column: int, step: int, block: int, head: int) -> str:
    patches, tokens = record.looks(row, column, step, block, head)
    picture, who, what = _totals(record, patches, tokens)
    r, c = np.unravel_index(patches.argmax(), patches.shape)
    return (
        f"A generated face in {record.side} by {record.side} patches, lit where the patch in row {row}, column {column} looks, at "
        f"step {step}, block {block}, {f'head {head}' if head else 'mean of the heads'}: {picture:.0%} at the picture, most of "
        f"it at row {r + 1}, column {c + 1}; {who:.0%} at the identity, {what:.0%} at the expression; of the condition's "
        f"tokens most at number {int(tokens.argmax()) + 1}."
    )


def attention_panel(
    pipeline, reference, expression, *, steps: int | None = None, block: int | None = None, seed: int = 0
) -> Panel:
    """A generated face; press one of its patches, and see where it looks. Sliders choose the step, the block and the head.

    pipeline: a `GenAffectPipeline`. The face is generated and its attention recorded once, by `record_attention`, so that
    every press is answered at once. block: the one shown first, counted from 1; None: the last. Returns the panel, for those
    who go on with it.
    """
    import ipywidgets

    record = record_attention(pipeline, reference, expression, steps=steps, seed=seed)
    side, (steps, blocks, heads) = record.side, record.weights.shape[:3]
    width = (FACE + 32 + CARD) / FACE  # of the picture, in faces

    def point(x: float, y: float) -> Mapping:
        row, column = int(y * side) + 1, int(x * width * side) + 1
        return {"row": min(row, side), "column": column} if column <= side else {}

    def step_to(dx: int, dy: int, at: Mapping) -> Mapping:
        return {"row": min(side, max(1, at["row"] + dy)), "column": min(side, max(1, at["column"] + dx))}

    def slider(description: str, value: int, most: int, least: int = 1):
        return ipywidgets.IntSlider(value=value, min=least, max=most, description=description, **WIDE)

    middle = max(1, side // 2)  # about an eye
    panel = Panel(
        lambda **values: draw_attention(record, **values),
        {
            "row": slider("row of the patch", middle, side),
            "column": slider("column of the patch", middle, side),
            "step": slider("step", -(-steps // 2), steps),
            "block": slider("block", block or blocks, blocks),
            "head": slider("head (0: their mean)", 0, heads, least=0),
        },
        lambda **values: say_attention(record, **values),
        Pointing(point, step_to, "Generated face in patches. The arrow keys choose the patch whose looks are shown."),
    )
    panel.show(panel.draw(**panel.values), panel.say(**panel.values), instead=True)
    return panel
