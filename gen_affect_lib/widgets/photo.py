"""A photograph beside the avatar that was drawn from it, with a control for every factor. Taught in notebook 11."""

import io
from collections.abc import Mapping
from dataclasses import replace

from PIL import Image

from gen_affect_lib.avatars.factors import Choice, Hue
from gen_affect_lib.display import grid, to_image
from gen_affect_lib.errors import UserError
from gen_affect_lib.photo.reading import PhotoReading, close_up, read_photo
from gen_affect_lib.pictures import Source, open_picture
from gen_affect_lib.widgets.faces import LABELS
from gen_affect_lib.widgets.panel import WIDE, Panel, Pointing, someone_there
from gen_affect_lib.widgets.sheet import GREY_INK, Sheet
from gen_affect_lib.widgets.words import say_units

GROUPS = ("identity", "expression", "appearance")
KEY, FINE = 0.05, 0.01  # step of an arrow key; of a slider
HIGHEST_HUE = 1 - 1e-9  # a hue is below 1
SIDE, LINE = 288, 26  # pixels: of a picture, and of the line below it


def corrected(reading: PhotoReading, **values) -> PhotoReading:
    """The reading with other values of some factors, by name; their confidence becomes 1.

    Raises UserError for a name that no factor has and for a value outside its range.
    """
    unknown = [name for name in values if name not in reading.confidence]
    if unknown:
        raise UserError(f"{unknown[0]!r} is no factor: give some of " + ", ".join(reading.confidence))
    changed = {name: value for name, value in values.items() if value != factor(reading, name)}
    groups = {}
    for group in GROUPS:
        factors = getattr(reading, group)
        groups[group] = replace(factors, **{name: changed[name] for name in factors.NAMES if name in changed})
    return replace(reading, **groups, confidence=reading.confidence | dict.fromkeys(changed, 1.0))


def factor(reading: PhotoReading, name: str):
    """The value of a factor of any group."""
    return next(getattr(getattr(reading, group), name) for group in GROUPS if name in getattr(reading, group).NAMES)


def kind_of(reading: PhotoReading, name: str):
    """What values a factor of any group can have: a `Real`, `Hue` or `Choice`."""
    groups = (getattr(reading, group) for group in GROUPS)
    return next(kind for group in groups for other, kind in zip(group.NAMES, group.KINDS) if other == name)


def label_of(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def least_sure_first(reading: PhotoReading) -> list[str]:
    """The names of all factors by their confidence; those that are not read at all come last."""
    sure = reading.confidence
    return sorted(sure, key=lambda name: (sure[name] == 0, sure[name]))


def stepped(reading: PhotoReading, name: str, value, step: int):
    """The next value of a factor, or the one before: by KEY for numbers, around the circle for hues and choices."""
    kind = kind_of(reading, name)
    if isinstance(kind, Choice):
        return kind.options[(kind.options.index(value) + step) % len(kind.options)]
    if isinstance(kind, Hue):
        return round(value + KEY * step, 3) % 1.0
    return round(min(kind.high, max(kind.low, value + KEY * step)), 3)


def draw_photo(portrait: Image.Image, reading: PhotoReading, size: int = SIDE) -> Image.Image:
    """A portrait (size, size), and beside it the avatar of a reading: 2 size + 8 wide, size + LINE high."""
    sheet = Sheet(2 * size + 8, size + LINE)
    sheet.paste(portrait, 0, 0)
    sheet.paste(to_image(reading.avatar.render(size)), size + 8, 0)
    sheet.text(size / 2, size + LINE / 2, "photograph", 13, GREY_INK, "middle")
    sheet.text(1.5 * size + 8, size + LINE / 2, f"avatar: {reading.meaning.words[0]}", 13, GREY_INK, "middle")
    return sheet.image


def say_photo(reading: PhotoReading, before: PhotoReading, name: str) -> str:
    """What the panel shows: the person in shapes and colours, the expression, the selected factor, the corrections."""
    who = reading.identity
    hair = f"hair {who.hair_style}, {who.hair_color}" if reading.confidence["hair_color"] else f"a {who.hair_style}"
    sure = before.confidence[name]
    how = f"read with a confidence of {sure:.0%}" if sure else "not read from the photograph"
    differing = [other for other in reading.confidence if factor(reading, other) != factor(before, other)]
    changes = "; ".join(f"{label_of(other)} {_say(factor(reading, other))}" for other in differing)
    return (
        f"Left a photograph, right its avatar: skin {who.skin:.2f}, {hair}, glasses {who.glasses}, "
        f"facial hair {who.facial_hair}. The face shows {reading.meaning.words[0]}: {say_units(reading.expression)}. "
        f"Selected is {label_of(name)}: {_say(factor(reading, name))}, {how}. "
        + (f"Corrected: {changes}." if differing else "Nothing is corrected yet.")
    )


def _say(value) -> str:
    return value if isinstance(value, str) else f"{value:.2f}"


def on_slider(reading: PhotoReading, name: str):
    """The value of a factor as its control shows it: numbers as multiples of FINE."""
    value, kind = factor(reading, name), kind_of(reading, name)
    if isinstance(kind, Choice):
        return value
    return min(round(value / FINE) * FINE, HIGHEST_HUE if isinstance(kind, Hue) else kind.high)


def moved(reading: PhotoReading, values: Mapping) -> dict:
    """Those of the values, by name, that differ from what the controls of a reading start with.

    The browser rounds a slider's value to a multiple of its step. That is no correction.
    """

    def same(one, other) -> bool:
        return one == other or not isinstance(one, str) and abs(one - other) < FINE / 2

    return {name: value for name, value in values.items() if not same(value, on_slider(reading, name))}


class PhotoPanel(Panel):
    """The panel of `photo_panel`, whose `reading` is the reading with all corrections."""

    before: PhotoReading

    @property
    def reading(self) -> PhotoReading:
        values = {name: value for name, value in self.values.items() if name != "factor"}
        return corrected(self.before, **moved(self.before, values))


def photo_panel(photo: Source, reading: PhotoReading | None = None, size: int = SIDE) -> PhotoPanel:
    """A photograph and its avatar, with a control for every factor, to correct what was misread.

    On the picture, up and down select a factor, from the least sure to the surest, and left and right change it.

    Args:
        photo: as for `read_photo`.
        reading: of this photograph; by default it is read here.
        size: of each of the two pictures, in pixels.

    Returns the panel, whose `reading` is the corrected one.
    """
    import ipywidgets

    before = reading or read_photo(photo)
    portrait = close_up(photo, before.box).resize((size, size), Image.Resampling.LANCZOS)
    order = least_sure_first(before)

    def control(name: str):
        kind, value, label = kind_of(before, name), on_slider(before, name), label_of(name)
        if isinstance(kind, Choice):
            return ipywidgets.Dropdown(options=kind.options, value=value, description=label, **WIDE)
        low, high = (0.0, HIGHEST_HUE) if isinstance(kind, Hue) else (kind.low, kind.high)
        return ipywidgets.FloatSlider(
            value=value, min=low, max=high, step=FINE, description=label, readout_format=".2f", **WIDE
        )

    def step(dx: int, dy: int, values: Mapping) -> Mapping:
        name = values["factor"]
        if dy:
            return {"factor": order[(order.index(name) + dy) % len(order)]}
        return {name: stepped(before, name, values[name], dx)}

    def titled(name: str) -> str:
        return f"{label_of(name)}: " + (f"{before.confidence[name]:.0%}" if before.confidence[name] else "not read")

    choose = ipywidgets.Dropdown(
        options=[(titled(name), name) for name in order], value=order[0], description="how sure", **WIDE
    )
    panel = PhotoPanel(
        lambda factor, **values: draw_photo(portrait, corrected(before, **moved(before, values)), size),
        {"factor": choose, **{name: control(name) for name in before.confidence}},
        lambda factor, **values: say_photo(corrected(before, **moved(before, values)), before, factor),
        Pointing(
            lambda x, y: {},
            step,
            "Photograph and avatar. Up and down: another factor, the least sure first; left and right: change it.",
        ),
    )
    panel.before = before
    still = grid(
        [portrait, before.avatar.render(size), before.neutral.render(size)],
        ["photograph", f"avatar: {before.meaning.words[0]}", "neutral"],
        rows=1,
        tile=224,
    )
    words = say_photo(before, before, order[0]).split(" Selected is ")[0]
    panel.show(still, f"{words} Beside it the same avatar without an expression.", instead=True)
    return panel


# --- a photograph of one's own ---------------------------------------------------------------------------------------


def photo_upload():
    """A button that takes a photograph from the reader's disk into the kernel's memory. Returns an ipywidgets
    `FileUpload`; `uploaded` gives its picture."""
    import ipywidgets

    upload = ipywidgets.FileUpload(
        accept=".jpg,.jpeg,.png,.webp", description="your photograph", layout={"width": "auto"}
    )
    if someone_there():
        from IPython.display import display

        display(upload)
    else:
        print("In JupyterLab, a button to choose a photograph stands here.")
    return upload


def uploaded(upload) -> Image.Image | None:
    """The photograph that was chosen with `photo_upload`; None if none was.

    Raises UserError for a file that is no picture.
    """
    if not upload.value:
        return None
    (file,) = upload.value
    try:
        picture = Image.open(io.BytesIO(bytes(file["content"])))
    except Exception as error:  # each decoder of Pillow has errors of its own
        raise UserError(f"{file['name']} is no picture that can be read: give a JPEG or PNG") from error
    return open_picture(picture, file["name"])
