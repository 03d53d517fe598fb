"""A reconstruction model made ready: X-rays in, a volume in HU out, on the model's grid
about the isocentre.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trivox.datasets.dataset import Case
from trivox.datasets.exams import read_exam
from trivox.errors import BundleError, DataError
from trivox.inference.bundle import model_paths, read_volume_bundle
from trivox.inference.descriptions import SYNTHETIC, Weights, digest_of, identity_of
from trivox.inference.engines.engine import require_finite
from trivox.inference.engines.torch import time_convolutions
from trivox.inference.members import fill_network
from trivox.inference.writing import Record, file_names, write_prediction
from trivox.learning.runtime import Runtime, make_runtime
from trivox.memory import require_memory
from trivox.networks.registry import build_volume_network
from trivox.networks.xray2ct.model import HybridCNNViTUNet3D
from trivox.planning.describe import sized
from trivox.planning.footprint import preparation_bytes, volume_bytes
from trivox.planning.volumes import VolumePlan
from trivox.preparation.exam_store import fitted_views
from trivox.projection.attenuation import attenuation_of, hounsfield_of
from trivox.projection.grids import Point, placed
from trivox.projection.iterative import SirtStep
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays
from trivox.volumes.volume import Array, Volume

DENSEST = 3071
"""HU at most, as scanners store them."""
VIEW_BYTES = 8
"""A byte of a file of views, while these are read and fitted to the model's detector."""


def volume_network(plan: VolumePlan) -> HybridCNNViTUNet3D:
    """The network of a plan, without weights."""
    return build_volume_network(
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

    def write(self, case: Case, out: Path) -> Record:
        """Write the volume into `out`; returns the record of the exam."""
        output = write_prediction(out, case.name, self.volume, {})
        return {"output": output, **self.record()}

    def record(self) -> Record:
        """What the record of the exam says beside the names of its files."""
        return {"views": self.views, "warnings": list(self.warnings)}


@dataclass(frozen=True, eq=False)
class Begun:
    """An exam that was read.

    isocentre: RAS mm; see `trivox.datasets.exams.Exam`.
    """

    xrays: Xrays
    kind: str
    isocentre: Point
    seconds: float


@dataclass(frozen=True, eq=False)
class Computed:
    """What networks made of an exam: HU `(z, y, x)` float32."""

    begun: Begun
    hounsfield: Array
    seconds: float


@dataclass(frozen=True, eq=False)
class Reconstructor:
    """Ready to reconstruct; build it with `Reconstructor.load`."""

    plan: VolumePlan
    networks: tuple[HybridCNNViTUNet3D, ...] = field(repr=False)
    runtime: Runtime
    trained_views: tuple[int, ...]
    weights: tuple[Weights, ...]
    """Files of all networks; none of networks that are in no bundle yet."""

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
        bundles = [read_volume_bundle(path) for path in model_paths(models)]
        first = bundles[0].description.plan
        for bundle in bundles[1:]:
            plan = bundle.description.plan
            if (plan.grid, plan.window) != (first.grid, first.window):
                raise BundleError(
                    f"{bundle.folder}: grid or window differ from "
                    f"{bundles[0].folder}: their volumes cannot be averaged"
                )
        runtime = make_runtime(device, precision)
        time_convolutions(runtime)
        networks: list[HybridCNNViTUNet3D] = []
        weights: list[Weights] = []
        views: set[int] = set()
        for bundle in bundles:
            description = bundle.description
            files = bundle.weight_files()
            networks += [_loaded(description.plan, file, runtime) for file in files]
            weights += description.weights
            views |= set(description.views)
        seen = tuple(sorted(views))
        return cls(first, tuple(networks), runtime, seen, tuple(weights))

    @classmethod
    def of(
        cls, plan: VolumePlan, weights: Sequence[Path], runtime: Runtime
    ) -> "Reconstructor":
        """From weights that are in no bundle yet."""
        networks = tuple(_loaded(plan, file, runtime) for file in weights)
        return cls(plan, networks, runtime, (), ())

    @property
    def identity(self) -> str:
        """A short hash over the weights; empty for those in no bundle."""
        return identity_of(self.weights)

    @torch.inference_mode()
    def reconstruct(self, xrays: Xrays, *, consistent: bool = True) -> Tensor:
        """Volumes `(b, z, y, x)` in HU of X-rays on any detector, averaged over the
        networks.

        consistent: whether the steps towards the X-rays at the networks' ends are
        taken.
        """
        xrays = xrays.to(self.runtime.device)
        low, high = self.plan.window
        total: Tensor | float = 0.0
        for network in self.networks:
            with self.runtime.autocast():
                total = total + network(xrays, consistent=consistent)[:, 0].float()
        assert isinstance(total, Tensor)
        require_finite(total)
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
        return self.complete(case, self.compute(self.begin(case)))

    # -- the steps of a case, see `trivox.inference.many` ------------------------------
    @property
    def device(self) -> torch.device:
        """Where the networks lie."""
        return self.runtime.device

    def forecast(self, case: Case) -> float:
        """Bytes of memory that an exam takes on its way."""
        files = sum(path.stat().st_size for path in case.images if path.is_file())
        return VIEW_BYTES * files + preparation_bytes(self.plan.shape, channels=1)

    def begin(self, case: Case) -> Begun:
        """Read an exam; raises as `predict_case`."""
        started = time.monotonic()
        exam = read_exam(case)
        xrays = fitted_views(exam, self.plan)
        if not xrays.views:
            raise DataError(
                f"{case.name}: has no views; a volume without X-rays would be the mean "
                "of the training cases"
            )
        seconds = time.monotonic() - started
        return Begun(xrays, exam.kind, exam.isocentre, seconds)

    def compute(self, begun: Begun) -> Computed:
        """What the networks make of an exam."""
        started = time.monotonic()
        hounsfield = self.reconstruct(begun.xrays)[0].cpu().numpy()
        return Computed(begun, hounsfield, time.monotonic() - started)

    def complete(self, case: Case, computed: Computed) -> Reconstruction:
        """The volume in the world of the exam's CT."""
        begun = computed.begun
        whole = np.rint(computed.hounsfield).astype(np.int16)
        volume = placed(whole, self.plan.grid, isocentre=begun.isocentre)
        warnings = self._warnings(begun.xrays, begun.kind)
        seconds = begun.seconds + computed.seconds
        return Reconstruction(volume, begun.xrays.views, seconds, warnings)

    def _warnings(self, xrays: Xrays, kind: str) -> tuple[str, ...]:
        """What a reader of the volume has to know."""
        warnings = [SYNTHETIC]
        if kind == "uncalibrated":
            warnings.append(
                "uncalibrated X-rays: the scale of HU rests on what the model believes"
            )
        most = max(self.trained_views, default=0)
        if xrays.views > most:
            warnings.append(f"{xrays.views} views, trained with at most {most}")
        return tuple(warnings)

    # -- many cases, see `trivox.inference.folder` -------------------------------------
    def about(self) -> dict[str, object]:
        """What `predictions.json` says of it beside its identity."""
        return {
            "task": self.plan.task,
            "notice": SYNTHETIC,
            "precision": self.runtime.precision,
            "description": digest_of([self.plan]),
        }

    def files(self, case: Case) -> list[str]:
        """Names of the files that the prediction of a case leaves."""
        return file_names(case.name)

    def tables(self) -> list[str]:
        """Nothing is written about all cases together."""
        return []

    def finish(self, records: Mapping[str, Record], out: Path) -> None:
        """Nothing is written about all cases together."""


def _loaded(plan: VolumePlan, file: Path, runtime: Runtime) -> HybridCNNViTUNet3D:
    what = f"volumes of {sized(plan.shape)} voxels"
    require_memory(volume_bytes(plan), what, "use a model of a smaller grid")
    network = volume_network(plan)
    fill_network(network, file)
    return network.to(runtime.device).eval()
