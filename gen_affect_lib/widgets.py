"""Sliders over pictures.

Every panel is a pure function, values in and picture out, with a thin layer of sliders around it. What the function
draws for a few chosen values stands there as a still picture too, so that a page that cannot run shows the point.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from PIL import Image

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.factors import EXPRESSION_UNIT_NAMES
from gen_affect_lib.display import grid, show, to_image, to_png
from gen_affect_lib.errors import UserError

TURNS = {"gaze_x": "gaze right", "gaze_y": "gaze up", "head_yaw": "head right", "head_pitch": "head up"}
LABELS = {f"au{unit}": f"AU{unit} {name}" for unit, name in EXPRESSION_UNIT_NAMES.items()} | TURNS
# A few faces that say what the sliders are for.
FACES = {
    "no unit": {},
    "AU1 alone": {"au1": 1.0},
    "AU4 alone": {"au4": 1.0},
    "AU12 alone": {"au12": 1.0},
    "AU6 and AU12": {"au6": 1.0, "au12": 1.0},
    "AU1, AU4, AU15": {"au1": 0.9, "au4": 0.6, "au15": 1.0},
    "AU1, 2, 5, 26": {"au1": 1.0, "au2": 1.0, "au5": 1.0, "au25": 0.8, "au26": 1.0},
}


# --- pure functions: values in, picture out ---


def draw_expression(values: Mapping[str, float], identity: int = 0, appearance: int = 0,
                    size: int = 256) -> Image.Image:
    """The avatar of two seeds with an expression of these fields: {"au12": 0.8, "gaze_x": -0.5, …}; others are 0."""
    unknown = [name for name in values if name not in Expression.NAMES]
    if unknown:
        raise UserError(f"{unknown[0]!r} is no part of an expression: give some of " + ", ".join(Expression.NAMES))
    avatar = Avatar(Identity.sample(identity), Expression(**values), Appearance.sample(appearance))
    return to_image(avatar.render(size))


def sample_row(pipeline, reference, expressions: Sequence, *, steps: int, identity_scale: float,
               expression_scale: float, seed: int = 0) -> list[Image.Image]:
    """The reference, then what a `GenAffectPipeline` makes of it, one picture for each expression.

    expressions: as the pipeline takes them. seed: of the noise, the same for every setting, so that a difference
    between two pictures comes from the sliders alone.
    """
    import torch

    images = pipeline(reference=reference, expressions=list(expressions), num_inference_steps=steps,
                      identity_scale=identity_scale, expression_scale=expression_scale,
                      generator=torch.Generator().manual_seed(seed)).images
    return [to_image(reference), *images]


def sample_set(pipeline, reference, expressions: Sequence, consistency, seed: int = 0) -> list[Image.Image]:
    """One picture for each expression, as a set that shares what `consistency` says, from the noise of the seed."""
    import torch

    return pipeline(reference=reference, expressions=list(expressions), consistency=consistency,
                    generator=torch.Generator().manual_seed(seed)).images


# --- the sliders ---


class Panel:
    """Sliders beside a picture that is drawn again when one of them moves.

    draw: values by name -> picture. sliders: {name: ipywidgets slider}, whose values go to `draw`.
    `values` are the sliders' values, `picture` the image widget, `caption` the words that stand for it.
    """

    def __init__(self, draw: Callable[..., Image.Image], sliders: Mapping, columns: int = 3):
        import ipywidgets

        self.draw = draw
        self.sliders = dict(sliders)
        self.picture = ipywidgets.Image(format="png")
        self.caption = ipywidgets.HTML()
        self.reset = ipywidgets.Button(description="back to the start", tooltip="Set every slider back")
        self._start = self.values
        for slider in self.sliders.values():
            slider.observe(self._moved, names="value")
        self.reset.on_click(self._back)
        box = ipywidgets.GridBox(list(self.sliders.values()), layout=ipywidgets.Layout(
            grid_template_columns=f"repeat({columns}, 330px)", grid_gap="0 12px"))
        beside = ipywidgets.VBox([self.caption, self.reset])
        self.widget = ipywidgets.VBox([ipywidgets.HBox([self.picture, beside]), box])
        self.redraw()

    @property
    def values(self) -> dict[str, float]:
        return {name: slider.value for name, slider in self.sliders.items()}

    def redraw(self) -> None:
        self.picture.value = to_png(self.draw(**self.values))
        moved = [f"{slider.description}: {slider.value:g}" for name, slider in self.sliders.items()
                 if slider.value != self._start[name]]
        self.caption.value = "<br>".join(moved) if moved else "Move a slider."

    def _moved(self, change) -> None:
        self.redraw()

    def _back(self, button) -> None:
        # Silence the sliders, or the picture would be drawn once for each of them.
        for slider in self.sliders.values():
            slider.unobserve(self._moved, names="value")
        for name, slider in self.sliders.items():
            slider.value = self._start[name]
        for slider in self.sliders.values():
            slider.observe(self._moved, names="value")
        self.redraw()

    def show(self) -> None:
        """Show the sliders, where somebody is there to move them."""
        if someone_there():
            from IPython.display import display

            display(self.widget)


def someone_there() -> bool:
    """Whether a person sits before this kernel: JupyterLab lets a cell ask for input, papermill and nbval do not."""
    from IPython import get_ipython

    shell = get_ipython()
    return bool(getattr(getattr(shell, "kernel", None), "_allow_stdin", False))


def expression_panel(identity: int = 0, appearance: int = 0, size: int = 256,
                     faces: Mapping[str, Mapping[str, float]] = FACES) -> Panel:
    """Sliders over every action unit, gaze and head turn of one avatar.

    faces: {title: values} of the still picture above the sliders. Returns the panel, for those who go on with it.
    """
    import ipywidgets

    def slider(name: str):
        low = -1.0 if name in TURNS else 0.0
        return ipywidgets.FloatSlider(value=0.0, min=low, max=1.0, step=0.05, description=LABELS[name],
                                      readout_format=".2f", style={"description_width": "150px"},
                                      layout={"width": "330px"})

    still = grid([draw_expression(values, identity, appearance, 160) for values in faces.values()], list(faces), rows=1,
                 tile=112)
    show(still, f"The same drawn person {len(faces)} times, side by side, with these sliders moved: "
         + "; ".join(_describe(title, values) for title, values in faces.items()))
    panel = Panel(lambda **values: draw_expression(values, identity, appearance, size),
                  {name: slider(name) for name in Expression.NAMES})
    panel.show()
    return panel


def _describe(title: str, values: Mapping[str, float]) -> str:
    moved = ", ".join(LABELS[name].partition(" ")[2] if name.startswith("au") else LABELS[name] for name in values)
    return f"{title} ({moved})" if moved else title


STILLS = ({"steps": 1}, {"steps": 3}, {}, {"expression_scale": 0.0}, {"expression_scale": 3.0})


def guidance_panel(pipeline, reference, expressions: Sequence, *, seed: int = 0, most_steps: int = 50,
                   top_scale: float = 6.0, stills: Sequence[Mapping[str, float]] = STILLS) -> Panel:
    """Sliders over the number of sampling steps and both guidance scales of a `GenAffectPipeline`.

    The sliders start at the pipeline's own settings. The pipeline's progress bars are switched off: they would pile
    up under the sliders.

    reference: a picture. expressions: a few, as the pipeline takes them; each move of a slider generates them all.
    stills: the settings of the still picture's rows; what a row leaves out is the pipeline's own.
    """
    import ipywidgets

    pipeline.set_progress_bar_config(disable=True)
    start = {"steps": pipeline.config.num_inference_steps, "identity_scale": pipeline.config.identity_scale,
             "expression_scale": pipeline.config.expression_scale}

    def row(**values) -> list[Image.Image]:
        return sample_row(pipeline, reference, expressions, seed=seed, **{**start, **values})

    titles = ["reference", *(word if isinstance(word, str) else "" for word in expressions)]
    names = [_say(start | dict(values)) for values in stills]
    pictures = [picture for values in stills for picture in row(**values)]
    lines = [name.replace(", ", "\n") for name in names]
    show(grid(pictures, titles, columns=len(titles), tile=112, row_titles=lines),
         f"Rows of generated faces, the reference at the left, then {', '.join(filter(None, titles[1:]))}; "
         "one row for each setting: " + "; ".join(names))
    wide = {"style": {"description_width": "130px"}, "layout": {"width": "330px"}}
    # A picture takes seconds: it is drawn when the slider is let go, not on the way.
    panel = Panel(lambda **values: grid(row(**values), titles, rows=1, tile=112), {
        "steps": ipywidgets.IntSlider(value=start["steps"], min=1, max=most_steps, description="steps",
                                      continuous_update=False, **wide),
        **{name: ipywidgets.FloatSlider(value=start[name], min=0.0, max=top_scale, step=0.25, continuous_update=False,
                                        description=name.replace("_", " "), **wide)
           for name in ("identity_scale", "expression_scale")},
    })
    panel.show()
    return panel


def sharing_panel(pipeline, reference, expressions: Sequence, *, seed: int = 0) -> Panel:
    """Sliders over consistent attention: a set drawn one by one, and below it as the sliders say, from the same noise.

    The sliders start where `Consistency` does. reference, expressions: as for `guidance_panel`.
    """
    import ipywidgets

    from gen_affect_lib.model.consistent import Consistency

    pipeline.set_progress_bar_config(disable=True)
    start = Consistency()
    alone = sample_set(pipeline, reference, expressions, 0, seed)
    titles = ["reference", *(word if isinstance(word, str) else "" for word in expressions)]

    def sheet(**values) -> Image.Image:
        shared = sample_set(pipeline, reference, expressions, replace(start, **values), seed)
        rows = [to_image(reference), *alone, None, *shared]
        return grid(rows, titles, columns=len(titles), tile=112, row_titles=["one by one", "shared"])

    show(sheet(), f"Two rows of one person with {', '.join(filter(None, titles[1:]))}. Above, drawn one by one, in other clothes "
         "each time; below, with consistent attention as it is by default, in the same clothes before the same background.")
    wide = {"style": {"description_width": "150px"}, "layout": {"width": "330px"}}

    def slider(name: str, description: str):
        return ipywidgets.FloatSlider(value=getattr(start, name), min=0.0, max=1.0, step=0.05, continuous_update=False,
                                      description=description, **wide)

    panel = Panel(sheet, {
        "share": slider("share", "share of tokens lent"),
        "above": slider("above", "lend above sigma"),
        "anchors": ipywidgets.IntSlider(value=start.anchors or len(titles) - 1, min=1, max=len(titles) - 1,
                                        continuous_update=False, description="anchors", **wide),
        "shared_noise": slider("shared_noise", "noise in common"),
        "face_above": slider("face_above", "the face, above sigma"),
        "instead": ipywidgets.Checkbox(value=start.instead, description="in place of one's own tokens", indent=False),
    })
    panel.show()
    return panel


def _say(values: Mapping[str, float]) -> str:
    steps = f"{values['steps']:g} step" + ("" if values["steps"] == 1 else "s")
    return f"{steps}, identity scale {values['identity_scale']:g}, expression scale {values['expression_scale']:g}"

