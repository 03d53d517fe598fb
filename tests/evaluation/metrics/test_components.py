"""Connected components against SciPy's, on masks of every size, thin ones as well."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label

from trivox.evaluation.metrics.components import label_components


@given(arrays(bool, st.tuples(*[st.integers(1, 5)] * 3)))
def test_components_are_those_of_scipy(mask):
    expected, count = label(mask, np.ones((3, 3, 3)))
    numbered = label_components(mask)
    assert numbered.shape == mask.shape
    assert numbered.max() == count
    pairs = {*zip(numbered.ravel().tolist(), expected.ravel().tolist(), strict=True)}
    assert len(pairs) == len(np.unique(expected))


def test_a_line_of_single_voxels_has_as_many_components():
    mask = np.zeros((1, 1, 9), bool)
    mask[..., ::2] = True
    assert label_components(mask).tolist() == [[[1, 0, 2, 0, 3, 0, 4, 0, 5]]]


@given(arrays(bool, st.tuples(*[st.integers(1, 4)] * 3)))
def test_numbers_ascend_in_the_order_of_the_files(mask):
    """x slowest, as official packages number them."""
    in_order = label_components(mask).T.ravel()
    firsts = [np.flatnonzero(in_order == n)[0] for n in range(1, in_order.max() + 1)]
    assert firsts == sorted(firsts)
