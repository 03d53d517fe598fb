"""When a step's gradients are recorded as a CUDA graph, and that it changes nothing.

A pretended device has no graphs: what stands in for one computes the work again, into
the same tensors.
"""

import pytest
import torch

from pretended_gpu.test_networks import TINY, small
from training_toys import Net, Toy, make
from trivox.learning.runtime import Runtime
from trivox.learning.steps import graphs
from trivox.learning.steps.graphs import WARM_UP
from trivox.networks.registry import build_network
from trivox.preparation.batches import RawBatch


class Cubes(Toy):
    """Batches that a U-Net takes."""

    def read(self, step):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(2, 1, *TINY, generator=generator)
        labels = (images[:, 0] > 0).to(torch.int16)
        return RawBatch((images, labels), None, [], [], [])


class Recorder:
    """Records by remembering the work."""

    def __init__(self, error=None):
        self.error = error
        self.recorded = 0
        self.replayed = 0

    def __call__(self, work):
        if self.error is not None:
            raise self.error
        self.recorded += 1
        loss = work()

        def replay():
            self.replayed += 1
            loss.copy_(work())

        return replay, loss


@pytest.fixture
def recorder(monkeypatch):
    stand_in = Recorder()
    monkeypatch.setattr(graphs, "record", stand_in)
    return stand_in


def trained(folder, gpu, **settings):
    """A trainer on the device after 8 steps, with what it said."""
    lines = []
    torch.manual_seed(0)
    trainer = make(
        folder,
        network=settings.pop("network", None) or Net(),
        lines=lines,
        runtime=Runtime(gpu, "fp32"),
        **settings,
    )
    trainer.fit()
    return trainer, lines


def weights(trainer):
    return {k: v.cpu() for k, v in trainer.network.state_dict().items()}


@pytest.mark.parametrize("settings", [{}, {"micro_batch": 2, "weights_ema": 0.9}])
def test_a_recorded_training_is_the_usual_one(tmp_path, gpu, recorder, settings):
    usual, _ = trained(tmp_path / "a", gpu, **settings)
    assert recorder.recorded == 0
    fast, _ = trained(tmp_path / "b", gpu, cuda_graph=True, **settings)
    assert recorder.recorded == 1
    assert recorder.replayed == 8 - WARM_UP
    torch.testing.assert_close(weights(fast), weights(usual), rtol=0, atol=0)
    assert fast.progress.first_loss == usual.progress.first_loss


def test_dropout_differs_from_step_to_step_as_it_does_without(tmp_path, gpu, recorder):
    def network():
        torch.manual_seed(1)
        topology, _ = small("unet-tiny", TINY, 8)
        return build_network(
            "unet-tiny", topology, channels=1, outputs=2, options={"dropout": 0.5}
        )

    results = []
    for name, on in (("a", False), ("b", True)):
        trainer, _ = trained(
            tmp_path / name,
            gpu,
            network=network(),
            source=Cubes(),
            validation=False,
            cuda_graph=on,
        )
        results.append(weights(trainer))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    assert recorder.replayed > 0


def test_what_cannot_be_recorded_goes_on_as_usual_with_a_line(
    tmp_path, gpu, monkeypatch
):
    error = RuntimeError("operation not permitted when stream is capturing\nmore")
    monkeypatch.setattr(graphs, "record", Recorder(error))
    usual, _ = trained(tmp_path / "a", gpu)
    fast, lines = trained(tmp_path / "b", gpu, cuda_graph=True)
    torch.testing.assert_close(weights(fast), weights(usual), rtol=0, atol=0)
    said = [line for line in lines if "cuda_graph: not possible here" in line]
    assert len(said) == 1
    assert "more" not in said[0]


def test_memory_that_runs_out_while_recording_lowers_the_micro_batch(
    tmp_path, gpu, recorder
):
    network = Net(most=2)
    trainer, lines = trained(tmp_path, gpu, network=network, cuda_graph=True)
    assert trainer.progress.micro_batch == 2
    assert any("out of memory" in line for line in lines)
    assert recorder.replayed == 8 - WARM_UP


def test_a_batch_of_another_size_is_computed_as_usual(gpu, recorder):
    graph = graphs.StepGraph()

    def work(images, targets):
        return (images * targets).sum()

    for count in (2, 2, 2, 2, 2, 3, 2):
        images = torch.full((count, 4), 2.0, device=gpu)
        assert float(graph(work, images, images, say=print)) == 16 * count
    assert recorder.replayed == 2


def test_parts_that_thaw_are_recorded_anew(tmp_path, gpu, recorder):
    """The kernels of frozen stages compute no gradients."""
    topology, _ = small("unet-tiny", TINY, 8)
    network = build_network("unet-tiny", topology, channels=1, outputs=2)

    trained(
        tmp_path,
        gpu,
        network=network,
        source=Cubes(),
        validation=False,
        cuda_graph=True,
        freeze_encoder=0.5,
        epochs=4,
        unfreezing="at_once",
    )
    assert recorder.recorded == 2
