from importlib.metadata import version
from types import SimpleNamespace

import pytest

from trivox.learning.runtime import make_runtime
from trivox.verbs import doctor, nvidia


def test_facts_are_those_of_this_machine():
    facts = doctor.examine_machine()
    assert facts["torch"] == version("torch")
    assert int(facts["cores"].split()[0]) >= 1
    assert facts["memory"].endswith(" GB")
    assert all(isinstance(value, str) and value for value in facts.values())


def test_missing_packages_say_how_to_install_them(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    facts = doctor.examine_machine()
    assert facts["torch"].startswith("missing: pip install")
    for package, extra in doctor.OPTIONAL.items():
        assert facts[package] == f"not installed (pip install 'trivox[{extra}]')"


def test_nothing_readable_is_no_failure(monkeypatch):
    monkeypatch.setattr(doctor, "Path", _Nowhere)
    assert doctor._cpu_bf16() == "unknown"


@pytest.mark.parametrize(("usable", "said"), [(2, "2 of 64"), (64, "64")])
def test_cores_are_those_of_the_container(monkeypatch, usable, said):
    monkeypatch.setattr(doctor, "usable_cores", lambda: usable)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 64)
    assert doctor.examine_machine()["cores"] == said


class _Nowhere:
    def __init__(self, path):
        pass

    def read_text(self, **options):
        raise OSError("no /proc here")


H200 = ("NVIDIA H200", 150e9, 9, 0)


def library(cuda=12080, gpus=(H200,), works=True):
    """NVIDIA's driver library as ctypes sees it: results go into the first argument."""

    def write(out, value):
        out._obj.value = int(value)

    def name(buffer, size, device):
        buffer.value = gpus[device][0].encode()

    def attribute(out, which, device):
        write(out, gpus[device][2 if which == nvidia.MAJOR else 3])

    return SimpleNamespace(
        cuInit=lambda flags: 0 if works else 100,
        cuDriverGetVersion=lambda out: write(out, cuda),
        cuDeviceGetCount=lambda out: write(out, len(gpus)),
        cuDeviceGet=write,
        cuDeviceGetName=name,
        cuDeviceTotalMem_v2=lambda out, device: write(out, gpus[device][1]),
        cuDeviceGetAttribute=attribute,
    )


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Changes what the machine is; returns what doctor then says."""
    monkeypatch.setattr(doctor, "_seen_by_torch", lambda: None)
    monkeypatch.setattr(nvidia, "FILES", tmp_path)

    def says(driver, *, card=True, build="CUDA 12.8"):
        file = tmp_path / "gpus" / "0000:01:00.0" / "information"
        file.parent.mkdir(parents=True, exist_ok=True)
        if card:
            file.write_text("Model: \t NVIDIA H200\nIRQ: 1\n")
            (tmp_path / "version").write_text("NVRM version: 570.86\nGCC version: 12\n")
        monkeypatch.setattr(nvidia, "optional_library", lambda names: driver)
        monkeypatch.setattr(doctor, "_build", lambda: build)
        return doctor.examine_machine()

    return says


def test_a_gpu_that_torch_can_use(machine):
    facts = machine(library())
    assert facts["gpu"] == "NVIDIA H200 (150 GB, capability 9.0)"
    assert facts["gpu driver"] == "NVRM version: 570.86; runs CUDA up to 12.8"
    assert facts["torch's build"] == "CUDA 12.8"
    said = "cuda, bf16: the driver runs what this torch is built for"
    assert facts["device auto"] == said


def test_a_gpu_under_windows_or_in_a_container_is_seen(machine):
    """There are no files of the kernel module."""
    facts = machine(library(), card=False)
    assert facts["gpu"] == "NVIDIA H200 (150 GB, capability 9.0)"
    assert facts["gpu driver"] == "runs CUDA up to 12.8"
    assert facts["device auto"].startswith("cuda, bf16")


def test_several_gpus_of_which_the_first_has_no_bf16(machine):
    gpus = (("Tesla T4", 15.8e9, 7, 5), ("NVIDIA A100", 40e9, 8, 0))
    facts = machine(library(gpus=gpus))
    assert facts["gpu"] == (
        "Tesla T4 (16 GB, capability 7.5), NVIDIA A100 (40 GB, capability 8.0)"
    )
    assert facts["device auto"].startswith("cuda, fp16")


@pytest.mark.parametrize(
    ("driver", "build", "said"),
    [
        (None, None, "there is a GPU, but this torch is built without CUDA"),
        (library(), None, "there is a GPU, but this torch is built without CUDA"),
        (None, "CUDA 12.8", "its driver's library is missing"),
        (
            library(cuda=11040),
            "CUDA 12.8",
            "the driver runs CUDA up to 11.4, and this torch is built for CUDA 12.8",
        ),
        (library(cuda=12080), "CUDA 13.0", "update the driver"),
        (library(gpus=()), "CUDA 12.8", "lets this process use none"),
        (library(works=False), "CUDA 12.8", "lets this process use none"),
    ],
)
def test_a_gpu_that_torch_cannot_use(machine, driver, build, said):
    facts = machine(driver, build=build)
    assert facts["device auto"].startswith("cpu: ")
    assert said in facts["device auto"]
    assert "NVIDIA H200" in facts["gpu"]


def test_a_driver_with_an_older_minor_version_will_do(machine):
    assert machine(library(cuda=12020))["device auto"].startswith("cuda")


def test_no_gpu_and_other_makers(machine):
    facts = machine(None, card=False)
    assert facts["gpu"] == facts["gpu driver"] == "none found"
    assert facts["device auto"] == "cpu: no NVIDIA GPU was found"
    facts = machine(None, card=False, build="ROCm 6.4")
    assert facts["device auto"].startswith("cuda, if torch sees an AMD GPU")


@pytest.mark.parametrize(
    ("line", "build"),
    [
        ("cuda: Optional[str] = '12.8'", "CUDA 12.8"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.4.1'", "ROCm 6.4.1"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = None", None),
        ("cuda = '11.8'", "CUDA 11.8"),
    ],
)
def test_the_build_of_torch_is_read_without_importing_it(
    monkeypatch, tmp_path, line, build
):
    (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{line}\n")
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: spec)
    assert doctor._build() == build


def test_auto_is_what_training_takes():
    """On the machine that runs the tests, whatever it is."""
    chosen = make_runtime("auto", "auto")
    said = doctor.examine_machine()["device auto"]
    assert said.startswith(chosen.device.type)
    if chosen.device.type == "cuda":
        assert f", {chosen.precision}:" in said
