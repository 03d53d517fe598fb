"""What a trained network must do on patients it never saw, and must not be able to do
if it is deceived. Minutes.
"""

import itertools

import pytest
import torch

from trivox.datasets.exams import read_exam
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.thoraxes import ThoraxSettings, write_thoraxes
from trivox.evaluation.metrics.volumes import measure_arrays
from trivox.inference.reconstructor import Reconstructor
from trivox.preparation.exam_store import fitted_views
from trivox.projection.attenuation import attenuation_of, hounsfield_of
from trivox.projection.grids import on_grid
from trivox.projection.iterative import sirt
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest
from trivox.volumes.formats import read_volume

pytestmark = pytest.mark.slow

SETTINGS = {
    "patch_size": (32, 32, 32),
    "epochs": 8,
    "iterations_per_epoch": 50,
    "validation_iterations": 2,
    "workers": 0,
    "seed": 0,
    "reconstruction": {"view_counts": (1, 2, 2, 2, 4, 8)},
}


class Trained:
    """A network after 400 steps on 180 drawn chests, and 24 others on its grid with
    eight X-rays each.
    """

    def __init__(self, folder):
        data = write_thoraxes(
            folder / "chests", ThoraxSettings(cases=224, test_cases=24, size=64)
        )
        run_request(
            RunRequest(
                data,
                folder / "run",
                "quick_test",
                SETTINGS,
                task="reconstruction",
                device="cpu",
            )
        )
        self.model = Reconstructor.load(folder / "run", device="cpu")
        self.plan = self.model.plan
        cases = [case for case in load_dataset(data).cases if case.split == "test"]
        exams = [read_exam(case) for case in cases]
        self.views = [
            fitted_views(exam, self.plan)
            for exam, case in zip(exams, cases, strict=True)
        ]
        self.truths = [
            on_grid(read_volume(case.volume), self.plan.grid, isocentre=exam.isocentre)
            for exam, case in zip(exams, cases, strict=True)
        ]

    def psnr(self, volumes):
        """Mean in dB over the 24, whole volume, in the plan's window."""
        rows = [
            measure_arrays(volume.cpu().numpy(), wanted, window=self.plan.window)[
                "psnr_db"
            ]
            for volume, wanted in zip(volumes, self.truths, strict=True)
        ]
        return sum(rows) / len(rows)

    def network(self, exams):
        return self.psnr([self.model.reconstruct(exam)[0] for exam in exams])

    def first(self, count):
        return [exam.select(range(count)) for exam in self.views]

    def mean(self):
        low, high = self.plan.window
        return self.psnr(
            [self.model.networks[0].mean_volume * (high - low) + low] * len(self.views)
        )

    def sirt(self, exams):
        water, grid = self.plan.water_per_mm, self.plan.grid
        found = [
            sirt(exam, Projector(exam.geometry, grid), iterations=30)[0]
            for exam in exams
        ]
        return self.psnr(
            [
                hounsfield_of(volume, water=water).clamp(*self.plan.window)
                for volume in found
            ]
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("trained"))


def test_two_views_beat_the_mean_volume_by_3_db_and_sirt_by_2(trained):
    two = trained.first(2)
    found, mean, classical = trained.network(two), trained.mean(), trained.sirt(two)
    print(f"2 views {found:.2f} dB, mean volume {mean:.2f}, SIRT {classical:.2f}")
    assert found > mean + 3
    assert found > classical + 2


def test_more_views_are_worth_more_with_the_same_weights(trained):
    found = [trained.network(trained.first(count)) for count in (1, 2, 4, 8)]
    print([f"{value:.2f}" for value in found])
    assert all(more > fewer + 0.5 for fewer, more in itertools.pairwise(found))


def test_images_swapped_under_their_geometry_are_worse_than_knowing_nothing(trained):
    swapped = [
        Xrays(exam.images.flip(1), exam.geometry, exam.present)
        for exam in trained.first(2)
    ]
    found = trained.network(swapped)
    print(f"swapped {found:.2f} dB")
    assert found < trained.mean()


def test_another_patients_x_rays_give_another_patient(trained):
    two = trained.first(2)
    others = [
        Xrays(other.images, exam.geometry, exam.present)
        for exam, other in zip(two, two[1:] + two[:1], strict=True)
    ]
    found = trained.network(others)
    print(f"another patient {found:.2f} dB")
    assert found < trained.mean() + 1


def test_without_views_the_network_knows_as_much_as_the_mean_volume(trained):
    nothing = [exam.without(torch.ones_like(exam.present)) for exam in trained.first(2)]
    found = trained.network(nothing)
    print(f"no views {found:.2f} dB, mean volume {trained.mean():.2f}")
    assert abs(found - trained.mean()) < 1


def test_empty_images_do_not_beat_the_mean_volume(trained):
    blank = [
        Xrays(torch.zeros_like(exam.images), exam.geometry, exam.present)
        for exam in trained.first(2)
    ]
    found = trained.network(blank)
    print(f"empty images {found:.2f} dB")
    assert found < trained.mean()


def test_volumes_agree_with_their_x_rays_better_than_the_mean_does(trained):
    (low, high), water = trained.plan.window, trained.plan.water_per_mm
    mean = trained.model.networks[0].mean_volume[None] * (high - low) + low
    for exam in trained.first(2)[:8]:
        projector = Projector(exam.geometry, trained.plan.grid)

        def off(volume, exam=exam, projector=projector):
            return float(
                (projector.project(attenuation_of(volume, water=water)) - exam.images)
                .square()
                .mean()
                .sqrt()
            )

        assert off(trained.model.reconstruct(exam)) < 0.5 * off(mean)
