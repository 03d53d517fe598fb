"""torch.compile: the same outputs under the same names; without a compiler one clear
line.
"""

import pytest
import torch

from training_toys import Net, assert_same, make
from trivox.errors import ResourceError
from trivox.learning.steps.compiling import COMPILERS, compiled

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # torch's compiler uses what torch deprecates


@pytest.mark.slow  # 10 to 60 s of compiling
def test_a_compiled_training_equals_the_usual_one_and_keeps_its_names(tmp_path):
    usual = make(tmp_path / "a")
    fast = make(tmp_path / "b", compile=True)
    names = list(fast.network.state_dict())
    usual.fit()
    fast.fit()
    assert list(fast.network.state_dict()) == names
    assert fast.learner.forward is not fast.network
    assert_same(usual.network.state_dict(), fast.network.state_dict(), tolerance=1e-4)


def test_compiling_is_off_unless_asked_for(tmp_path):
    trainer = make(tmp_path)
    assert trainer.learner.forward is trainer.network


def test_the_training_calls_what_the_compiler_returned(tmp_path, monkeypatch):
    calls = []

    def compiler(network):
        return lambda images: calls.append(len(images)) or network(images)

    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(
        "trivox.learning.steps.compiling.shutil.which", lambda name: f"/usr/bin/{name}"
    )
    trainer = make(tmp_path, compile=True, weights_ema=0.5)
    trainer.fit()
    assert calls == [4] * 8  # every training step; the average is validated


def test_without_a_compiler_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(
        "trivox.learning.steps.compiling.shutil.which", lambda name: None
    )
    with pytest.raises(
        ResourceError,
        match=rf"C\+\+ compiler \({', '.join(COMPILERS).replace('+', '.')}\)",
    ):
        compiled(Net(), torch.device("cpu"))


def test_a_compiler_that_fails_is_no_out_of_memory(tmp_path, monkeypatch):
    """Its message may hold the word 'alloc'; halving the micro-batch would be the wrong
    answer.
    """
    from torch._dynamo.exc import TorchDynamoException

    def compiler(network):
        def fail(images):
            raise TorchDynamoException(
                "CppCompileError: allocator.h missing\nlong listing"
            )

        return fail

    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(
        "trivox.learning.steps.compiling.shutil.which", lambda name: f"/usr/bin/{name}"
    )
    trainer = make(tmp_path, compile=True)
    with pytest.raises(
        ResourceError,
        match=r"torch.compile failed \(CppCompileError: allocator.h missing\); leave",
    ):
        trainer.fit()
    assert trainer.progress.micro_batch is None
