"""The thin layer around a pure function: sliders beside a picture, which is drawn again when one of them moves."""

import html
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image

from gen_affect_lib.display import show, to_image

WIDE = {"style": {"description_width": "200px"}, "layout": {"width": "390px"}}  # of a slider with a long name


@dataclass(frozen=True)
class Pointing:
    """What it means to point into a panel's picture. Both give values by name, those that change; none: nothing is there.

    Attributes:
        point: of a place (x, y) in [0, 1] from the upper left corner.
        step: of an arrow key (dx, dy), to the right and down, and the values as they are.
        label: what the picture is called, and how to use it.
    """

    point: Callable[[float, float], Mapping]
    step: Callable[[int, int, Mapping], Mapping]
    label: str


class Panel:
    """Sliders beside a picture.

    Args:
        draw: values by name -> picture.
        sliders: {name: ipywidgets slider, or another widget that has a value}, whose values go to `draw`.
        say: the same values -> what is to be seen, in words.
        pointing: what it means to point into the picture; None: nothing.
    Attributes:
        values: those of the sliders. picture: a `Pad`. caption: its words, for those who see, too.
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
        """Move several sliders, and draw once."""
        self._listen(False)
        for name, value in values.items():
            self.sliders[name].value = value
        self._listen(True)
        self.redraw()

    def show(self, still: Image.Image, alt: str, *, instead: bool = False) -> None:
        """Show a still picture with its words, and below it the sliders, where somebody is there to move them.

        instead: the still picture says what the sliders would, and appears only where nobody can move them.
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
        self._go(self.pointing.point(x, y))

    def _stepped(self, dx: int, dy: int) -> None:
        self._go(self.pointing.step(dx, dy, self.values))

    def _go(self, values: Mapping) -> None:
        if values and self.values | values != self.values:
            self.set(**values)


def quick_png(picture) -> bytes:
    """PNG bytes as `display.to_png` makes them, a little larger and ten times as fast."""
    buffer = io.BytesIO()
    to_image(picture).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def someone_there() -> bool:
    """Whether a person sits before this kernel: JupyterLab lets a cell ask for input, papermill and nbval do not."""
    from IPython import get_ipython

    shell = get_ipython()
    return bool(getattr(getattr(shell, "kernel", None), "_allow_stdin", False))
