import pytest
from torch import nn

from trivox.config.recipe import make_recipe
from trivox.errors import RecipeError
from trivox.learning.steps.growing import Growing


class Grid(nn.Module):
    def __init__(self):
        super().__init__()
        self.ran = []

    def run_at(self, size, fade=1.0):
        if size == 12:
            raise RecipeError("the network does not run at 12 voxels")
        self.ran.append((size, fade))


def growing(networks, **options):
    recipe = make_recipe("quick_test", {"reconstruction": options}, named="xray2ct")
    return Growing(networks, recipe)


def test_coarse_grids_share_the_first_part_and_the_full_one_has_the_rest():
    made = growing([Grid()], growth=(32, 64), growth_share=0.5)
    assert [made.at(spent)[0] for spent in (0, 0.24, 0.26, 0.49, 0.51, 1)] == [
        32,
        32,
        64,
        64,
        None,
        None,
    ]


def test_a_new_level_fades_in_and_the_first_is_there_from_the_start():
    made = growing([Grid()], growth=(32,), growth_share=0.5)
    assert made.at(0.0) == (32, 1.0)
    assert made.at(0.5) == (None, 0.0)
    assert made.at(0.525)[1] == pytest.approx(0.5)
    assert made.at(0.6) == (None, 1.0)


def test_every_network_grows_and_only_a_new_grid_is_news():
    networks = [Grid(), Grid()]
    made = growing(networks, growth=(16,), growth_share=0.5)
    for network in networks:
        network.ran.clear()
    assert [made.apply(spent) for spent in (0.0, 0.2, 0.55, 0.7)] == [
        True,
        False,
        True,
        False,
    ]
    assert networks[0].ran == networks[1].ran
    assert [size for size, _ in networks[0].ran] == [16, 16, None, None]


def test_without_growth_networks_are_left_alone():
    network = nn.Linear(1, 1)
    assert growing([network]).apply(0.3) is False


def test_a_network_of_one_grid_is_refused():
    with pytest.raises(RecipeError, match="has one grid; leave reconstruction"):
        growing([nn.Linear(1, 1)], growth=(16,))


def test_a_grid_that_a_network_cannot_run_at_is_refused_before_the_first_step():
    with pytest.raises(RecipeError, match="does not run at 12 voxels"):
        growing([Grid()], growth=(16, 12))
