"""The numbers of this run beside those of a reference run.

`data/reference/results.json` contains, for each profile and notebook, a few numbers of a run by the maintainers, and
the machine that it ran on. `course run --reference` writes it; `compare_run`, near the end of a notebook, reads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from gen_affect_lib.course import read_measured
from gen_affect_lib.files import write_json
from gen_affect_lib.machine import describe_machine
from gen_affect_lib.paths import OUTPUTS, REFERENCE

RESULTS = REFERENCE / "results.json"


def load(path: Path = RESULTS) -> dict:
    """{profile: {"machine": {…}, "notebooks": {name: {quantity: number}}}}; empty if there is no file.

    Raises UserError if the file is not JSON.
    """
    return read_measured(path)


def last_run(notebook: str, profile: str) -> Path:
    """The file in which `compare_run` keeps the numbers of the last run."""
    return OUTPUTS / "results" / profile / f"{notebook}.json"


def compare_run(
    notebook: str, profile: str, measured: Mapping[str, tuple[float, float]], reference: Mapping | None = None
) -> bool:
    """Print each number of this run beside the reference; return whether all agree.

    measured: {quantity: (number, tolerance)}, the tolerance absolute. Another processor or another version of torch
    changes the last digits; after a training it changes more. reference: as from `load`, which is the default.
    """
    numbers = {quantity: float(value) for quantity, (value, _) in measured.items()}
    file = last_run(notebook, profile)
    write_json(file, numbers, indent=2)
    of_profile = (load() if reference is None else reference).get(profile, {})
    known = of_profile.get("notebooks", {}).get(notebook, {})
    width = max(map(len, measured))
    print(f"{'':{width}}  {'yours':>10}  {'reference':>10}  {'may differ by':>13}")
    agree = True
    for quantity, (_, tolerance) in measured.items():
        number = numbers[quantity]
        if quantity not in known:
            print(f"{quantity:{width}}  {number:10.4g}  {'unknown':>10}")
            continue
        near = math.isclose(number, known[quantity], rel_tol=0, abs_tol=tolerance)
        agree &= near
        sign = "✓" if near else "differs"
        print(f"{quantity:{width}}  {number:10.4g}  {known[quantity]:10.4g}  {tolerance:13.2g}  {sign}")
    if not known:
        print(f"There is no reference for `{profile}` yet, so these numbers are not compared with anything.")
    elif not agree:
        print(
            "Some numbers differ by more than they should. Did you change something above? If not, run the notebook "
            f"from its first cell. The reference was computed with torch {of_profile['machine']['torch']}."
        )
    return agree


def keep_reference(notebook: str, profile: str, path: Path = RESULTS) -> None:
    """Make the last run of a notebook the reference of its profile. Does nothing if that run compared no numbers."""
    file = last_run(notebook, profile)
    if not file.exists():
        return
    everything = load(path)
    of_profile = everything.setdefault(profile, {"machine": {}, "notebooks": {}})
    of_profile["machine"] = describe_machine()
    of_profile["notebooks"] = dict(sorted({**of_profile["notebooks"], notebook: json.loads(file.read_text())}.items()))
    write_json(path, everything, indent=2)
