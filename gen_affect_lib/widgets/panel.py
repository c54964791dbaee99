"""Sliders around a pure function from values to a picture, which is drawn again when a slider moves."""

import html
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image

from gen_affect_lib.display import show, to_image

WIDE = {"style": {"description_width": "200px"}, "layout": {"width": "390px"}}  # a slider with a long description


@dataclass(frozen=True)
class Pointing:
    """How a panel's picture responds to the pointer and the arrow keys.

    Both functions return the values that change, by name; an empty mapping changes nothing.

    Attributes:
        point: takes a position (x, y) in [0, 1] from the upper left corner.
        step: takes an arrow key (dx, dy), right and down, and the current values.
        label: name of the picture and instructions, for screen readers.
    """

    point: Callable[[float, float], Mapping]
    step: Callable[[int, int, Mapping], Mapping]
    label: str


class Panel:
    """Sliders beside a picture.

    Args:
        draw: values by name -> picture.
        sliders: {name: ipywidgets slider, or another widget with a value}, whose values go to `draw`.
        say: the same values -> description of the picture in words.
        pointing: response to pointer and arrow keys; None: the picture has none.

    Attributes:
        values: of the sliders, by name.
        picture: a `Pad`.
        caption: the description below the picture.
    """

    def __init__(
        self,
        draw: Callable[..., Image.Image],
        sliders: Mapping,
        say: Callable[..., str],
        pointing: Pointing | None = None,
    ):
        import ipywidgets

        from gen_affect_lib.widgets.pad import Pad

        self.draw, self.say, self.pointing = draw, say, pointing
        self.sliders = dict(sliders)
        self.picture = Pad(self._pointed, self._stepped, pointing.label) if pointing else Pad()
        self.caption = ipywidgets.HTML(layout={"max_width": "60em"})
        self.reset = ipywidgets.Button(description="back to the start", tooltip="Set every slider back")
        self._start = self.values
        self._listen(True)
        self.reset.on_click(lambda button: self.set(**self._start))
        box = ipywidgets.GridBox(
            [*self.sliders.values()], layout={"grid_template_columns": "repeat(auto-fill, 390px)", "grid_gap": "0 12px"}
        )
        beside = ipywidgets.VBox([self.caption, self.reset], layout={"flex": "1 1 320px"})
        self.widget = ipywidgets.VBox(
            [
                ipywidgets.HBox([self.picture, beside], layout={"flex_flow": "row wrap"}),
                box,
            ]
        )
        self.redraw()

    @property
    def values(self) -> dict:
        return {name: slider.value for name, slider in self.sliders.items()}

    def redraw(self) -> None:
        words = self.say(**self.values)
        self.picture.show(quick_png(self.draw(**self.values)), words)
        self.caption.value = f'<div style="line-height: 1.4">{html.escape(words)}</div>'

    def set(self, **values) -> None:
        """Set several sliders and redraw once."""
        self._listen(False)
        for name, value in values.items():
            self.sliders[name].value = value
        self._listen(True)
        self.redraw()

    def show(self, still: Image.Image, alt: str, *, instead: bool = False) -> None:
        """Show a still picture with its alt text, and below it the sliders if the notebook is used interactively.

        instead: show the still picture only where there are no sliders.
        """
        there = someone_there()
        if not (instead and there):
            show(still, alt)
        if there:
            from IPython.display import display

            display(self.widget)

    def _listen(self, on: bool) -> None:
        for slider in self.sliders.values():
            (slider.observe if on else slider.unobserve)(self._moved, names="value")

    def _moved(self, change) -> None:
        self.redraw()

    def _pointed(self, x: float, y: float) -> None:
        if self.pointing:
            self._change(self.pointing.point(x, y))

    def _stepped(self, dx: int, dy: int) -> None:
        if self.pointing:
            self._change(self.pointing.step(dx, dy, self.values))

    def _change(self, values: Mapping) -> None:
        if any(self.values[name] != value for name, value in values.items()):
            self.set(**values)


def quick_png(picture) -> bytes:
    """PNG bytes with little compression: slightly larger than those of `display.to_png`, in a tenth of the time."""
    buffer = io.BytesIO()
    to_image(picture).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def someone_there() -> bool:
    """Whether the notebook is used interactively: JupyterLab allows input from a cell, papermill and nbval do not."""
    from IPython import get_ipython

    shell = get_ipython()
    return bool(getattr(getattr(shell, "kernel", None), "_allow_stdin", False))
