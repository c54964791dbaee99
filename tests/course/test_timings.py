"""Measured times are kept in one file, with the machine that they were measured on."""

import json

import pytest

from gen_affect_lib.course import timings
from gen_affect_lib.errors import UserError
from gen_affect_lib.profiles import PROFILES
from tests.course.examples import KNOWN, MACHINE


def test_the_sizes_are_the_profiles():
    assert timings.SIZES == tuple(PROFILES)


def test_a_measurement_is_kept_with_its_machine(tmp_path):
    file = tmp_path / "new" / "timings.json"
    timings.record("laptop", "02_b", 12.345, 0.5, file)
    timings.record("smoke", "01_a", 3.0, 0.256, file)
    timings.record("laptop", "01_a", 1.0, 0.1, file)
    kept = json.loads(file.read_text())
    assert list(kept) == ["smoke", "laptop"] and list(kept["laptop"]["notebooks"]) == ["01_a", "02_b"]
    assert kept["laptop"]["notebooks"]["02_b"] == {"seconds": 12.3, "memory_gb": 0.5}
    assert kept["smoke"]["machine"] == timings.describe_machine()


def test_figures_of_two_machines_are_not_mixed(tmp_path):
    file = tmp_path / "timings.json"
    file.write_text(json.dumps(KNOWN))
    kept = timings.record("smoke", "02_b", 5.0, 1.0, file)
    assert kept["smoke"]["notebooks"] == {"02_b": {"seconds": 5.0, "memory_gb": 1.0}}


def test_the_machine_is_described_in_full():
    assert set(timings.describe_machine()) == set(MACHINE)


@pytest.mark.parametrize(
    "seconds, words", [(0.4, "0 s"), (31.2, "31 s"), (99.4, "99 s"), (190, "3 min"), (3540, "59 min")]
)
def test_seconds_are_formatted_briefly(seconds, words):
    assert timings.format_seconds(seconds) == words


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "timings.json").write_text("{")
    with pytest.raises(UserError, match="timings.json is not valid JSON"):
        timings.load(tmp_path / "timings.json")
