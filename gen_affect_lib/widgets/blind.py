"""A blind test for people: of two pictures of one person with one expression, which one is drawn?

It is a panel in notebook 10 (`blind_panel`) and a page that needs no kernel (`blind_page`, the command `blind`). A
share of right answers of 0.5 is chance: then generated pictures cannot be told from drawings.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from PIL import Image

from gen_affect_lib.avatars import EMOTIONS, Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.splits import END_SEED, REPORT_SEED
from gen_affect_lib.display import grid, show, to_image, to_png
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.widgets.panel import quick_png, someone_there

SIDE = 256  # at which both pictures are shown
QUESTION = "Which one is drawn?"


@dataclass(frozen=True)
class Pair:
    """A drawn and a generated picture of one person with one expression, and on which side the drawn one is shown."""

    drawn: Image.Image
    generated: Image.Image
    word: str
    drawn_is_left: bool

    @property
    def sides(self) -> tuple[Image.Image, Image.Image]:
        """The left and the right picture, enlarged alike."""
        pictures = (self.drawn, self.generated) if self.drawn_is_left else (self.generated, self.drawn)
        left, right = (picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for picture in pictures)
        return left, right


def blind_pairs(pipeline: GenAffectPipeline, seed: int | None = None) -> Iterator[Pair]:
    """Pairs without end, of people with seeds from 2,000,000 on, any of the 135 words, and random appearances.

    seed: of the choice of all of these and of the noise; None chooses differently in each call.
    """
    rng = np.random.default_rng(seed)
    while True:
        person = Identity.sample(int(rng.integers(REPORT_SEED, END_SEED)))
        shown, word = (EMOTIONS[k] for k in rng.choice(len(EMOTIONS), 2, replace=False))
        worn, dressed, noise = (int(number) for number in rng.integers(0, 2**31, 3))
        reference = Avatar(person, Expression.named(shown), Appearance.sample(worn)).render(SIDE)
        generator = torch.Generator().manual_seed(noise)
        (generated,) = pipeline(reference, [word], generator=generator, consistency=0).images
        drawn = Avatar(person, Expression.named(word), Appearance.sample(dressed)).render(generated.width)
        yield Pair(to_image(drawn), generated, word, bool(rng.random() < 0.5))


def share_right(right: int, asked: int) -> tuple[float, float, float]:
    """The share of right answers, with its 95 % interval (Wilson 1927): (share, low, high)."""
    z, share = 1.96, right / asked
    center, half = share + z**2 / (2 * asked), z * math.sqrt(share * (1 - share) / asked + z**2 / (4 * asked**2))
    scale = 1 + z**2 / asked
    return share, max(0.0, (center - half) / scale), min(1.0, (center + half) / scale)


def verdict(right: int, asked: int) -> str:
    """The result in words."""
    share, low, high = share_right(right, asked)
    told = "Nothing was told apart for sure" if low <= 0.5 <= high else "That is more than chance" if low > 0.5 else ""
    text = f"{right} of {asked} right: {share:.2f}, 95 % interval {low:.2f} to {high:.2f}; chance is 0.50."
    return f"{text} {told or 'That is less than chance: the generated pictures were taken for drawings'}."


# --- the panel --------------------------------------------------------------------------------------------------------


class BlindTest:
    """The pairs one after the other, with two buttons; press a picture, a button, or the arrow key of its side.

    Args:
        pipeline: draws the pairs, each when it is asked about.
        count: number of pairs.
        seed: see `blind_pairs`; a new start chooses other pairs.

    Attributes:
        answers: whether each answer so far was right.
        pair: the pair that is asked about; None at the end.
        widget: everything together.
    """

    def __init__(self, pipeline: GenAffectPipeline, count: int = 20, seed: int | None = None):
        import ipywidgets

        from gen_affect_lib.widgets.pad import Pad

        self.pipeline, self.count = pipeline, count
        label = f"{QUESTION} Press the picture that is drawn, or the left or right arrow key."
        self.picture = Pad(lambda x, y: self.answer(x < 0.5), lambda dx, dy: dx and self.answer(dx < 0), label)
        self.caption = ipywidgets.HTML(layout={"max_width": "60em"})
        self.left, self.right = (ipywidgets.Button(description=f"the {side} one") for side in ("left", "right"))
        self.again = ipywidgets.Button(description="new pairs", tooltip="Start again with other pairs")
        self.left.on_click(lambda button: self.answer(True))
        self.right.on_click(lambda button: self.answer(False))
        self.again.on_click(lambda button: self.start())
        buttons = ipywidgets.HBox([self.left, self.right, self.again])
        self.widget = ipywidgets.VBox([self.picture, buttons, self.caption])
        self.start(seed)

    def start(self, seed: int | None = None) -> None:
        """Begin again with new pairs."""
        self.pairs = islice(blind_pairs(self.pipeline, seed), self.count)
        self.answers: list[bool] = []
        self.seen: list[Pair] = []
        self._next()

    def answer(self, left: bool) -> None:
        """Answer that the left or the right picture is the drawn one, and go on to the next pair."""
        if self.pair is not None:
            self.answers.append(left == self.pair.drawn_is_left)
            self._next()

    def _next(self) -> None:
        self.pair = next(self.pairs, None)
        self.left.disabled = self.right.disabled = self.pair is None
        if self.pair is None:
            words = verdict(sum(self.answers), self.count)
            picture = solution(self.seen, self.answers)
            alt = f"{words} All pairs: in each the drawn picture is marked, and whether the answer was right."
        else:
            self.seen.append(self.pair)
            words = f"Pair {len(self.seen)} of {self.count}: {self.pair.word}. {QUESTION}"
            picture, alt = side_by_side(self.pair), f"Two pictures of one person, {self.pair.word}. {words}"
        self.picture.show(quick_png(picture), alt)
        self.caption.value = f"<div>{html.escape(words)}</div>"


def blind_panel(pipeline: GenAffectPipeline, count: int = 20, seed: int | None = None) -> BlindTest | None:
    """Show the blind test if the notebook is used interactively, else a still picture of four pairs.

    Args:
        pipeline, count, seed: see `BlindTest`.
    Returns the test, or None where a still picture was shown.
    """
    if someone_there():
        from IPython.display import display

        test = BlindTest(pipeline, count, seed)
        display(test.widget)
        return test
    pairs = list(islice(blind_pairs(pipeline, seed), min(count, 4)))
    titles = [f"{pair.word}: {side}" for pair in pairs for side in ("left", "right")]
    still = grid([picture for pair in pairs for picture in pair.sides], titles, columns=4, tile=150)
    show(still, f"{len(pairs)} pairs of pictures, each of one person with one expression; one is drawn, one generated.")
    answers = "; ".join(f"{pair.word}: {'left' if pair.drawn_is_left else 'right'}" for pair in pairs)
    print(f"{QUESTION} {answers}.")
    return None


def side_by_side(pair: Pair) -> Image.Image:
    """Both pictures of a pair, with a gap between them."""
    sheet = Image.new("RGB", (2 * SIDE + 16, SIDE), "white")
    for picture, x in zip(pair.sides, (0, SIDE + 16)):
        sheet.paste(picture, (x, 0))
    return sheet


def solution(pairs: Sequence[Pair], answers: Sequence[bool]) -> Image.Image:
    """All pairs side by side; below the drawn picture, whether the answer was right."""
    titles = []
    for pair, right in zip(pairs, answers):
        drawn = f"drawn: {'right' if right else 'wrong'}"
        titles += [drawn, "generated"] if pair.drawn_is_left else ["generated", drawn]
    return grid([picture for pair in pairs for picture in pair.sides], titles, columns=8, tile=110)


# --- the page ---------------------------------------------------------------------------------------------------------


def blind_page(pairs: Sequence[Pair]) -> str:
    """The test as an HTML page that needs nothing else. Order and sides are shuffled each time it is opened."""

    def source(picture: Image.Image) -> str:
        return "data:image/png;base64," + base64.b64encode(to_png(picture)).decode("ascii")

    rows = [[source(pair.drawn), source(pair.generated), pair.word] for pair in pairs]
    return PAGE.replace("QUESTION", QUESTION).replace("PAIRS", json.dumps(rows))


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Blind test: drawn or generated?</title>
<style>
  body { font: 18px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; color: #222;
         background: #fff; }
  #pair { display: flex; gap: 1rem; }
  #pair button { flex: 1; padding: 6px; border: 3px solid #ccc; background: none; cursor: pointer; font: inherit; }
  #pair button:hover, #pair button:focus-visible { border-color: #0072B2; outline: none; }
  img { display: block; width: 100%; }
  figure { display: inline-block; width: 13.5rem; margin: .4rem; vertical-align: top; font-size: 14px; }
  figure div { display: flex; gap: 4px; }
  figure img { width: 50%; box-sizing: border-box; border: 3px solid transparent; }
  figure img.drawn { border-color: #0072B2; }
  .wrong { color: #a33b00; }
</style>
<h1>Drawn or generated?</h1>
<p>Two pictures show one person with one expression. One is drawn by a program, one generated by the model. Click the
picture that you take for the <b>drawn</b> one, or press the left or right arrow key.</p>
<p id="said" role="status" aria-live="polite"></p>
<div id="pair">
  <button type="button"><img alt="the left picture">left</button>
  <button type="button"><img alt="the right picture">right</button>
</div>
<div id="solution"></div>
<script>
const shuffled = (list) => list.map((one) => [Math.random(), one]).sort((a, b) => a[0] - b[0]).map((one) => one[1]);
const pairs = shuffled(PAIRS)
  .map(([drawn, generated, word]) => ({ drawn, generated, word, left: Math.random() < 0.5 }));
const [said, pair, solution] = ["said", "pair", "solution"].map((name) => document.getElementById(name));
const buttons = [...pair.querySelectorAll("button")];
const sides = (one) => one.left ? [one.drawn, one.generated] : [one.generated, one.drawn];
const answers = [];

function ask() {
  const one = pairs[answers.length];
  said.textContent = `Pair ${answers.length + 1} of ${pairs.length}: ${one.word}. QUESTION`;
  sides(one).forEach((source, k) => { buttons[k].firstElementChild.src = source; });
}

function answer(left) {
  if (answers.length === pairs.length) return;
  answers.push(left === pairs[answers.length].left);
  if (answers.length < pairs.length) ask(); else end();
}

function end() {
  const n = pairs.length, right = answers.filter(Boolean).length, share = right / n, z = 1.96;  // Wilson 1927
  const center = share + z * z / (2 * n), half = z * Math.sqrt(share * (1 - share) / n + z * z / (4 * n * n));
  const [low, high] = [center - half, center + half].map((x) => Math.min(1, Math.max(0, x / (1 + z * z / n))));
  said.textContent = `${right} of ${n} right: ${share.toFixed(2)}, `
    + `95 % interval ${low.toFixed(2)} to ${high.toFixed(2)}; `
    + "chance is 0.50. The drawn pictures have a blue frame. Reload the page for another order.";
  pair.hidden = true;
  pair.style.display = "none";
  for (const [k, one] of pairs.entries()) {
    const figure = document.createElement("figure"), both = document.createElement("div");
    sides(one).forEach((source, side) => {
      const picture = document.createElement("img"), drawn = (side === 0) === one.left;
      picture.src = source;
      picture.alt = drawn ? "drawn" : "generated";
      if (drawn) picture.className = "drawn";
      both.append(picture);
    });
    const caption = document.createElement("figcaption");
    caption.textContent = `${one.word}: ${answers[k] ? "right" : "wrong"}`;
    if (!answers[k]) caption.className = "wrong";
    figure.append(both, caption);
    solution.append(figure);
  }
}

buttons.forEach((button, k) => button.addEventListener("click", () => answer(k === 0)));
document.addEventListener("keydown", (event) => {
  if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
  event.preventDefault();
  answer(event.key === "ArrowLeft");
});
ask();
</script>
"""
