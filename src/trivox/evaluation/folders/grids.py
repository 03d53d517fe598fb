"""The voxels on which the two label maps of a case are compared."""

from collections.abc import Iterable

from trivox.errors import DataError, GeometryError, few
from trivox.evaluation.folders.pairs import LabelPair, not_measured
from trivox.volumes.formats import label_grid, read_header
from trivox.volumes.geometry import describe_mismatch
from trivox.volumes.segmentations.parts import is_part, joined
from trivox.volumes.segmentations.segments import Grid


def shared_grid(pair: LabelPair) -> Grid:
    """The voxels that hold both label maps.

    That of the reference; of the prediction, where the reference is but a part of it;
    where segments have only the voxels that they mark, those of the case's image, else
    of the other file, else of both together. Raises `GeometryError` for plain label maps
    of which neither lies on the other's voxels.
    """
    if not pair.segmentations:
        return _of_plain(pair)
    if pair.image is not None:
        header = read_header(pair.image, choice=pair.choice)
        return Grid(header.shape, header.affine, pair.image, pair.choice)
    for file in (pair.reference, pair.prediction):
        if file not in pair.segmentations:
            return label_grid(file)
    return joined(label_grid(pair.reference), label_grid(pair.prediction))


def _of_plain(pair: LabelPair) -> Grid:
    expected = label_grid(pair.reference)
    predicted = label_grid(pair.prediction)
    if is_part(predicted.shape, predicted.affine, expected):
        return expected
    if is_part(expected.shape, expected.affine, predicted):
        return predicted
    mismatch = describe_mismatch(
        predicted.shape, predicted.affine, expected.shape, expected.affine
    )
    raise GeometryError(
        f"{pair.case}: prediction and reference do not share a grid, {mismatch}"
    )


def on_shared_grids(
    pairs: Iterable[LabelPair],
) -> tuple[list[tuple[LabelPair, Grid]], list[str]]:
    """The pairs with the voxels on which they are compared, before any is read, and
    warnings about segmentations that have none.

    Raises `GeometryError` naming every case whose plain label maps lie on different
    voxels, in whatever order.
    """
    placed = []
    warnings = []
    mismatches = []
    for pair in pairs:
        try:
            placed.append((pair, shared_grid(pair)))
        except DataError as error:
            if pair.segmentations:
                warnings.append(not_measured(pair.case, str(error)))
            else:
                mismatches.append(str(error))
    if mismatches:
        raise GeometryError(
            f"{few(mismatches, separator='; ')}; predict on the grid of the references, "
            "or resample"
        )
    return placed, warnings
