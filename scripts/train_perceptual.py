"""Train the encoder of the perceptual loss on drawn chests.

    python scripts/train_perceptual.py --out FILE.safetensors

It learns to name the tissue of every voxel, from linear read-outs of its three scales,
on phantoms with voxels of 2.5, 5 and 10 mm; the read-outs are thrown away. Prints how
well it does on phantoms that it was not trained on. About 5 CPU minutes.
"""

import argparse
import hashlib
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from trivox.datasets.phantoms.thorax_anatomy import draw_thorax
from trivox.datasets.phantoms.thorax_body import TISSUES
from trivox.files import atomic_path
from trivox.learning.losses.perceptual import WIDTHS, WINDOW, TissueEncoder
from trivox.projection.geometry import Grid

SIZE = 32
FIELD_MM = 320.0
SPACINGS = (2.5, 5.0, 10.0)
TRAINING = 0
"""First entry of the seeds of phantoms to train on."""
HELD_OUT = 1
"""First entry of the seeds of phantoms to measure on."""


class Segmenter(nn.Module):
    """The encoder with a linear read-out of each scale, summed."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TissueEncoder()
        self.readouts = nn.ModuleList(
            nn.Conv3d(width, len(TISSUES), 1) for width in WIDTHS
        )

    def forward(self, volumes: Tensor) -> Tensor:
        """Logits `(b, tissue, z, y, x)`."""
        size = volumes.shape[2:]
        fine = []
        for readout, scale in zip(self.readouts, self.encoder(volumes), strict=True):
            logits = readout(scale)
            fine.append(
                F.interpolate(logits, size=size, mode="trilinear", align_corners=False)
            )
        return torch.stack(fine).sum(0)


def phantoms(
    stream: int, start: int, count: int, *, spacing: float | None = None
) -> tuple[Tensor, Tensor]:
    """`(count, 1, 32, 32, 32)` in 0..1 of the window and tissue indices: part of a
    chest each, anywhere in it.
    """
    low, high = WINDOW
    volumes = []
    tissues = []
    for index in range(start, start + count):
        rng = np.random.default_rng([stream, index])
        step = float(rng.choice(SPACINGS)) if spacing is None else spacing
        reach = (FIELD_MM - SIZE * step) / 2
        x, y, z = rng.uniform(-reach, reach, 3).tolist()
        thorax = draw_thorax(rng, Grid((SIZE,) * 3, (step,) * 3, (x, y, z)))
        volumes.append((thorax.hounsfield - low) / (high - low))
        tissues.append(thorax.tissues)
    inputs = torch.from_numpy(np.stack(volumes)).float()[:, None]
    return inputs, torch.from_numpy(np.stack(tissues)).long()


def train(steps: int, batch: int, seed: int) -> Segmenter:
    """Cross-entropy in which rare tissues count more (by the root of their rarity),
    AdamW with one cycle.
    """
    torch.manual_seed(seed)
    model = Segmenter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2e-3, total_steps=steps
    )
    _, tissues = phantoms(TRAINING, 0, 64)
    share = torch.bincount(tissues.flatten(), minlength=len(TISSUES)) / tissues.numel()
    weights = share.clamp(min=1e-4) ** -0.5
    for step in range(steps):
        volumes, tissues = phantoms(TRAINING, step * batch, batch)
        volumes = volumes + 0.005 * torch.randn_like(volumes)  # about 12 HU of noise
        loss = F.cross_entropy(model(volumes), tissues, weight=weights)
        optimizer.zero_grad()
        loss.backward()
        # Without it a rare batch can undo hundreds of steps.
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            value = float(loss.detach())
            seconds = time.process_time()
            print(f"step {step:5d}  loss {value:.4f}  {seconds:.0f} CPU-s", flush=True)
    return model


@torch.no_grad()
def set_spreads(encoder: TissueEncoder) -> None:
    """Standard deviation of every channel over training phantoms; none may be silent."""
    for index, channels in enumerate(encoder(phantoms(TRAINING, 0, 96)[0])):
        spread = channels.transpose(0, 1).flatten(1).std(1)
        least = 0.05 * float(spread.median())
        encoder.get_buffer(f"spread{index}").copy_(spread.clamp(min=least))


@torch.no_grad()
def report(model: Segmenter, count: int = 60) -> None:
    """Voxel accuracy and Dice of every tissue on held-out phantoms, at each spacing."""
    for spacing in SPACINGS:
        volumes, tissues = phantoms(HELD_OUT, 0, count, spacing=spacing)
        answers = torch.cat([model(part).argmax(1) for part in volumes.split(12)])
        scores = []
        for index, name in enumerate(TISSUES):
            score = _dice(answers == index, tissues == index)
            scores.append(f"{name} {score:.3f}")
        accuracy = (answers == tissues).float().mean()
        commonest = tissues.flatten().mode().values
        usual = (tissues == commonest).float().mean()
        print(
            f"held out, {spacing:4.1f} mm: accuracy {accuracy:.4f} "
            f"(the commonest tissue: {usual:.3f}); Dice {'  '.join(scores)}"
        )


def _dice(answers: Tensor, truth: Tensor) -> float:
    total = int(answers.sum() + truth.sum())
    return 2 * int((answers & truth).sum()) / total if total else float("nan")


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = train(given.steps, given.batch, given.seed)
    report(model)
    set_spreads(model.encoder)
    weights = {
        name: tensor.contiguous() for name, tensor in model.encoder.state_dict().items()
    }
    with atomic_path(given.out) as temporary:
        save_file(weights, temporary)
    data = given.out.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    print(f"{given.out}: {len(data)} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
