"""Notebooks are run and measured, their outputs can be kept, and a failure is reported."""

import nbformat
import pytest

from gen_affect_lib.course import notebooks, timings
from gen_affect_lib.course.release import run, tables
from gen_affect_lib.errors import UserError

KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def write(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), path)
    return path


def test_seconds_and_memory_of_a_notebook_are_measured(tmp_path):
    code = "import time\nblock = bytearray(300 * 2**20)\nblock[::4096] = b'x' * len(block[::4096])\ntime.sleep(1.5)"
    source = write(tmp_path / "01_a.ipynb", "import os\nprint(os.environ['GEN_AFFECT_PROFILE'])", code)
    seconds, memory_gb = run.execute(source, tmp_path / "out.ipynb", "laptop")
    assert 1.5 < seconds < 120
    assert 0.3 < memory_gb < 1.5  # the block and the kernel itself
    assert nbformat.read(tmp_path / "out.ipynb", 4).cells[0].outputs[0].text == "laptop\n"


def test_a_failing_notebook_is_named_with_its_error(tmp_path):
    source = write(tmp_path / "01_a.ipynb", "raise RuntimeError('the lamp is out')")
    with pytest.raises(UserError, match=r"01_a.ipynb failed at smoke: RuntimeError: the lamp is out \(see .*\.log\)"):
        run.execute(source, tmp_path / "out.ipynb", "smoke")


def test_the_course_records_each_notebook_and_can_keep_the_outputs(tmp_path, monkeypatch, capsys):
    source = write(tmp_path / "01_a.ipynb", "print('seen')")
    recorded = []
    monkeypatch.setattr(run, "notebooks", lambda only: [source])
    monkeypatch.setattr(timings, "record", lambda *measurement: recorded.append(measurement))
    monkeypatch.setattr(tables, "refresh", lambda: ["README.md"])
    run.run_course("smoke", in_place=True, out=tmp_path / "out")
    ((profile, name, seconds, memory_gb),) = recorded
    assert (profile, name) == ("smoke", "01_a") and seconds > 0 and memory_gb > 0
    kept = nbformat.read(source, 4)
    assert kept.cells[0].outputs[0].text == "seen\n"
    assert kept.metadata == KERNEL and "papermill" not in kept.cells[0].metadata
    assert "README.md" in capsys.readouterr().out


def test_notebooks_are_chosen_by_number_or_name(tmp_path, monkeypatch):
    for name in ("00_quickstart", "03_mmdit", "08_training"):
        write(tmp_path / f"{name}.ipynb", "1")
    (tmp_path / "notes.ipynb").write_text("")
    monkeypatch.setattr("gen_affect_lib.course.NOTEBOOKS", tmp_path)
    assert [path.stem for path in notebooks()] == ["00_quickstart", "03_mmdit", "08_training"]
    assert [path.stem for path in notebooks("8,00_quickstart.ipynb,08")] == ["00_quickstart", "08_training"]
    with pytest.raises(UserError, match="there is no notebook '5'"):
        notebooks("5")


def test_progress_bars_are_not_kept(tmp_path):
    """A bar in a widget is saved in its first state, at 0 %."""
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}}
    bars = ["Loading weights:   0%|          | 0/72 [00:00<?, ?it/s]", "Identity: 0step [00:00, ?step/s]"]
    outputs = [nbformat.v4.new_output("display_data", {**widget, "text/plain": bar}) for bar in bars]
    outputs.append(nbformat.v4.new_output("stream", name="stderr", text="  0%|"))
    outputs.append(nbformat.v4.new_output("display_data", {**widget, "text/plain": "a panel of sliders"}))
    source = write(tmp_path / "a.ipynb", "1")
    executed = nbformat.read(source, 4)
    executed.cells[0].outputs = outputs
    nbformat.write(executed, tmp_path / "b.ipynb")
    run.keep_outputs(tmp_path / "b.ipynb", source)
    assert [output.data["text/plain"] for output in nbformat.read(source, 4).cells[0].outputs] == ["a panel of sliders"]
