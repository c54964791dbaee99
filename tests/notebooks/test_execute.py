"""Every notebook runs whole, from its first cell to its last, at the smallest size and without a network."""

import papermill


def test_runs_whole_at_smoke(path, folders):
    executed = papermill.execute_notebook(
        path,
        folders / path.name,
        parameters={"PROFILE": "smoke"},
        cwd=path.parent,
        kernel_name="python3",
        progress_bar=False,
    )
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code if cell.source.strip())
    errors = [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert not errors
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert pictures, "a notebook without a picture"
    assert all(output.metadata.get("image/png", {}).get("alt") for output in pictures)
    said = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "may differ by" in said, "the notebook compares its own run with the reference"
    compared = said[said.index("may differ by") :][:1500]
    # Not that all agree: where seconds limit a training, a busy machine takes fewer steps, and says so.
    assert "unknown" not in compared and "no reference" not in compared, compared
    assert "✗" not in said, said[said.index("✗") :][:500]
