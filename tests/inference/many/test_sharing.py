"""Cases on their way through pretended models that need no network."""

import threading
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.datasets.dataset import Case
from trivox.errors import DataError, ResourceError
from trivox.inference.many import line as line_module
from trivox.inference.many.line import Line
from trivox.inference.many.sharing import ended

STEPS = ("begin", "compute", "complete")


@pytest.fixture(scope="module", autouse=True)
def memory():
    """As much as ever, without a look at the system."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_module, "free_memory", lambda: 2**40)
        yield


@dataclass
class Model:
    """Notes what it does; `errors` are raised by (step, case), once each if `once`."""

    errors: dict = field(default_factory=dict)
    once: bool = False
    large: tuple = ()
    done: list = field(default_factory=list)
    written: list = field(default_factory=list)
    device = torch.device("cpu")

    def step(self, step, name):
        self.done.append((step, name))
        error = self.errors.get((step, name))
        if error is not None and self.once:
            del self.errors[step, name]
        if error is not None:
            raise error

    def forecast(self, case):
        return 2**62 if case.name in self.large else 0

    def begin(self, case):
        self.step("begin", case.name)
        return case.name

    def compute(self, name):
        self.step("compute", name)
        return name

    def complete(self, case, name):
        self.step("complete", name)
        return name

    def write(self, case, name):
        self.written.append(name)
        return {"output": f"{name}.nii.gz"}


def cases(count):
    return [Case(name=f"c{number}", images=()) for number in range(count)]


def through(models, count=5, *, abreast=True):
    lines = [Line(model, models[0].write) for model in models]
    return list(ended(lines, cases(count), abreast=abreast))


def names(passages):
    return [passage.case.name for passage in passages]


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(0, 9),
    lines=st.integers(1, 3),
    bad=st.sets(st.tuples(st.sampled_from(STEPS), st.integers(0, 8)), max_size=4),
    large=st.sets(st.integers(0, 8)),
)
def test_every_case_ends_once_and_only_bad_ones_fail(count, lines, bad, large):
    errors = {(step, f"c{number}"): DataError("bad") for step, number in bad}
    models = [
        Model(errors=errors, large=tuple(f"c{number}" for number in large))
        for _ in range(lines)
    ]
    passages = through(models, count)
    expected = [f"c{number}" for number in range(count)]
    assert sorted(names(passages)) == expected
    failed = {passage.case.name for passage in passages if passage.record is None}
    assert failed == {name for _, name in errors} & set(expected)
    assert sorted(models[0].written) == sorted(set(expected) - failed)
    if lines == 1 and not failed:
        assert names(passages) == expected


def test_the_next_case_is_read_and_the_last_written_while_one_is_computed():
    """Each step waits for one of another case, which only threads can answer."""
    read = [threading.Event() for _ in range(3)]
    written = threading.Event()

    class Waiting(Model):
        def begin(self, case):
            read[int(case.name[1:])].set()
            return case.name

        def compute(self, name):
            if name == "c0":
                assert read[1].wait(20)
                assert not read[2].is_set()  # one waits, no more
            if name == "c1":
                assert written.wait(20)
            return name

        def write(self, case, name):
            written.set()
            return super().write(case, name)

    passages = through([Waiting()], 3)
    assert [passage.error for passage in passages] == [None] * 3


def test_a_case_for_which_there_is_no_room_is_read_when_nothing_else_is_there():
    model = Model(large=("c1", "c2"))
    through([model], 3)
    order = [("begin", "c1"), ("compute", "c1")]
    at = model.done.index(("begin", "c1"))
    assert model.done[at - 1] == ("complete", "c0")
    assert model.done[at : at + 2] == order


def test_what_fails_beside_others_is_tried_again_alone():
    model = Model(errors={("compute", "c1"): MemoryError()}, once=True)
    passages = through([model], 3)
    assert names(passages) == ["c0", "c2", "c1"]
    assert all(passage.record is not None for passage in passages)
    assert model.done[-3:] == [(step, "c1") for step in STEPS]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("lines", [1, 2])
@pytest.mark.parametrize(
    "error", [ResourceError("No space left"), RuntimeError("a bug")]
)
def test_what_every_later_case_would_meet_ends_the_work(step, lines, error):
    models = [Model(errors={(step, "c9"): error}) for _ in range(lines)]
    lines_of_models = [Line(model, models[0].write) for model in models]
    passages = ended(lines_of_models, cases(200), abreast=True)
    finished = []
    before = threading.active_count()
    with pytest.raises(type(error)):
        finished.extend(passage.case.name for passage in passages)
    assert threading.active_count() == before
    assert "c9" not in models[0].written
    assert len(models[0].written) < 200
    if lines == 1:
        assert finished == [f"c{number}" for number in range(9)]


def test_a_line_without_threads_takes_one_case_after_the_other():
    model = Model(errors={("compute", "c1"): DataError("bad")})
    passages = through([model], 3, abreast=False)
    assert names(passages) == ["c0", "c1", "c2"]
    assert [step for step in model.done if step[1] == "c1"] == [
        ("begin", "c1"),
        ("compute", "c1"),
    ]


def test_ctrl_c_stops_reading_at_once():
    reading = threading.Event()
    left = threading.Event()

    class Slow(Model):
        def begin(self, case):
            if case.name == "c1":
                reading.set()
                try:
                    while True:
                        threading.Event().wait(0.001)
                finally:
                    left.set()
            return case.name

        def compute(self, name):
            assert reading.wait(20)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        through([Slow()], 3)
    assert left.is_set()
