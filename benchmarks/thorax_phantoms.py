"""What a drawn chest costs, and how hard it is: PSNR of the mean patient and of SIRT
from 2, 4 and 8 views.

The network's grid is 32^3 at 10 mm, phantoms are drawn and rendered at 64^3. PSNR:
whole volume, window [-1024, 1476]. Run: python benchmarks/thorax_phantoms.py [training
cases, default 300] [test cases, default 80]
"""

import sys
import time

import numpy as np
import torch

from trivox.datasets.phantoms.thoraxes import ThoraxSettings, thorax_phantom
from trivox.projection.attenuation import attenuation_of, hounsfield_of
from trivox.projection.iterative import sirt
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays

SETTINGS = ThoraxSettings(size=64)
COARSE = SETTINGS.grid.resized((32, 32, 32))


def normalised(hounsfield):
    return np.clip((hounsfield + 1024) / 2500, 0, 1)


def coarse(hounsfield):
    return normalised(hounsfield.reshape(32, 2, 32, 2, 32, 2).mean((1, 3, 5)))


def decibels(first, second):
    return -10 * np.log10(np.mean((first - second) ** 2))


def print_cost():
    for size in (32, 64, 128):
        settings = ThoraxSettings(size=size)
        thorax_phantom(settings, 0)
        start = time.process_time()
        for index in range(5):
            thorax_phantom(settings, index)
        print(
            f"drawn at {size}^3: {(time.process_time() - start) / 5 * 1000:.0f} CPU-ms a patient"
        )


def print_difficulty(training, test):
    mean = (
        sum(
            coarse(thorax_phantom(SETTINGS, index).hounsfield)
            for index in range(training)
        )
        / training
    )
    projector = Projector(SETTINGS.geometry, SETTINGS.grid)
    views = {count: SETTINGS.geometry.select(range(count)) for count in (2, 4, 8)}
    solvers = {count: Projector(geometry, COARSE) for count, geometry in views.items()}
    scores = {
        "mean patient": [],
        **{f"SIRT, 30 iterations, {count} views": [] for count in views},
    }
    for index in range(training, training + test):
        hounsfield = thorax_phantom(SETTINGS, index).hounsfield
        truth = coarse(hounsfield)
        scores["mean patient"].append(decibels(mean, truth))
        images = projector.project(attenuation_of(torch.from_numpy(hounsfield))[None])
        for count, geometry in views.items():
            exam = Xrays.of(images[:, :count], geometry)
            found = hounsfield_of(
                sirt(exam, solvers[count], iterations=30, momentum=False)
            )[0].numpy()
            scores[f"SIRT, 30 iterations, {count} views"].append(
                decibels(normalised(found), truth)
            )
    for name, values in scores.items():
        print(
            f"{name}: {np.mean(values):.2f} dB "
            f"(standard deviation {np.std(values):.2f}, {test} patients)"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = [int(argument) for argument in sys.argv[1:]]
    print_cost()
    print_difficulty(*(given + [300, 80][len(given) :]))
