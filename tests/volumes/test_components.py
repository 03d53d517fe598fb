"""Connected components of masks and labels of any shape."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from trivox.volumes.components import connected

ROW = np.array([[[True, False, True]]])
"""Of single voxels, with a hole: cc3d 4.1 refuses it."""
MASKS = arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=6))


@given(mask=MASKS)
@example(mask=ROW)
@example(mask=ROW.reshape(3, 1, 1))
def test_components_are_those_of_scipy(mask):
    numbers = connected(mask)
    expected, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert numbers.max() == count
    pairs = {*zip(numbers.ravel().tolist(), expected.ravel().tolist(), strict=True)}
    assert len(pairs) == count + (not mask.all())


@given(mask=MASKS, labels=st.integers(2, 5))
def test_a_component_lies_within_one_label(mask, labels):
    values = (np.arange(mask.size).reshape(mask.shape) % labels) * mask
    numbers = connected(values.astype(np.int16))
    for number in range(1, int(numbers.max()) + 1):
        assert len(np.unique(values[numbers == number])) == 1
    assert ((numbers > 0) == (values > 0)).all()
