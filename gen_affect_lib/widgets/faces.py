"""A drawn face with sliders for action units, gaze and head turn. Taught in notebook 01."""

from collections.abc import Mapping

from PIL import Image

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.factors import EXPRESSION_UNIT_NAMES
from gen_affect_lib.display import grid, to_image
from gen_affect_lib.errors import UserError
from gen_affect_lib.widgets.panel import WIDE, Panel

TURNS = {"gaze_x": "gaze right", "gaze_y": "gaze up", "head_yaw": "head right", "head_pitch": "head up"}
PLAIN_NAMES = {f"au{unit}": name for unit, name in EXPRESSION_UNIT_NAMES.items()} | TURNS
LABELS = {f"au{unit}": f"AU{unit} {name}" for unit, name in EXPRESSION_UNIT_NAMES.items()} | TURNS
# Examples for the still picture.
FACES = {
    "no unit": {},
    "AU1 alone": {"au1": 1.0},
    "AU4 alone": {"au4": 1.0},
    "AU12 alone": {"au12": 1.0},
    "AU6 and AU12": {"au6": 1.0, "au12": 1.0},
    "AU1, AU4, AU15": {"au1": 0.9, "au4": 0.6, "au15": 1.0},
    "AU1, 2, 5, 26": {"au1": 1.0, "au2": 1.0, "au5": 1.0, "au25": 0.8, "au26": 1.0},
}


def draw_expression(
    values: Mapping[str, float], identity: int = 0, appearance: int = 0, size: int = 256
) -> Image.Image:
    """The avatar of two seeds with these values of an expression: {"au12": 0.8, "gaze_x": -0.5, …}; others are 0.

    Raises UserError for a name that an expression does not have.
    """
    unknown = [name for name in values if name not in Expression.NAMES]
    if unknown:
        raise UserError(f"{unknown[0]!r} is no part of an expression: give some of " + ", ".join(Expression.NAMES))
    return draw_face(Expression(**values), identity, appearance, size)


def draw_face(expression: Expression, identity: int = 0, appearance: int = 0, size: int = 256) -> Image.Image:
    """The avatar of two seeds with an expression."""
    return to_image(Avatar(Identity.sample(identity), expression, Appearance.sample(appearance)).render(size))


def say_expression(values: Mapping[str, float]) -> str:
    """The values that are not 0: "AU12 lip corner puller: 0.8; gaze right: -0.5"."""
    return "; ".join(f"{LABELS[name]}: {value:g}" for name, value in values.items() if value)


def expression_panel(
    identity: int = 0, appearance: int = 0, size: int = 256, faces: Mapping[str, Mapping[str, float]] = FACES
) -> Panel:
    """Sliders for every action unit, gaze and head turn of one avatar.

    identity, appearance: seeds of the face. size: in pixels. faces: {title: values} of the still picture above the
    sliders. Returns the panel.
    """
    import ipywidgets

    def slider(name: str):
        low = -1.0 if name in TURNS else 0.0
        return ipywidgets.FloatSlider(
            value=0.0, min=low, max=1.0, step=0.05, description=LABELS[name], readout_format=".2f", **WIDE
        )

    panel = Panel(
        lambda **values: draw_expression(values, identity, appearance, size),
        {name: slider(name) for name in Expression.NAMES},
        lambda **values: f"A drawn face. {say_expression(values) or 'No unit is moved yet: move a slider'}.",
    )
    still = grid(
        [draw_expression(values, identity, appearance, 160) for values in faces.values()], list(faces), rows=1, tile=112
    )
    panel.show(
        still,
        f"The same drawn person {len(faces)} times, side by side, with these sliders moved: "
        + "; ".join(_describe(title, values) for title, values in faces.items()),
    )
    return panel


def _describe(title: str, values: Mapping[str, float]) -> str:
    moved = ", ".join(PLAIN_NAMES[name] for name in values)
    return f"{title} ({moved})" if moved else title
