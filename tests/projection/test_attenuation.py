"""Hounsfield units and attenuation."""

import pytest
import torch

from trivox.projection.attenuation import WATER_PER_MM, attenuation_of, hounsfield_of


def test_water_and_air_are_what_defines_the_unit():
    attenuation = attenuation_of(torch.tensor([-1000.0, 0.0, 1000.0]))
    torch.testing.assert_close(
        attenuation, torch.tensor([0.0, WATER_PER_MM, 2 * WATER_PER_MM])
    )
    assert float(attenuation_of(torch.tensor(0.0), water=0.0192)) == pytest.approx(
        0.0192
    )


def test_nothing_attenuates_less_than_air_and_lungs_are_kept():
    attenuation = attenuation_of(torch.tensor([-3024.0, -1024.0, -900.0]))
    torch.testing.assert_close(
        attenuation, torch.tensor([0.0, 0.0, 0.1 * WATER_PER_MM])
    )


def test_hounsfield_units_return_from_attenuation():
    values = torch.linspace(-1000, 3000, 41, dtype=torch.float64)
    torch.testing.assert_close(hounsfield_of(attenuation_of(values)), values)
    torch.testing.assert_close(
        hounsfield_of(attenuation_of(values, water=0.022), water=0.022), values
    )
