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
