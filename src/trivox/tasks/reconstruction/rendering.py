"""Rendering X-rays of CTs, as training data or to try a reconstruction on: what `trivox
drr` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from zlib import crc32

import torch

from trivox.config.choices import ViewFormat
from trivox.datasets.dataset import NOTE
from trivox.datasets.dicom_folders import is_dicom_file, is_dicom_folder
from trivox.datasets.exams import write_exam
from trivox.datasets.layouts.exams import PATIENTS, VOLUME, exam_folders
from trivox.datasets.listing import (
    image_stem,
    is_image_file,
    list_images,
)
from trivox.errors import DataError, FormatError, RecipeError, TrivoxError
from trivox.evaluation.report.exam_preview import exam_preview
from trivox.files import write_text
from trivox.locks import claimed
from trivox.projection.geometry import SDD_MM, SOD_MM, Geometry
from trivox.projection.geometry_files import record_of
from trivox.projection.grids import Point, middle_of
from trivox.projection.noise import add_noise
from trivox.projection.rendering import (
    body_points,
    doubt_about,
    pixel_to_show,
    render,
    share_outside,
)
from trivox.tasks.console import Console
from trivox.tasks.reconstruction.planning import TASK
from trivox.tasks.reconstruction.rendered import (
    RENDERED,
    claim_exam,
    require_rendered,
)
from trivox.volumes.choice import NO_CHOICE, SeriesChoice
from trivox.volumes.formats import read_volume
from trivox.volumes.volume import Volume

MOST_PHOTONS = 1e12
"""A pixel; of more, the noise is smaller than rounding."""
NOTICEABLE = 0.001
"""Share of the body beyond the detector from which a view counts as truncated."""


@dataclass(frozen=True)
class DrrRequest:
    """What `trivox drr` was asked for.

    inputs: CTs (NIfTI, NRRD, MetaImage, DICOM folders), folders of them, or X-ray
    datasets whose CTs are rendered anew. angles, secondary: degrees, one secondary for
    all views or one for each; detector: pixels along an edge; pixel_mm: None: each
    patient fits; photons: unattenuated ones a pixel, for Poisson noise; isocentre: RAS
    mm, None: each CT's middle.
    """

    inputs: tuple[Path, ...]
    out: Path
    angles: tuple[float, ...] = (0.0, 90.0)
    secondary: tuple[float, ...] = (0.0,)
    detector: int = 256
    pixel_mm: float | None = None
    sod: float = SOD_MM
    sdd: float = SDD_MM
    photons: float | None = None
    isocentre: Point | None = None
    view_format: ViewFormat = "npz"
    seed: int = 0
    choice: SeriesChoice = NO_CHOICE

    def geometry(self, pixel_mm: float) -> Geometry:
        """The views; raises `GeometryError` for impossible ones."""
        tilts = self.secondary
        if len(tilts) == 1:
            tilts = tilts * len(self.angles)
        return Geometry.orbit(
            self.angles,
            detector=(self.detector, self.detector),
            pixel_mm=pixel_mm,
            sod=self.sod,
            sdd=self.sdd,
            secondary=tilts,
        )


@dataclass(frozen=True)
class RenderedExams:
    """A dataset of X-rays, and the folders of its exams.

    failed: a line for each CT that could not be rendered.
    """

    folder: Path
    exams: tuple[Path, ...]
    views: int
    failed: tuple[str, ...] = ()
    task: str = TASK

    def require_all(self) -> None:
        """Raise `DataError` if a CT could not be rendered."""
        if not self.failed:
            return
        scans = len(self.exams) + len(self.failed)
        count = f" ({len(self.failed)} of {scans} CTs could not be rendered)"
        message = self.failed[0] + count if scans > 1 else self.failed[0]
        raise DataError(message).with_result(self)


def render_exams(request: DrrRequest, console: Console) -> RenderedExams:
    """Render each CT into `OUT/patients/NAME`.

    A CT that cannot be rendered is named and passed over; then `DataError` is raised at
    the end. Wrong settings raise `RecipeError` or `GeometryError` before anything is
    written. Exams are written whole or not at all, so that what was done before an
    interruption stays.
    """
    _require_possible(request)
    scans = find_scans(request.inputs)
    note = _note(request.inputs)
    require_rendered(request.out, scans)
    with claimed(request.out, "drr", scans.keys(), say=console.say):
        done, failed = _render_all(request, scans, note, console)
    for line in failed[1:]:
        console.say(f"error: {line}")
    views = len(request.angles)
    rendered = RenderedExams(request.out, tuple(done), views, tuple(failed))
    rendered.require_all()
    return rendered


def _render_all(
    request: DrrRequest, scans: Mapping[str, Path], note: str, console: Console
) -> tuple[list[Path], list[str]]:
    """Folders of what was rendered, and what is wrong with the others."""
    done = []
    failed = []
    for name, path in console.track(scans.items(), len(scans), "rendering"):
        try:
            done.append(_render_exam(request, name, path, console))
            write_text(request.out / NOTE, note)
        except TrivoxError as error:
            failed.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    return done, failed


def _note(inputs: Sequence[Path]) -> str:
    """What reports have to say, with what the CTs' own datasets say of them."""
    files = [path / NOTE for path in inputs if (path / NOTE).is_file()]
    notes = [
        file.read_text(encoding="utf-8", errors="replace").strip() for file in files
    ]
    return "\n".join(dict.fromkeys([*notes, RENDERED])) + "\n"


def _require_possible(request: DrrRequest) -> None:
    """Raise `RecipeError` or `GeometryError` for what no X-ray room has."""
    pixel_mm = 1.0 if request.pixel_mm is None else request.pixel_mm
    photons = 1.0 if request.photons is None else request.photons
    numbers = [
        *request.angles,
        *request.secondary,
        request.sod,
        request.sdd,
        pixel_mm,
        photons,
        *(request.isocentre or ()),
    ]
    if not all(map(isfinite, numbers)):
        raise RecipeError(
            "angles, distances, pixels, photons and isocentre must be finite numbers; "
            "correct them"
        )
    if not request.angles:
        raise RecipeError("no view; give at least one angle, for example --views 0,90")
    if max(map(abs, request.secondary)) >= 90:
        raise RecipeError(
            "a secondary angle lies between -90 and 90 degrees; correct it"
        )
    if not 1 <= photons <= MOST_PHOTONS:
        raise RecipeError(
            f"{photons:g} photons a pixel show nothing, or no noise; give 1000 or more, "
            "a chest film has about 1e5"
        )
    geometry = request.geometry(pixel_mm)
    record_of(geometry, isocentre=request.isocentre or (0.0, 0.0, 0.0))


def find_scans(inputs: Sequence[Path]) -> dict[str, Path]:
    """CTs by case name; raises `FormatError` for a path without any, `DataError` if two
    have one name.
    """
    scans: dict[str, Path] = {}
    for path in inputs:
        for name, scan in _scans_at(path).items():
            if name in scans:
                raise DataError(
                    f"{scans[name]} and {scan} are both case '{name}'; rename one"
                )
            scans[name] = scan
    return scans


def _scans_at(path: Path) -> dict[str, Path]:
    if not path.exists():
        raise FormatError(f"{path}: not found; check the path")
    if is_image_file(path) or is_dicom_folder(path) or is_dicom_file(path):
        return {image_stem(path.absolute()): path}
    exams = {
        folder.name: folder / VOLUME
        for folder in exam_folders(path)
        if (folder / VOLUME).is_file()
    }
    scans = exams or list_images(path)
    if not scans:
        raise FormatError(
            f"{path}: no CT here; give NIfTI, NRRD or MetaImage files, a DICOM folder, or "
            "a folder of these"
        )
    return scans


def _render_exam(request: DrrRequest, name: str, path: Path, console: Console) -> Path:
    volume = read_volume(path, choice=request.choice)
    doubt = doubt_about(volume)
    if doubt:
        console.say(f"warning: {name}: {doubt}")
    isocentre = request.isocentre or middle_of(volume)
    points = body_points(volume, isocentre=isocentre)
    detector = (request.detector, request.detector)
    pixel = request.pixel_mm
    if pixel is None:
        pixel = pixel_to_show(
            points, detector=detector, sod=request.sod, sdd=request.sdd
        )
    geometry = request.geometry(pixel)
    _warn_of_truncation(name, geometry, points, console)
    images = torch.from_numpy(render(volume, geometry, isocentre=isocentre))
    if request.photons is not None:
        seed = crc32(f"{request.seed}/{name}".encode())
        generator = torch.Generator().manual_seed(seed)
        images = add_noise(images, request.photons, generator=generator)
    views = images.numpy()
    title = f"{name}: X-rays rendered from CT, {pixel:g} mm pixels"
    folder = request.out / PATIENTS / name
    claim_exam(request.out, name, TASK)
    write_exam(
        folder,
        views,
        geometry,
        isocentre=isocentre,
        volume=_storable(volume),
        view_format=request.view_format,
        preview=exam_preview(views, geometry, title=title),
    )
    return folder


def _storable(volume: Volume) -> Volume:
    """Whole numbers of HU as int16, at half the size of float32; anything else as it
    is.
    """
    array = volume.array
    if array.dtype.kind != "f" or array.min() < -32768 or array.max() > 32767:
        return volume
    if (array != array.round()).any():
        return volume
    return volume.with_array(array.astype("int16"))


def _warn_of_truncation(
    name: str, geometry: Geometry, points: torch.Tensor, console: Console
) -> None:
    outside = share_outside(geometry, points)
    if len(points) == 0:
        console.say(f"warning: {name}: nothing above -300 HU; is it a CT of a patient?")
    elif float(outside.max()) > NOTICEABLE:
        view = int(outside.argmax())
        sod = float(geometry.sod[view])
        sdd = float(geometry.sdd[view])
        needed = pixel_to_show(points, detector=geometry.detector, sod=sod, sdd=sdd)
        console.say(
            f"warning: {name}: {100 * float(outside[view]):.1f} % of the body lies "
            f"outside the detector at {float(geometry.primary[view]):g} degrees; "
            f"--pixel {needed:g} shows it whole"
        )
