"""Generated faces under sliders: steps and guidance scales, consistent attention, and interpolation between two people
and two emotions. Taught in notebooks 00, 07 and 09.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from gen_affect_lib.avatars import Avatar, Expression
from gen_affect_lib.display import grid, to_image
from gen_affect_lib.widgets.panel import WIDE, Panel

# Sampling takes a while: it runs when a slider is released, not while it moves.
ON_RELEASE = WIDE | {"continuous_update": False}


# --- steps and guidance ---


def sample_row(
    pipeline,
    reference,
    expressions: Sequence,
    *,
    steps: int,
    identity_scale: float,
    expression_scale: float,
    seed: int = 0,
) -> list[Image.Image]:
    """The reference, then one generated picture for each expression.

    Arguments are those of a `GenAffectPipeline`. seed: of the noise, the same for every setting, so that pictures
    differ only by the settings.
    """
    import torch

    images = pipeline(
        reference=reference,
        expressions=list(expressions),
        num_inference_steps=steps,
        identity_scale=identity_scale,
        expression_scale=expression_scale,
        generator=torch.Generator().manual_seed(seed),
    ).images
    return [to_image(reference), *images]


STILLS = ({"steps": 1}, {"steps": 3}, {}, {"expression_scale": 0.0}, {"expression_scale": 3.0})


def guidance_panel(
    pipeline,
    reference,
    expressions: Sequence,
    *,
    seed: int = 0,
    most_steps: int = 50,
    top_scale: float = 6.0,
    stills: Sequence[Mapping[str, float]] = STILLS,
) -> Panel:
    """Sliders over the number of sampling steps and both guidance scales of a `GenAffectPipeline`.

    The sliders start at the pipeline's own settings. The pipeline's progress bars are switched off.

    Args:
        reference, expressions: as for the pipeline; each move of a slider generates all expressions.
        seed: of the noise.
        most_steps, top_scale: ends of the sliders.
        stills: settings of the rows of the still picture; a setting that is left out is the pipeline's default.

    Returns the panel.
    """
    import ipywidgets

    pipeline.set_progress_bar_config(disable=True)
    start = {
        "steps": pipeline.config.num_inference_steps,
        "identity_scale": pipeline.config.identity_scale,
        "expression_scale": pipeline.config.expression_scale,
    }

    def row(**values) -> list[Image.Image]:
        return sample_row(pipeline, reference, expressions, seed=seed, **{**start, **values})

    titles = ["reference", *_titles(expressions)]
    named = ", ".join(filter(None, titles[1:]))
    names = [_say(start | dict(values)) for values in stills]
    pictures = [picture for values in stills for picture in row(**values)]
    lines = [name.replace(", ", "\n") for name in names]
    panel = Panel(
        lambda **values: grid(row(**values), titles, rows=1, tile=112),
        {
            "steps": ipywidgets.IntSlider(
                value=start["steps"], min=1, max=most_steps, description="steps", **ON_RELEASE
            ),
            **{
                name: ipywidgets.FloatSlider(
                    value=start[name],
                    min=0.0,
                    max=top_scale,
                    step=0.25,
                    description=name.replace("_", " "),
                    **ON_RELEASE,
                )
                for name in ("identity_scale", "expression_scale")
            },
        },
        lambda **values: f"The reference and generated faces, {named}: {_say(values)}.",
    )
    panel.show(
        grid(pictures, titles, columns=len(titles), tile=112, row_titles=lines),
        f"Rows of generated faces, the reference at the left, then {named}; "
        "one row for each setting: " + "; ".join(names),
    )
    return panel


def _titles(expressions: Sequence) -> list[str]:
    return [word if isinstance(word, str) else "" for word in expressions]


def _say(values: Mapping[str, float]) -> str:
    steps = f"{values['steps']:g} step" + ("" if values["steps"] == 1 else "s")
    return f"{steps}, identity scale {values['identity_scale']:g}, expression scale {values['expression_scale']:g}"


# --- a set with and without consistent attention ---


def sample_set(pipeline, reference, expressions: Sequence, consistency, seed: int = 0) -> list[Image.Image]:
    """A set with the pipeline's argument `consistency`, one picture for each expression, from the noise of the seed."""
    import torch

    return pipeline(
        reference=reference,
        expressions=list(expressions),
        consistency=consistency,
        generator=torch.Generator().manual_seed(seed),
    ).images


def sharing_panel(pipeline, reference, expressions: Sequence, *, seed: int = 0) -> Panel:
    """Sliders over consistent attention: a set of independent images, and below it one with the settings of the
    sliders.

    Both start from the same noise, and the sliders from the defaults of `Consistency`.

    Args:
        reference, expressions, seed: as for `guidance_panel`.

    Returns the panel.
    """
    import ipywidgets

    from gen_affect_lib.model.consistent import Consistency, Replace

    pipeline.set_progress_bar_config(disable=True)
    start = Consistency()
    alone = sample_set(pipeline, reference, expressions, 0, seed)
    titles = ["reference", *_titles(expressions)]
    named = ", ".join(filter(None, titles[1:]))

    def sheet(**values) -> Image.Image:
        shared = sample_set(pipeline, reference, expressions, replace(start, **values), seed)
        rows = [to_image(reference), *alone, None, *shared]
        return grid(rows, titles, columns=len(titles), tile=112, row_titles=["one by one", "shared"])

    def say(share, above, anchors, shared_noise, face_above, replace) -> str:
        return (
            f"Two rows of one person with {named}: above drawn one by one, below as a set. {anchors:g} of the images "
            f"share {share:.0%} of their tokens while sigma is at least {above:g}, those of the face while it is above "
            f"{face_above:g}. The other images replace of their own: {replace}. {shared_noise:.0%} of the noise is "
            "shared."
        )

    def slider(name: str, description: str):
        return ipywidgets.FloatSlider(
            value=getattr(start, name), min=0.0, max=1.0, step=0.05, description=description, **ON_RELEASE
        )

    panel = Panel(
        sheet,
        {
            "share": slider("share", "fraction of tokens"),
            "above": slider("above", "shared above sigma"),
            "anchors": ipywidgets.IntSlider(
                value=start.anchors or len(titles) - 1, min=1, max=len(titles) - 1, description="anchors", **ON_RELEASE
            ),
            "shared_noise": slider("shared_noise", "shared noise"),
            "face_above": slider("face_above", "the face, above sigma"),
            "replace": ipywidgets.Dropdown(
                options=[(str(option), option) for option in Replace],
                value=start.replace,
                description="replaced own tokens",
                **WIDE,
            ),
        },
        say,
    )
    panel.show(
        sheet(),
        f"Two rows of one person with {named}. Above, drawn one by one, in different clothes each time; below, "
        "with consistent attention and its defaults, in the same clothes before the same background.",
    )
    return panel


# --- between two people and two emotions ---


def between_identities(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Interpolation of two identities, each (V, E) as of `GenAffectPipeline.read_identity`: t = 0 is a, t = 1 is b.

    Embeddings lie on a sphere and are compared by their angles, so each view is interpolated on the sphere (slerp,
    Shoemake 1985). Their mean would lie inside the sphere.
    """
    lengths = [np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]  # (V, 1)
    a, b = (x / length for x, length in zip((a, b), lengths))
    angle = np.arccos(np.clip((a * b).sum(axis=1, keepdims=True), -1, 1))  # (V, 1)
    sine = np.maximum(np.sin(angle), 1e-6)
    near = angle < 1e-4  # no angle to divide by
    from_a, from_b = (np.where(near, share, np.sin(share * angle) / sine) for share in (1 - t, t))
    direction = from_a * a + from_b * b
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return (((1 - t) * lengths[0] + t * lengths[1]) * direction).astype(np.float32)


def sample_between(
    pipeline,
    identities: Sequence[np.ndarray],
    words: Sequence[str],
    person: float,
    emotions: Sequence[float],
    seed: int = 0,
) -> list[Image.Image]:
    """Generated faces between two people and two words, one for each entry of `emotions`, all from the same noise.

    Args:
        identities: two, as `pipeline.read_identity` gives them.
        words: two.
        person, emotions: positions in [0, 1] between the first and the second.
        seed: of the noise.
    """
    import torch

    first, second = map(Expression.named, words)
    vectors = [first.interpolate(second, float(t)) for t in emotions]
    return pipeline(
        reference=between_identities(identities[0], identities[1], person),
        expressions=vectors,
        consistency=0,
        generator=[torch.Generator().manual_seed(seed) for _ in vectors],
    ).images


def draw_between(
    a: Avatar, b: Avatar, words: Sequence[str], person: float, emotion: float, size: int = 224
) -> Image.Image:
    """The drawn face at the same position: identity, expression and appearance interpolated factor by factor."""
    first, second = map(Expression.named, words)
    return to_image(
        Avatar(
            a.identity.interpolate(b.identity, person),
            first.interpolate(second, emotion),
            a.appearance.interpolate(b.appearance, person),
        ).render(size)
    )


def interpolation_panel(
    pipeline, reference_a, reference_b, word_a: str, word_b: str, *, seed: int = 0, stations: int = 5
) -> Panel:
    """Two sliders: from one person to another, and from one emotion word to another.

    Identities are interpolated by `between_identities`, words by their expression vectors. Where both references are
    `Avatar`s, the ground truth from interpolated factors is drawn beside.

    Args:
        pipeline: a `GenAffectPipeline`.
        reference_a, reference_b: pictures or `Avatar`s.
        word_a, word_b: emotion words.
        seed: of the noise.
        stations: number of columns of the still picture.

    Returns the panel.
    """
    import ipywidgets

    pipeline.set_progress_bar_config(disable=True)
    references, words = (reference_a, reference_b), (word_a, word_b)
    drawn = all(isinstance(reference, Avatar) for reference in references)
    pictures = [to_image(reference) for reference in references]
    identities = [pipeline.read_identity(picture) for picture in pictures]
    truth = " and, beside it, drawn" if drawn else ""

    def row(person: float, emotion: float) -> Image.Image:
        faces = {"generated": sample_between(pipeline, identities, words, person, [emotion], seed)[0]}
        if drawn:
            faces["drawn"] = draw_between(reference_a, reference_b, words, person, emotion)
        ends = {"person A": pictures[0]}, {"person B": pictures[1]}
        faces = ends[0] | faces | ends[1]
        return grid([*faces.values()], [*faces], rows=1, tile=168)

    def say(person: float, emotion: float) -> str:
        return (
            f"Between two references: somebody {_way(person, 'person A', 'person B')}, with an expression "
            f"{_way(emotion, *words)}; generated{truth}."
        )

    def slider(description: str):
        return ipywidgets.FloatSlider(value=0.5, min=0.0, max=1.0, step=0.05, description=description, **ON_RELEASE)

    panel = Panel(row, {"person": slider("person: A to B"), "emotion": slider(f"{word_a} to {word_b}")}, say)
    people, emotions = np.linspace(0, 1, stations), (0.0, 0.5, 1.0)
    columns = [sample_between(pipeline, identities, words, float(person), emotions, seed) for person in people]
    still = grid(
        [pictures[0], *[None] * (stations - 2), pictures[1], *(face for row in zip(*columns) for face in row)],
        columns=stations,
        tile=112,
        row_titles=["references", word_a, "half-way", word_b],
    )
    panel.show(
        still,
        f"Generated faces in {stations} columns that turn from one person into another, whose references stand on "
        f"top at the left and at the right, and in three rows from {word_a} to {word_b}. Neighbours are alike.",
    )
    return panel


def _way(t: float, first: str, second: str) -> str:
    return f"as {first}" if t == 0 else f"as {second}" if t == 1 else f"{t:.0%} of the way from {first} to {second}"
