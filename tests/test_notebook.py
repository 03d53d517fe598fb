"""examples/quickstart.ipynb runs from the first cell to the last."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install trivox[dev]")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install trivox[dev]")
pytest.importorskip("ipykernel", reason="needs ipykernel: pip install trivox[dev]")

NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"
SMALL = """
CASES = 8
OPTIONS = "--preset quick_test --network unet-tiny --patch-size 16 32 32"
LENGTH = "--epochs 2 --set iterations_per_epoch=4 --set validation_iterations=1 --set workers=0 --device cpu"
"""


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_stored_without_outputs(notebook):
    nbformat.validate(notebook)
    assert [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::RuntimeWarning"
)  # Jupyter's own
def test_every_cell_runs(notebook, tmp_path, monkeypatch):
    parameters = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(parameters) == 1
    assert all(f"\n{line.split(' = ')[0]} = " in f"\n{parameters[0].source}" for line in SMALL.split("\n") if line)
    parameters[0].source = SMALL
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "work"
    folder.mkdir()
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    for expected in (
        "ready to train",
        "Plan for scans",
        "model: run/bundle",
        "3 of 3 cases",
        "written to metrics.json",
    ):
        assert expected in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    assert (folder / "run" / "report.html").exists()
    assert len(list((folder / "predictions").glob("*.nii.gz"))) == 3
