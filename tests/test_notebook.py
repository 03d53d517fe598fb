"""The notebooks in examples/ run from the first cell to the last."""

import runpy
from itertools import chain
from pathlib import Path

import pytest

nbformat = pytest.importorskip(
    "nbformat", reason="needs nbformat: pip install trivox[dev]"
)
nbclient = pytest.importorskip(
    "nbclient", reason="needs nbclient: pip install trivox[dev]"
)
pytest.importorskip("ipykernel", reason="needs ipykernel: pip install trivox[dev]")

FOLDER = Path(__file__).parents[1] / "examples"
SHORT = (
    "--epochs 2 --set iterations_per_epoch=4 --set validation_iterations=1 "
    "--set workers=0 --device cpu"
)
TINY = "--preset quick_test --network unet-tiny"
SMALL = {
    "quickstart.ipynb": {
        "CASES": 8,
        "OPTIONS": f"{TINY} --patch-size 16 32 32",
        "LENGTH": SHORT,
    },
    "brats.ipynb": {
        "CASES": 9,
        "OPTIONS": f"--recipe brats {TINY} --patch-size 32 32 32",
        "LENGTH": SHORT,
    },
    "multitask.ipynb": {
        "CASES": 30,
        "OPTIONS": f"{TINY} --patch-size 24 48 48",
        "LENGTH": SHORT,
    },
    "reconstruction.ipynb": {
        "CASES": 9,
        "OPTIONS": "--preset quick_test --patch-size 16 16 16",
        "LENGTH": SHORT,
    },
}
PRINTED = {
    "quickstart.ipynb": (
        "ready to train",
        "Plan for scans",
        "model: run/bundle",
        "3 of 3 cases",
        "written to metrics.json",
    ),
    "brats.ipynb": (
        "ready to train",
        "'ET': (4,)",
        "Plan for brats",
        "FLAIR, mask",
        "model: run/bundle",
        "3 of 3 cases",
        "written to brats-instance.json",
        "HD95",
        "no T2: predicted with zeros",
    ),
    "multitask.ipynb": (
        "ready to train",
        "train {",
        "model: run/bundle",
        "majority answer",
        "best single hand-made feature",
        "3 of 3 cases",
        "case,class,probability_subtype0",
        "Names,Subtype",
    ),
    "reconstruction.ipynb": (
        "ready to train",
        "plan: xray2ct-tiny",
        "model: run/bundle",
        "mean training volume",
        "3 of 3 volumes",
        "written to metrics.json",
        "images swapped",
    ),
}
KINDS = {"stream", "display_data", "execute_result"}
FOLDERS = {"reconstruction.ipynb": "volumes"}
PICTURES = {
    "quickstart.ipynb": 5,
    "brats.ipynb": 4,
    "multitask.ipynb": 2,
    "reconstruction.ipynb": 3,
}


def read(name):
    return nbformat.read(FOLDER / name, as_version=4)


def is_of_parameters(cell):
    return "parameters" in cell.metadata.get("tags", [])


def test_all_notebooks_are_tested():
    assert sorted(SMALL) == sorted(path.name for path in FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("name", SMALL)
def test_what_it_gives_is_stored_as_it_was_run_last(name):
    notebook = read(name)
    nbformat.validate(notebook)
    script = runpy.run_path(str(FOLDER.parent / "scripts" / "notebooks"))
    advice = "run scripts/notebooks: the cells changed since"
    assert notebook.metadata["trivox"]["run"] == script["digest"](notebook), advice
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = list(chain.from_iterable(cell.outputs for cell in cells))
    assert {output.output_type for output in outputs} <= KINDS
    text = "".join(output.get("text", "") for output in outputs)
    for expected in PRINTED[name]:
        assert expected in text
    assert "/tmp/" not in text
    assert sum("image/png" in e.get("data", {}) for e in outputs) == PICTURES[name]


@pytest.mark.parametrize("name", SMALL)
def test_it_can_be_opened_on_a_machine_of_others(name):
    title, install, *others = read(name).cells
    for place in ("colab.research.google.com/github", "kaggle.com/kernels"):
        assert f"{place}" in title.source
    assert title.source.count(f"trivox/trivox/blob/main/examples/{name})") == 2
    assert "%pip install" in install.source
    assert any("ipyniivue" in cell.source for cell in others)


# The warnings are Jupyter's own.
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::RuntimeWarning"
)
@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_cell_runs(name, tmp_path, monkeypatch):
    notebook = read(name)
    (parameters,) = (cell for cell in notebook.cells if is_of_parameters(cell))
    lines = parameters.source.splitlines()
    assert {line.split(" = ")[0] for line in lines} == set(SMALL[name])
    smaller = [f"{key} = {value!r}" for key, value in SMALL[name].items()]
    parameters.source = "\n".join(smaller)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "work"
    folder.mkdir()
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=None, resources=resources).execute()
    outputs = []
    for cell in notebook.cells:
        outputs += cell.get("outputs", [])
    texts = [output.text for output in outputs if output.output_type == "stream"]
    printed = "".join(texts)
    for expected in PRINTED[name]:
        assert expected in printed
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == PICTURES[name]
    assert (folder / "run" / "report.html").exists()
    results = folder / FOLDERS.get(name, "predictions")
    assert len(list(results.glob("*.nii.gz"))) == 3
