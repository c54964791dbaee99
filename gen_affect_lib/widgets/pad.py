"""A picture with alt text that responds to the pointer and the arrow keys, which ipywidgets' Image does not have.

`SCRIPT` is all that runs in the browser; nothing is loaded from the network.
"""

from collections.abc import Callable

import anywidget
import traitlets

SCRIPT = """
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// ipywidgets gives slider handles no accessible name: take the label beside them.
function nameSliders(page) {
  for (const slider of page.querySelectorAll(".widget-slider")) {
    const label = slider.querySelector(".widget-label")?.textContent ?? "";
    slider.querySelectorAll("[role=slider]").forEach((handle) => handle.setAttribute("aria-label", label));
  }
}

function render({ model, el }) {
  const frame = document.createElement("div");
  const picture = document.createElement("img");
  const spoken = document.createElement("span"); // announces changes of the picture to screen readers
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
  requestAnimationFrame(() => setTimeout(() => nameSliders(el.ownerDocument), 200)); // once the sliders are on the page
  model.on("change:png", draw);
  model.on("change:alt", () => { say(); spoken.textContent = model.get("alt"); });
  if (!model.get("label")) return;

  frame.tabIndex = 0;
  frame.setAttribute("role", "application"); // otherwise a screen reader uses the arrow keys
  frame.setAttribute("aria-label", model.get("label"));
  frame.dataset.lmSuppressShortcuts = "true"; // otherwise JupyterLab moves between cells
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
    """A picture with alt text.

    Args:
        on_point: called with the position (x, y) of a press or drag, in [0, 1] from the upper left corner.
        on_step: called with an arrow key: (-1, 0) left, (1, 0) right, (0, -1) up, (0, 1) down.
        label: accessible name and instructions; without it the picture does not respond.

    Attributes:
        png, alt: the picture and its alt text; `show` changes both at once.
    """

    _esm = SCRIPT
    _css = STYLE
    png = traitlets.Bytes().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)

    def __init__(self, on_point: Callable | None = None, on_step: Callable | None = None, label: str = ""):
        super().__init__(label=label)
        self.on_point, self.on_step = on_point, on_step
        self.on_msg(self._received)

    def show(self, png: bytes, alt: str) -> None:
        with self.hold_sync():
            self.png, self.alt = png, alt

    def _received(self, widget, content: dict, buffers) -> None:
        for name, listener in (("point", self.on_point), ("step", self.on_step)):
            if name in content and listener:
                listener(*content[name])
