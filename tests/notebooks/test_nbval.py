"""What a notebook prints in its cells tagged nbval-check-output, it prints again."""

import os
import re
import subprocess
import sys

import nbformat
import papermill

KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def nbval(path):
    """Run pytest's nbval over one notebook: in a process of its own, for this is pytest already."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-current-env",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-q",
        str(path),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, cwd=path.parent, env=environment, capture_output=True, text=True)


def write(path, *cells):
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells), metadata=KERNEL), path)
    return path


def test_marked_cells_print_what_the_notebook_shows(path, folders):
    result = nbval(path)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed and int(passed.group(1)) >= 3, result.stdout[-2000:]


def test_a_changed_output_would_be_noticed(tmp_path):
    tags = {"tags": ["nbval-check-output"]}
    cell = nbformat.v4.new_code_cell("print(2 + 2)", execution_count=1, metadata=tags)
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="5\n")]
    result = nbval(write(tmp_path / "wrong.ipynb", cell))
    assert result.returncode == 1 and "1 failed" in result.stdout, result.stdout[-2000:]


def test_a_kernel_reaches_no_network(tmp_path):
    """The kernels of the tests above stand under the same block as the tests themselves."""
    code = (
        "import socket\ntry:\n    socket.create_connection(('192.0.2.1', 80), timeout=1)\n"
        "except OSError as error:\n    print(error)"
    )
    source = write(tmp_path / "in.ipynb", nbformat.v4.new_code_cell(code))
    done = papermill.execute_notebook(source, tmp_path / "out.ipynb", progress_bar=False)
    assert "without a network" in done.cells[0].outputs[0].text
