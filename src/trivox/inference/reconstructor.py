"""A reconstruction model made ready: X-rays in, a volume in HU out, on the model's grid
about the isocentre.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from trivox.datasets.dataset import Case
from trivox.datasets.exams import read_exam
from trivox.errors import BundleError, DataError
from trivox.files import write_json
from trivox.inference.bundle import (
    Weights,
    bundle_content,
    checked_files,
    copy_weights,
    validated_description,
)
from trivox.learning.checkpoints import load_weights
from trivox.learning.runtime import Runtime, make_runtime
from trivox.networks.registry import build_reconstruction_network
from trivox.networks.xray2ct.model import HybridCNNViTUNet3D
from trivox.planning.volumes import VolumePlan
from trivox.preparation.exam_store import fitted_views
from trivox.projection.attenuation import attenuation_of, hounsfield_of
from trivox.projection.grids import placed
from trivox.projection.iterative import SirtStep
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays
from trivox.version import __version__
from trivox.volumes.volume import Volume

SYNTHETIC = "synthetic CT, not acquired"
"""Said of every volume that a network made."""
DENSEST = 3071
"""HU at most, as scanners store them."""


class ReconstructionDescription(BaseModel):
    """Content of a reconstruction's `bundle.json`.

    views: the numbers of views that it was trained with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    trivox_version: str = __version__
    notice: str = f"Research use only, not a medical device. Output: {SYNTHETIC}."
    task: Literal["reconstruction"] = "reconstruction"
    plan: VolumePlan
    views: tuple[int, ...]
    training: dict[str, Any] = Field(default_factory=dict)
    weights: tuple[Weights, ...] = Field(min_length=1)


def write_reconstruction_bundle(
    folder: Path,
    *,
    plan: VolumePlan,
    weights: Mapping[str, Path],
    views: Sequence[int],
    training: Mapping[str, Any],
) -> None:
    """Copy the weights (fold name -> safetensors file) and write `bundle.json` last."""
    entries = copy_weights(folder, "weights", weights)
    description = ReconstructionDescription(
        plan=plan, views=tuple(views), training=dict(training), weights=tuple(entries)
    )
    write_json(folder / "bundle.json", description.model_dump(mode="json"))


def read_reconstruction_bundle(path: Path) -> tuple[Path, ReconstructionDescription]:
    """The folder and description of the bundle at `path`, from its folder, its
    `bundle.json`, or the run that holds it.
    """
    file, content = bundle_content(path)
    if content.get("task") != "reconstruction":
        raise BundleError(
            f"{file}: a model of task {content.get('task')} makes no volumes; choose another model"
        )
    return file.parent, validated_description(ReconstructionDescription, content, file)


def reconstruction_network(plan: VolumePlan) -> HybridCNNViTUNet3D:
    """The network of a plan, without weights."""
    return build_reconstruction_network(
        plan.network,
        grid=plan.grid,
        window=plan.window,
        water_per_mm=plan.water_per_mm,
        options=plan.network_options,
        prior=plan.prior,
        prior_iterations=plan.prior_iterations,
        consistency_steps=plan.consistency_steps,
    )


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A volume in HU on the model's grid in the world of the exam.

    views: how many X-rays it was made of.
    """

    volume: Volume
    views: int
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Reconstructor:
    """Ready to reconstruct; build it with `Reconstructor.load`."""

    plan: VolumePlan
    networks: tuple[HybridCNNViTUNet3D, ...] = field(repr=False)
    runtime: Runtime
    trained_views: tuple[int, ...]
    identity: str

    @classmethod
    def load(
        cls,
        models: Path | str | Sequence[Path | str],
        *,
        device: str = "auto",
        precision: str = "auto",
    ) -> "Reconstructor":
        """Load a run or bundle; several that share a grid and a window are averaged.

        Raises `BundleError`.
        """
        paths = [models] if isinstance(models, str | Path) else list(models)
        if not paths:
            raise BundleError("no model given; name a run or bundle folder")
        read = [read_reconstruction_bundle(Path(path)) for path in paths]
        plan = read[0][1].plan
        for folder, description in read[1:]:
            if (description.plan.grid, description.plan.window) != (
                plan.grid,
                plan.window,
            ):
                raise BundleError(
                    f"{folder}: grid or window differ from {read[0][0]}: their volumes cannot be averaged"
                )
        runtime = make_runtime(device, precision)
        networks = [
            _loaded(description.plan, file, runtime)
            for folder, description in read
            for file in checked_files(folder, description.weights)
        ]
        joined = "".join(
            weights.sha256 for _, description in read for weights in description.weights
        )
        views = tuple(
            sorted({count for _, description in read for count in description.views})
        )
        return cls(
            plan,
            tuple(networks),
            runtime,
            views,
            hashlib.sha256(joined.encode()).hexdigest()[:12],
        )

    @classmethod
    def of(
        cls, plan: VolumePlan, weights: Sequence[Path], runtime: Runtime
    ) -> "Reconstructor":
        """From weights that are in no bundle yet."""
        return cls(
            plan,
            tuple(_loaded(plan, file, runtime) for file in weights),
            runtime,
            (),
            "",
        )

    @torch.inference_mode()
    def reconstruct(self, xrays: Xrays, *, consistent: bool = True) -> Tensor:
        """Volumes `(b, z, y, x)` in HU of X-rays on any detector, averaged over the
        networks.

        consistent: whether the steps towards the X-rays at the networks' ends are
        taken.
        """
        xrays, (low, high) = xrays.to(self.runtime.device), self.plan.window
        total: Tensor | float = 0.0
        for network in self.networks:
            with self.runtime.autocast():
                volume = network(xrays, consistent=consistent)
            total = total + volume[:, 0].float()
        assert isinstance(total, Tensor)
        hounsfield = total / len(self.networks) * (high - low) + low
        if consistent and self.plan.consistency_steps and xrays.views:
            hounsfield = self._nearer(hounsfield, xrays)
        return hounsfield.clamp(low, DENSEST)

    def _nearer(self, hounsfield: Tensor, xrays: Xrays) -> Tensor:
        """After the plan's last steps towards the X-rays."""
        water = self.plan.water_per_mm
        attenuation = attenuation_of(hounsfield, water=water)
        step = SirtStep(xrays, Projector(xrays.geometry, self.plan.grid))
        for _ in range(self.plan.final_steps):
            attenuation = step(attenuation).clamp(min=0)
        return hounsfield_of(attenuation, water=water)

    def predict_case(self, case: Case) -> Reconstruction:
        """The volume of an exam's views, in the world of its CT; raises `DataError` and
        its kin for views that are wrong.
        """
        started = time.monotonic()
        exam = read_exam(case)
        xrays = fitted_views(exam, self.plan, where=case.name)
        if not xrays.views:
            raise DataError(
                f"{case.name}: has no views; a volume without X-rays would be the mean of the training cases"
            )
        found = self.reconstruct(xrays)[0].cpu().numpy()
        volume = placed(
            np.rint(found).astype(np.int16), self.plan.grid, isocentre=exam.isocentre
        )
        return Reconstruction(
            volume,
            xrays.views,
            time.monotonic() - started,
            self._warnings(xrays, exam.kind),
        )

    def _warnings(self, xrays: Xrays, kind: str) -> tuple[str, ...]:
        found = [SYNTHETIC]
        if kind == "uncalibrated":
            found.append(
                "uncalibrated X-rays: the scale of HU rests on what the model believes"
            )
        if xrays.views > max(self.trained_views, default=0):
            found.append(
                f"{xrays.views} views, trained with at most {max(self.trained_views, default=0)}"
            )
        return tuple(found)


def _loaded(plan: VolumePlan, file: Path, runtime: Runtime) -> HybridCNNViTUNet3D:
    network = reconstruction_network(plan)
    try:
        network.load_state_dict(load_weights(file))
    except RuntimeError as error:
        raise BundleError(
            f"{file}: weights do not fit the plan of the bundle (made by another version?); train again"
        ) from error
    return network.to(runtime.device).eval()
