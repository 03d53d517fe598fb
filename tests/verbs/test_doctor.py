from importlib.metadata import version

from trivox.verbs import doctor


def test_facts_are_those_of_this_machine():
    facts = doctor.examine_machine()
    assert facts["torch"] == version("torch")
    assert int(facts["cores"]) >= 1
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
    monkeypatch.delattr(doctor.os, "sched_getaffinity", raising=False)
    assert doctor._cores() == doctor.os.cpu_count()


class _Nowhere:
    def __init__(self, path):
        pass

    def read_text(self, **options):
        raise OSError("no /proc here")


def test_what_auto_takes_and_why_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "DRIVER", tmp_path)
    assert doctor.examine_machine()["device auto"] == "cpu: no NVIDIA GPU was found"
    card = tmp_path / "gpus" / "0000:01:00.0" / "information"
    card.parent.mkdir(parents=True)
    card.write_text("Model: \t NVIDIA H100\nIRQ: 1\n")
    (tmp_path / "version").write_text("NVRM version: 570.86\nGCC version: 12\n")
    monkeypatch.setattr(doctor, "_cuda_of_torch", lambda: None)
    facts = doctor.examine_machine()
    assert (facts["gpu"], facts["gpu driver"]) == (
        "NVIDIA H100",
        "NVRM version: 570.86",
    )
    assert facts["device auto"].startswith("cpu: there is a GPU, but this torch")
    monkeypatch.setattr(doctor, "_cuda_of_torch", lambda: "12.8")
    facts = doctor.examine_machine()
    assert facts["torch's build"] == "CUDA 12.8"
    assert facts["device auto"].startswith("cuda")
