"""The projection matrix itself, sparse: what pays where one geometry serves many
products, as in iterations and training. On a CPU.
"""

import math
import warnings

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from trivox.projection.geometry import Geometry, Grid
from trivox.projection.rays import (
    Pencil,
    Rule,
    inner_voxels,
    pencils,
    require_indices,
)


class SystemMatrix:
    """A projection of volumes `(b, z, y, x)` to `(b, v, rows, columns)` and its adjoint
    as sparse products.

    Held are the matrix and its transpose in compressed rows, 8 bytes an entry each in
    float32; raises `ResourceError` above 2^31 entries.
    """

    def __init__(
        self,
        geometry: Geometry,
        grid: Grid,
        rule: Rule,
        *,
        dtype: torch.dtype,
    ) -> None:
        self.grid = grid
        self.images = (geometry.views, *geometry.detector)
        whole = pencils(geometry, grid, dtype=dtype)
        require_indices(sum(len(rays) * rays.planes * 4 for rays in whole))
        inner = inner_voxels(grid)
        none = torch.zeros(0, dtype=torch.int32)
        counts = [none]
        columns = [none]
        values = [none.to(dtype)]
        for rays in whole:
            for part in rays.parts():
                entries = _entries(part, rule, inner)
                counts.append(entries[0])
                columns.append(entries[1])
                values.append(entries[2])
        self.which = torch.cat([none.long(), *(rays.which for rays in whole)])
        ends = torch.cat(counts).cumsum(0, dtype=torch.int32)
        self.matrix = _compressed(
            torch.cat([none.new_zeros(1), ends]),
            torch.cat(columns),
            torch.cat(values),
            (len(self.which), math.prod(grid.shape)),
        )
        self.transpose = _transpose(self.matrix)

    def forward(self, volumes: Tensor) -> Tensor:
        """Line integrals of `(b, z, y, x)`."""
        images = volumes.new_zeros(len(volumes), math.prod(self.images))
        images[:, self.which] = (self.matrix @ volumes.flatten(1).T).T
        return images.view(len(volumes), *self.images)

    def adjoint(self, images: Tensor) -> Tensor:
        """Back-projection of `(b, v, rows, columns)`."""
        volumes = self.transpose @ images.flatten(1)[:, self.which].T
        return volumes.T.reshape(len(images), *self.grid.shape)


def _entries(rays: Pencil, rule: Rule, inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entries of each ray `(n,)`, their columns and their values; what reads the empty
    border is left out.
    """
    taps = rule(rays)
    values = torch.cat([weight for _, weight in taps], dim=-1)  # (n, taps * planes)
    values.mul_(rays.step[:, None])
    padded = torch.cat([place for place, _ in taps], dim=-1)
    columns = inner.index_select(0, padded.flatten()).view(values.shape)
    inside = (columns >= 0) & (values > 0)
    return inside.sum(dim=-1, dtype=torch.int32), columns[inside], values[inside]


def _compressed(
    rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]
) -> Tensor:
    with warnings.catch_warnings():
        # torch says once that its sparse tensors are in beta
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            rows, columns, values, size=shape, check_invariants=False
        )


def _transpose(matrix: Tensor) -> Tensor:
    """The transpose in compressed rows; scipy's counting sort takes a tenth of torch's
    time.
    """
    parts = (matrix.values(), matrix.col_indices(), matrix.crow_indices())
    rows, columns = matrix.shape
    by_rows = csr_array(tuple(part.numpy() for part in parts), shape=(rows, columns))
    by_columns = by_rows.tocsc()
    starts = by_columns.indptr.astype(np.int32, copy=False)
    places = by_columns.indices.astype(np.int32, copy=False)
    return _compressed(
        torch.from_numpy(starts),
        torch.from_numpy(places),
        torch.from_numpy(by_columns.data),
        (columns, rows),
    )
