"""A picture on the page that has words, and that can be pointed at: by mouse or finger, or by the arrow keys.

ipywidgets' own Image can do neither. What runs in the browser is the few lines of `SCRIPT`, and nothing is loaded from
anywhere.
"""

from collections.abc import Callable

import anywidget
import traitlets

SCRIPT = """
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// ipywidgets gives the handle of a slider no name: a screen reader shall call it what the label beside it says.
function nameSliders(page) {
  for (const slider of page.querySelectorAll(".widget-slider")) {
    const label = slider.querySelector(".widget-label")?.textContent ?? "";
    slider.querySelectorAll("[role=slider]").forEach((handle) => handle.setAttribute("aria-label", label));
  }
}

function render({ model, el }) {
  const frame = document.createElement("div");
  const picture = document.createElement("img");
  const spoken = document.createElement("span"); // where a screen reader hears that the picture has changed
  frame.className = "gen-affect-pad";
  spoken.className = "gen-affect-spoken";
  spoken.setAttribute("aria-live", "polite");
  picture.draggable = false;
  frame.append(picture);
  el.append(frame, spoken);

  const draw = () => {
    URL.revokeObjectURL(picture.src);
    picture.src = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" }));
  };
  const say = () => { picture.alt = model.get("alt"); };
  draw();
  say();
  requestAnimationFrame(() => setTimeout(() => nameSliders(el.ownerDocument), 200)); // when those beside it are there too
  model.on("change:png", draw);
  model.on("change:alt", () => { say(); spoken.textContent = model.get("alt"); });
  if (!model.get("label")) return;

  frame.tabIndex = 0;
  frame.setAttribute("role", "application"); // or a screen reader would keep the arrow keys to itself
  frame.setAttribute("aria-label", model.get("label"));
  frame.dataset.lmSuppressShortcuts = "true"; // or JupyterLab would walk from cell to cell
  frame.addEventListener("keydown", (event) => {
    const step = ARROWS[event.key];
    if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    model.send({ step });
  });

  let last = 0;
  const point = (event) => {
    const box = picture.getBoundingClientRect();
    const share = (at, from, length) => Math.min(1, Math.max(0, (at - from) / length));
    last = event.timeStamp;
    model.send({ point: [share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height)] });
  };
  picture.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    frame.focus({ preventScroll: true });
    point(event);
  });
  picture.addEventListener("pointermove", (event) => {
    if (event.buttons === 1 && event.timeStamp - last > 80) point(event);
  });
}
export default { render };
"""

STYLE = """
.gen-affect-pad { display: inline-block; max-width: 100%; margin: 4px; }
.gen-affect-pad img { display: block; max-width: 100%; height: auto; }
.gen-affect-pad[tabindex] img { cursor: crosshair; }
.gen-affect-pad:focus { outline: 3px solid #0072B2; outline-offset: 1px; box-shadow: 0 0 0 6px white; }
.gen-affect-spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
"""


class Pad(anywidget.AnyWidget):
    """A picture and its words.

    Args:
        on_point: told the place (x, y) that was pressed or dragged to, each in [0, 1] from the upper left corner.
        on_step: told which arrow key was pressed: (-1, 0) left, (1, 0) right, (0, -1) up, (0, 1) down.
        label: what a screen reader calls the pad, and how to use it; without one it is a mere picture.
    Traits:
        png, alt: the picture and the words that stand for it. Change both at once, with `show`.
    """

    _esm = SCRIPT
    _css = STYLE
    png = traitlets.Bytes().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)

    def __init__(self, on_point: Callable | None = None, on_step: Callable | None = None, label: str = ""):
        super().__init__(label=label)
        self.on_point, self.on_step = on_point, on_step
        self.on_msg(self._told)

    def show(self, png: bytes, alt: str) -> None:
        with self.hold_sync():
            self.png, self.alt = png, alt

    def _told(self, widget, content: dict, buffers) -> None:
        for name, listener in (("point", self.on_point), ("step", self.on_step)):
            if name in content and listener:
                listener(*content[name])
