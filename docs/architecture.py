"""Draw docs/architecture.svg: the layers of the library from the import contract in pyproject.toml.

python docs/architecture.py   # after a module was added, renamed or moved to another layer
"""

import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"

# From the top down: the name of a layer, its colour, and the modules on it with one line each.
FLOORS = [
    ("Entrance", "#F3E3EC", {
        "__main__": "python -m gen_affect_lib",
        "cli": "all commands and their options",
        "doctor": "will the course run on this machine?",
    }),
    ("Course", "#FBE7DA", {
        "course": "the notebooks: checks of exercises, grading, release and timings",
    }),
    ("Evaluation", "#FBF0D2", {
        "reproduce": "every stage of training, from nothing",
        "readers": "train and measure an encoder or a judge",
        "export": "the networks as ONNX files, for a browser",
        "evaluation": "judges, metrics, baselines, studies, reported figures",
        "widgets": "sliders and panels in the notebooks",
    }),
    ("Training", "#E6F2DC", {
        "fullscale": "Stable Diffusion 3.5 and real faces",
        "training": "the loop, the recipe of each network, checkpoints, logs",
    }),
    ("Pipeline", "#DDF1EC", {
        "pipeline": "reference + expressions in, a set of pictures out",
        "bench": "speed against diffusers",
        "parity": "weights to and from diffusers",
        "profiles": "smoke, laptop, gpu: all sizes",
        "photo": "a photograph to the factors of an avatar",
    }),
    ("Networks", "#DDEBF7", {
        "encoders": "identity, expression from a face",
        "model": "MM-DiT, fusion, consistent attention",
        "codec": "pictures to latents and back",
        "flow": "rectified flow: loss, samplers, guidance",
    }),
    ("World", "#E6E3F5", {
        "avatars": "identity, expression and appearance to a drawn face; the 135 words; pairs for training",
    }),
    ("Ground", "#ECECEC", {
        "tensors": "arrays to tensors and back",
        "display": "plots, grids, pictures with alt texts",
        "pictures": "open, crop and check pictures",
        "device": "CPU or GPU, seeds, processes",
        "keys": "cache keys from producer versions",
        "recipe": "settings of a training",
        "files": "atomic writes of files",
        "machine": "cores, memory, description",
        "paths": "folders: data, outputs, cache",
        "errors": "UserError: errors in one line",
    }),
]  # fmt: skip

WIDTH, LEFT, GAP, LINE = 1000, 134, 10, 16
PER_ROW = 4


def layers() -> list[list[str]]:
    """The modules of each layer of the library, from the top down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    contract = next(one for one in contracts if one["type"] == "layers" and one["containers"] == ["gen_affect_lib"])
    return [layer.replace("|", ":").replace(" ", "").split(":") for layer in contract["layers"]]


def floors() -> list[tuple[str, str, dict[str, str]]]:
    """FLOORS with the modules that exist. Raises ValueError where they contradict the order of the contract."""
    level = {module: number for number, layer in enumerate(layers()) for module in layer}
    described = {module for _, _, modules in FLOORS for module in modules}
    if missing := set(level) - described:
        raise ValueError(f"docs/architecture.py does not describe {', '.join(sorted(missing))}: add one line for each")
    found = [(name, color, {m: text for m, text in modules.items() if m in level}) for name, color, modules in FLOORS]
    for (above, _, higher), (below, _, lower) in zip(found, found[1:], strict=False):
        if max(level[m] for m in higher) >= min(level[m] for m in lower):
            raise ValueError(f"in the contract, {above} is not above {below}: move a module to another layer")
    return found


def svg() -> str:
    y, parts = 14, []
    for name, color, modules in floors():
        items = list(modules.items())
        columns = min(PER_ROW, len(items))
        rows = [items[start : start + columns] for start in range(0, len(items), columns)]
        width = (WIDTH - LEFT - 2 * GAP - (columns - 1) * GAP - 16) / columns
        lines = {module: textwrap.wrap(text, int(width / 6.4)) for module, text in items}
        heights = [26 + LINE * max(len(lines[module]) for module, _ in row) for row in rows]
        height = sum(heights) + GAP * (len(rows) + 1)
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{WIDTH - LEFT - 16}" height="{height}" rx="8" fill="{color}"/>')
        parts.append(f'<text x="{LEFT - 12}" y="{y + height / 2 + 5}" class="floor">{name}</text>')
        top = y + GAP
        for row, box in zip(rows, heights, strict=True):
            for column, (module, _) in enumerate(row):
                x = LEFT + GAP + column * (width + GAP)
                parts.append(f'<rect x="{x:.0f}" y="{top}" width="{width:.0f}" height="{box}" rx="5" class="box"/>')
                parts.append(f'<text x="{x + 9:.0f}" y="{top + 18}" class="module">{module}</text>')
                for number, line in enumerate(lines[module]):
                    place = top + 18 + LINE * (number + 1)
                    parts.append(f'<text x="{x + 9:.0f}" y="{place}" class="text">{escape(line)}</text>')
            top += box + GAP
        y += height + 12
    arrow = (
        f'<path d="M14 18 V{y - 30}" class="arrow"/><path d="M7 {y - 34} L14 {y - 20} L21 {y - 34} Z" fill="#444"/>'
        f'<text transform="translate(36 {y / 2:.0f}) rotate(-90)" class="note">imports go down only</text>'
    )
    style = (
        "text{font-family:Helvetica,Arial,sans-serif;fill:#222}.floor{font-size:15px;font-weight:bold;text-anchor:end}"
        ".module{font-size:13px;font-weight:bold;font-family:Menlo,Consolas,'DejaVu Sans Mono',monospace}"
        ".text{font-size:12px}.note{font-size:12px;text-anchor:middle}.box{fill:#fff;stroke:#999;stroke-width:.8}"
        ".arrow{stroke:#444;stroke-width:2;fill:none}"
    )
    body = "\n".join([f"<style>{style}</style>", f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>', arrow, *parts])
    label = "The layers of gen_affect_lib from the entrance down to the ground; imports go down only"
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">\n{body}\n</svg>\n'


if __name__ == "__main__":
    PICTURE.write_text(svg())
    print(PICTURE)
