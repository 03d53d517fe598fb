"""Counters of energy: which of them are read, and how they start anew."""

import ctypes
import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox import energy
from trivox.energy import Rapl, Zone, open_nvml, open_rapl, polled

MOST = 262_143_328_850


def write_zone(folder, place, name, counter, most=MOST):
    zone = folder / place
    zone.mkdir(parents=True)
    (zone / "name").write_text(f"{name}\n", encoding="ascii")
    (zone / "max_energy_range_uj").write_text(f"{most}\n", encoding="ascii")
    file = zone / "energy_uj"
    file.write_text(f"{counter}\n", encoding="ascii")
    return file


def test_without_counters_there_is_none(tmp_path):
    assert open_rapl(tmp_path) is None
    assert open_rapl(tmp_path / "absent") is None


def test_packages_and_their_memory_count_and_parts_and_the_platform_do_not(tmp_path):
    files = [
        write_zone(tmp_path, "intel-rapl:0", "package-0", 100),
        write_zone(tmp_path, "intel-rapl:0:0", "core", 100),
        write_zone(tmp_path, "intel-rapl:0:1", "dram", 100),
        write_zone(tmp_path, "intel-rapl:1", "package-1", 100),
        write_zone(tmp_path, "intel-rapl:2", "psys", 100),
        write_zone(tmp_path, "intel-rapl-mmio:0", "package-0", 100),
    ]
    rapl = open_rapl(tmp_path)
    for power, file in enumerate(files):
        file.write_text(f"{100 + 10**power * 1_000_000}\n", encoding="ascii")
    assert rapl.joules() == 1 + 100 + 1000


@pytest.mark.parametrize("text", ["", "no number\n", "-5\n", "\xb2\n"])
def test_a_package_that_cannot_be_read_leaves_no_counter_of_the_rest(tmp_path, text):
    write_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    file = write_zone(tmp_path, "intel-rapl:1", "package-1", 1)
    file.write_text(text, encoding="latin-1")
    assert open_rapl(tmp_path) is None
    file.unlink()
    assert open_rapl(tmp_path) is None


@settings(max_examples=15)
@given(st.integers(0, 999), st.lists(st.integers(0, 999), min_size=1, max_size=20))
def test_a_counter_that_starts_anew_loses_nothing(tmp_path_factory, first, passed):
    """As long as it is read before it has come round twice."""
    file = write_zone(tmp_path_factory.mktemp("zone"), "z", "package-0", first, 1000)
    zone = Zone(file, 1000, first)
    stands = first
    total = 0
    for step in passed:
        stands = (stands + step) % 1000
        total += step
        file.write_text(f"{stands}\n", encoding="ascii")
        assert zone.microjoules() == total


def test_a_counter_that_is_gone_stands_still(tmp_path):
    file = write_zone(tmp_path, "intel-rapl:0", "package-0", 5)
    rapl = open_rapl(tmp_path)
    file.write_text("7000005\n", encoding="ascii")
    assert rapl.joules() == 7
    file.unlink()
    assert rapl.joules() == 7


def test_a_counter_is_read_meanwhile_and_no_longer_afterwards():
    read = threading.Event()

    class Watched(Rapl):
        def joules(self):
            read.set()
            return 0.0

    with polled(Watched([]), every=1e-3):
        assert read.wait(30)
    names = [thread.name for thread in threading.enumerate()]
    assert "trivox-energy" not in names
    with polled(None):
        assert "trivox-energy" not in [t.name for t in threading.enumerate()]


class Library:
    """NVIDIA's library, as far as it is asked."""

    def __init__(self, counters, *, init=0, find=0, ask=0):
        self.counters = iter(counters)
        self.init = init
        self.find = find
        self.ask = ask
        self.names = []

    def nvmlInit_v2(self):  # noqa: N802 - its name
        return self.init

    def nvmlDeviceGetHandleByUUID(self, name, device):  # noqa: N802 - its name
        self.names.append(name)
        return self.find

    def nvmlDeviceGetTotalEnergyConsumption(self, device, value):  # noqa: N802
        pointer = ctypes.cast(value, ctypes.POINTER(ctypes.c_ulonglong))
        pointer.contents.value = next(self.counters, 0)
        return self.ask


@pytest.mark.parametrize("uuid", ["1b-2c", "GPU-1b-2c"])
def test_a_gpu_counts_in_millijoules_from_where_it_stood(uuid):
    library = Library([5_000, 8_500])
    assert math.isclose(open_nvml(uuid, library).joules(), 3.5)
    assert library.names == [b"GPU-1b-2c"]


@pytest.mark.parametrize("failing", ["init", "find", "ask"])
def test_a_gpu_without_counter_has_none(failing):
    assert open_nvml("1b", Library([1, 2], **{failing: 3})) is None


def test_without_its_library_a_gpu_has_no_counter(monkeypatch):
    monkeypatch.setattr(energy, "LIBRARIES", ("no-such-library.so",))
    assert open_nvml("1b") is None
