"""What resampling destroys is counted as preparation does it, and the spacing that is
suggested keeps it.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import LabelScheme
from trivox.planning.grid_rules import GridRules
from trivox.planning.spacing import resampled_shape
from trivox.planning.survival import (
    LOOKED_AT,
    LabelMap,
    count_losses,
    look_at_survival,
)
from trivox.volumes.formats import write_volume
from trivox.volumes.resampling import resize_labels
from trivox.volumes.volume import Volume, affine_from_spacing

EDGES = st.sampled_from([0.5, 0.7, 1.0, 1.5, 2.0, 4.0])
SPACINGS = st.tuples(EDGES, EDGES, EDGES)
LABELS = LabelScheme(labels={"organ": 1, "lesion": 7})


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 999),
    shape=st.tuples(*[st.integers(3, 14)] * 3),
    old=SPACINGS,
    new=SPACINGS,
)
def test_a_label_is_lost_exactly_if_no_voxel_of_it_is_left(seed, shape, old, new):
    random = np.random.default_rng(seed)
    indices = random.choice(4, shape, p=[0.9, 0.05, 0.04, 0.01]).astype(np.int16)
    losses = count_losses(LabelMap("a", indices, old), new)
    assert set(losses) == set(np.unique(indices)) - {0}
    size = resampled_shape(shape, old, new)
    coarse = GridRules().labels.coarse_axis(old, new)
    left = resize_labels(torch.from_numpy(indices), size, nearest_axis=coarse)
    for index, loss in losses.items():
        assert loss.gone == (index not in left)
        assert 0 <= loss.lost <= loss.components
    if size == shape:
        assert not any(loss.lost for loss in losses.values())


def dataset_of(folder, maps, *, affine):
    cases = []
    for number, array in enumerate(maps):
        name = f"case{number:02d}"
        file = folder / f"{name}.nii.gz"
        write_volume(file, Volume(array[None].astype(np.int16), affine))
        cases.append(Case(name=name, images=(file,), label=file))
    return Dataset(
        name="d",
        root=folder,
        layout="folders",
        channels=("image",),
        labels=LABELS,
        cases=tuple(cases),
    )


def dotted(count, value=7):
    """An organ that is a block, and lesions of one voxel."""
    array = np.zeros((20, 24, 28), int)
    array[2:8] = 1
    for place in range(count):
        array[14, 2 + 5 * place, 3 + 6 * place] = value
    return array


def test_lost_labels_are_named_with_their_cases_and_a_spacing_that_keeps_them(tmp_path):
    data = dataset_of(
        tmp_path,
        [dotted(3), dotted(2), dotted(0)],
        affine=affine_from_spacing((2.0, 0.6, 0.6)),
    )
    found = look_at_survival(data, (4.0, 1.5, 1.5), (0, 1, 2))
    (line,) = found.warnings(LABELS)
    assert "lesion is lost in 2 of 2 cases at 4 x 1.5 x 1.5 mm (case00, case01)" in line
    assert found.summary() == "keeps 3 of 8 components of labels in 3 of 3 cases"
    again = look_at_survival(data, found.suggestion, (0, 1, 2))
    assert not again.warnings(LABELS)
    assert "x".join(f"{edge:.3g}" for edge in found.suggestion) in line.replace(" ", "")


def test_components_count_where_the_label_stays(tmp_path):
    array = dotted(4)
    array[10:18, 15:, 20:] = 7
    data = dataset_of(tmp_path, [array] * 2, affine=affine_from_spacing((1.0,) * 3))
    (line,) = look_at_survival(data, (3.0, 3.0, 3.0), (0, 1, 2)).warnings(LABELS)
    assert "lesion loses" in line
    assert "components at 3 x 3 x 3 mm" in line


def test_axes_orientations_and_crops_are_those_of_preparation(tmp_path):
    """A lesion survives or not by where the crop puts it between the new voxels."""
    array = np.zeros((9, 9, 9), int)
    array[4, 4, 4] = 7
    data = dataset_of(tmp_path, [array], affine=np.diag([-1.0, 1.0, 1.0, 1.0]))
    kept = [
        not look_at_survival(
            data,
            (1.0, 1.0, 2.0),
            (0, 1, 2),
            boxes={"case00": ((0, 9), (0, 9), (0, end))},
        ).damaged
        for end in (6, 7, 8, 9)
    ]
    assert len(set(kept)) == 2


@pytest.mark.parametrize("count", [LOOKED_AT, 3 * LOOKED_AT])
def test_of_many_cases_some_are_looked_at_and_that_is_said(tmp_path, count):
    one = dataset_of(tmp_path, [dotted(1)], affine=affine_from_spacing((2.0, 0.6, 0.6)))
    cases = [one.cases[0].model_copy(update={"name": f"c{i}"}) for i in range(count)]
    many = one.model_copy(update={"cases": tuple(cases)})
    found = look_at_survival(many, (4.0, 1.5, 1.5), (0, 1, 2))
    assert found.looked_at == LOOKED_AT
    (line,) = found.warnings(LABELS)
    assert (f"{LOOKED_AT} of {count} cases were looked at" in line) == (
        count > LOOKED_AT
    )


def test_a_label_map_that_cannot_be_read_is_passed_over(tmp_path):
    data = dataset_of(tmp_path, [dotted(1)] * 2, affine=affine_from_spacing((1.0,) * 3))
    data.cases[0].label.write_bytes(b"no image")
    assert list(look_at_survival(data, (1.0,) * 3, (0, 1, 2)).losses) == ["case01"]
