"""`trivox doctor` where torch sees a GPU, and a driver's library of its own kind."""

import subprocess

import pytest
import torch

from trivox.learning.runtime import make_runtime
from trivox.verbs import doctor, nvidia

DRIVER = r"""
#include <cstring>
extern "C" {
int cuInit(unsigned flags) { return flags; }
int cuDriverGetVersion(int* out) { *out = 12090; return 0; }
int cuDeviceGetCount(int* out) { *out = 2; return 0; }
int cuDeviceGet(int* out, int index) { *out = 40 + index; return 0; }
int cuDeviceGetName(char* out, int size, int device) {
  return std::strncpy(out, device == 41 ? "Second" : "First", size) == nullptr;
}
int cuDeviceTotalMem_v2(size_t* out, int device) { *out = 150'000'000'000 + device; return 0; }
int cuDeviceGetAttribute(int* out, int which, int device) {
  *out = which == 75 ? 9 : device - 40;
  return 0;
}
}
"""


@pytest.mark.parametrize("kind", ["H100", "T4"])
def test_it_says_what_auto_takes(gpu, kind):
    from pretended_gpu import device

    device.pretend(getattr(device, kind))
    try:
        chosen = make_runtime("auto", "auto")
        facts = doctor.examine_machine()
    finally:
        device.pretend()
        torch.cuda.set_device(0)
    assert chosen.device.type == "cuda"
    expected = f"cuda, {chosen.precision}: torch sees the GPU"
    assert facts["device auto"] == expected
    assert facts["gpu"].count("Pretended GPU") == 2


def test_a_library_is_asked_as_nvidia_documents_it(tmp_path, monkeypatch):
    source = tmp_path / "driver.cpp"
    source.write_text(DRIVER)
    library = tmp_path / "libdriver.so"
    subprocess.run(["g++", "-shared", "-fPIC", source, "-o", library], check=True)
    monkeypatch.setattr(nvidia, "LIBRARIES", ("libmissing.so.1", str(library)))
    monkeypatch.setattr(nvidia, "FILES", tmp_path)
    driver = nvidia.ask_driver()
    assert driver.answers
    assert driver.cuda == (12, 9)
    first = nvidia.Gpu("First", 150_000_000_040, (9, 0))
    second = nvidia.Gpu("Second", 150_000_000_041, (9, 1))
    assert driver.gpus == (first, second)
    assert driver.cards == ()
