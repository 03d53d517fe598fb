"""trivox in the image: the installed package as a wheel, and what it needs."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import trivox
from container_inputs import brats_case, files_below
from locked_down import locked
from trivox import Predictor
from trivox.exporting.own_wheel import installed_versions, write_wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """trivox as the image has it: the wheel, installed by pip."""
    folder = tmp_path_factory.mktemp("installed")
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    options = ["--no-deps", "--no-index", "--target", str(site)]
    wheel = write_wheel(folder / "wheels")
    subprocess.run([*pip, *options, str(wheel)], check=True)
    return site


def test_wheel_holds_the_imported_package_and_what_it_needs(installed):
    source = Path(trivox.__file__).parent
    package = installed / "trivox"
    names = [name for name in files_below(source) if name.suffix != ".pyc"]
    assert [name for name in files_below(package) if name.suffix != ".pyc"] == names
    for name in names:
        assert (package / name).read_bytes() == (source / name).read_bytes()
    metadata = next(installed.glob("trivox-*.dist-info")) / "METADATA"
    assert "Requires-Dist: torch" in metadata.read_text()


def test_versions_are_those_that_run_here_without_build_labels(brats):
    import torch

    versions = installed_versions()
    assert versions["torch"] == torch.__version__.partition("+")[0]
    assert versions["numpy"] == np.__version__
    assert {"jinja2", "markupsafe"} <= set(versions)  # what is needed indirectly counts
    assert not {"pytest", "trivox", "wandb"} & set(versions)
    lines = (brats / "constraints.txt").read_text().splitlines()
    assert lines == [f"{name}=={version}" for name, version in versions.items()]


def test_packages_of_an_extra_are_needed_where_it_is_asked_for(monkeypatch):
    class Package:
        requires = (
            "numpy>=1.26",
            "pytest>=8; extra == 'dicom'",
            'mypy; python_version > "3" and extra == "track"',
        )

    monkeypatch.setattr("trivox.exporting.own_wheel._installed", Package)
    usual = {*installed_versions()}
    assert "numpy" in usual
    assert not {"pytest", "mypy"} & usual
    assert {"numpy", "pytest", "pluggy"} <= {*installed_versions("dicom")}
    assert "mypy" not in installed_versions("dicom")
    assert "mypy" in installed_versions("track")


def test_locked_container_predicts_what_trivox_predicts(
    brats, bundle, installed, tmp_path
):
    """From the wheel, as nobody, without network, nothing writable but /output: label
    maps and not a file more.
    """
    name = "BraTS-GLI-00007-000"
    images = brats_case(tmp_path / "input", name)
    out = tmp_path / "output"
    out.mkdir()
    out.chmod(0o777)
    code = (
        "import sys, runpy, os; "
        f"sys.path.insert(0, {str(installed)!r}); "
        "import trivox; "
        "print(trivox.__file__, os.getuid()); "
        f"runpy.run_path({str(brats / 'predict.py')!r}, run_name='__main__')"
    )
    python = [sys.executable, "-I", "-B", "-c", code]
    options = ["--device", "cpu", "--input", tmp_path / "input", "--output", out]
    done = locked([*python, *options], writable=out)
    assert done.returncode == 0, done.stderr
    module, user, *_ = done.stdout.split()
    assert module == str(installed / "trivox" / "__init__.py")
    assert user == "65534"
    assert [path.name for path in out.iterdir()] == [f"{name}.nii.gz"]
    written = nib.load(out / f"{name}.nii.gz")
    np.testing.assert_array_equal(written.affine, nib.load(images[0]).affine)
    labels = Predictor.load(bundle, device="cpu").predict_file(images).labels.array[0]
    assert set(np.unique(labels)) == {0, 1, 2, 4}
    expected = np.where(labels == 4, 3, labels)
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, expected)


def test_what_setuptools_carries_for_itself_is_not_installed(monkeypatch):
    import setuptools

    before = installed_versions()
    monkeypatch.syspath_prepend(str(Path(setuptools.__file__).parent / "_vendor"))
    assert installed_versions() == before
