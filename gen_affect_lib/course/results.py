"""The reader's own run beside the one that the kit came with.

`data/reference/results.json` holds, for each profile and notebook, a few numbers of a run by the maintainers and the machine
that it ran on. `course run --reference` writes it; `compare_run`, near the end of a notebook, reads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from gen_affect_lib.course import read_measured
from gen_affect_lib.machine import describe_machine
from gen_affect_lib.paths import OUTPUTS, REFERENCE

RESULTS = REFERENCE / "results.json"


def load(path: Path = RESULTS) -> dict:
    """{profile: {"machine": {…}, "notebooks": {name: {what: number}}}}; empty when there is no reference."""
    return read_measured(path)


def last_run(notebook: str, profile: str) -> Path:
    """Where `compare_run` leaves the numbers of the last run."""
    return OUTPUTS / "results" / profile / f"{notebook}.json"


def compare_run(
    notebook: str, profile: str, measured: Mapping[str, tuple[float, float]], reference: Mapping | None = None
) -> bool:
    """Print each number of this run beside the reference; return whether all agree.

    measured: {what: (number, how far it may be from the reference's)}. Another processor, another torch or another draw
    changes the last digits and, over a training run, more than those: the tolerances leave room for that. reference: as
    `load` gives it, by default what the kit came with.
    """
    numbers = {what: float(value) for what, (value, _) in measured.items()}
    file = last_run(notebook, profile)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(numbers, indent=2) + "\n")
    of_profile = (load() if reference is None else reference).get(profile, {})
    known = of_profile.get("notebooks", {}).get(notebook, {})
    width = max(map(len, measured))
    print(f"{'':{width}}  {'yours':>10}  {'reference':>10}  {'may differ by':>13}")
    agree = True
    for what, (_, within) in measured.items():
        if what not in known:
            print(f"{what:{width}}  {numbers[what]:10.4g}  {'unknown':>10}")
            continue
        near = math.isclose(numbers[what], known[what], rel_tol=0, abs_tol=within)
        agree &= near
        print(
            f"{what:{width}}  {numbers[what]:10.4g}  {known[what]:10.4g}  {within:13.2g}  {'✓' if near else 'differs'}"
        )
    if not known:
        print(f"There is no reference for `{profile}` yet: nothing to hold these numbers against.")
    elif not agree:
        print(
            f"Some numbers differ by more than they should. Did you change something above? If not, run the notebook from its top; "
            f"the reference is of torch {of_profile['machine']['torch']}."
        )
    return agree


def keep_reference(notebook: str, profile: str, path: Path = RESULTS) -> None:
    """Make the last run of a notebook the reference of its profile. A notebook that compared nothing is left out."""
    file = last_run(notebook, profile)
    if not file.exists():
        return
    everything = load(path)
    of_profile = everything.setdefault(profile, {"machine": {}, "notebooks": {}})
    of_profile["machine"] = describe_machine()
    of_profile["notebooks"] = dict(sorted({**of_profile["notebooks"], notebook: json.loads(file.read_text())}.items()))
    path.write_text(json.dumps(everything, indent=2) + "\n")
