"""Loss: Dice + cross-entropy at 60 classes, forward and backward, against nnU-Net's
`DC_and_CE_loss`.

nnU-Net leaves the 1 out of `1 - Dice`; the values are compared after adding it.
"""

import torch

from _measure import arguments, cells, extra_memory, line, race
from trivox.learning.losses.fused import dice_cross_entropy


def compare(size: int, classes: int, *, rounds: int) -> None:
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    torch.manual_seed(0)
    logits = torch.randn(1, classes, size, size, size, requires_grad=True)
    labels = torch.from_numpy(cells((size,) * 3, classes))[None]
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    criterion = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)

    def ours() -> tuple[torch.Tensor, torch.Tensor]:
        value = dice_cross_entropy(logits, labels)
        return value, torch.autograd.grad(value, logits)[0]

    def theirs() -> tuple[torch.Tensor, torch.Tensor]:
        value = criterion(logits, labels[:, None])
        return value, torch.autograd.grad(value, logits)[0]

    found = race(ours, theirs, rounds=rounds)
    values = found.our_result[0].item() - (found.their_result[0].item() + 1)
    gradient = float((found.our_result[1] - found.their_result[1]).abs().max())
    found.show(
        f"Dice + CE, {classes} classes, {size}^3",
        f"value diff {abs(values):.0e}, gradient diff {gradient:.0e}",
    )
    del found
    memory = [extra_memory(call) / 1e6 for call in (ours, theirs)]
    line(
        "  extra memory",
        *(f"{m:.0f} MB" for m in memory),
        memory[1] / memory[0],
        "peak, with the gradient",
    )


def main() -> None:
    quick = arguments(__doc__).quick
    compare(40 if quick else 64, 60, rounds=4 if quick else 8)


if __name__ == "__main__":
    main()
