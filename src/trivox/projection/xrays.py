"""X-ray images of a batch of exams with the geometry that they were taken in: what
reconstruction networks are given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trivox.projection.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Xrays:
    """Line integrals of attenuation and where they were taken.

    images: `(b, v, rows, columns)` float32, dimensionless (the logarithm of the
    attenuation; never scaled by an image's own range); geometry: `(v,)` shared by all
    exams, or `(b, v)`; present: `(b, v)` whether a view is there; the image of an
    absent one is zero and means nothing.
    """

    images: Tensor
    geometry: Geometry
    present: Tensor

    @classmethod
    def of(cls, images: Tensor, geometry: Geometry) -> "Xrays":
        """All views are present."""
        present = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)
        return cls(images, geometry, present)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> "Xrays":
        return Xrays(self.images[part], self.geometry.exam(part), self.present[part])

    @property
    def views(self) -> int:
        """Number of views, present or not; may be 0."""
        return int(self.images.shape[1])

    def select(self, views: Sequence[int] | Tensor) -> "Xrays":
        """Some of the views of every exam, in that order."""
        chosen = torch.as_tensor(views, dtype=torch.long, device=self.images.device)
        return Xrays(
            self.images[:, chosen],
            self.geometry.select(chosen),
            self.present[:, chosen],
        )

    def without(self, dropped: Tensor) -> "Xrays":
        """With the views in the mask `(b, v)` absent."""
        present = self.present & ~dropped
        return Xrays(self.images * present[:, :, None, None], self.geometry, present)

    def to(self, device: torch.device) -> "Xrays":
        """On another device."""
        return Xrays(
            self.images.to(device), self.geometry.to(device), self.present.to(device)
        )
