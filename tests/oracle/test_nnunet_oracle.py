"""Imported networks compute what nnU-Net's own classes compute (needs
dynamic-network-architectures).
"""

import numpy as np
import pytest
import torch

from nnunet_folder import KINDS, arch_kwargs, plans_of, write_folder
from trivox.importing.nnunet import import_nnunet
from trivox.inference.predictor import Predictor

pytestmark = pytest.mark.oracle
unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")


def their_network(kind):
    """nnU-Net's network with weights away from their initial values (norms of 1, biases
    of 0).
    """
    torch.manual_seed(3)
    name, dimension = KINDS[kind]
    arguments = arch_kwargs(kind) | {
        "conv_op": getattr(torch.nn, f"Conv{dimension}d"),
        "norm_op": getattr(torch.nn, f"InstanceNorm{dimension}d"),
        "nonlin": torch.nn.LeakyReLU,
    }
    network = getattr(unet, name)(
        input_channels=2, num_classes=3, deep_supervision=False, **arguments
    )
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_an_imported_network_equal_nnunets(kind, tmp_path):
    theirs = their_network(kind)
    weights = {"0": theirs.state_dict()}
    folder = write_folder(tmp_path / "model", weights, plans=plans_of(kind))
    bundle = import_nnunet(folder, tmp_path / "bundle", trust=True)
    predictor = Predictor.load(
        bundle.folder, device="cpu", precision="fp32", mirror=False
    )
    (engine,) = predictor.members[0].windows.engines
    imported = engine.network
    image = torch.randn(2, 2, *bundle.description.plan.patch_size)
    with torch.inference_mode():
        expected = theirs(image if image.shape[2] > 1 else image[:, :, 0])
        logits = imported(image)
    assert (logits.reshape(expected.shape) - expected).abs().max() < 1e-4
    scan = np.random.default_rng(0).normal(50, 30, (2, 12, 20, 18))
    labels = predictor.predict_array(scan, (1.5, 3.0, 1.0))
    assert labels.shape == (12, 20, 18)
