"""A folder a class: `train/subtype0/quiz_0_041_0000.nii.gz` with its mask
`quiz_0_041.nii.gz` beside it.

Under ROOT lie the classes, or `train`, `validation` and `test` with the classes in
them; cases directly in `test` have no class. The folder's name is the class. A mask has
the name of its images without channel number, or ends in `_seg` or the like.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from trivox.datasets.class_tables import class_order
from trivox.datasets.dataset import SIDES, Case, Dataset, Side, listed_case
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.folders import (
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    find_folder,
)
from trivox.datasets.listing import (
    CHANNEL_SUFFIX,
    LABEL_SUFFIX,
    NOT_OURS,
    Listing,
    channel_names,
    discover_labels,
    entries,
    image_stem,
    is_image_file,
    survey,
    unique_cases,
    with_complaints,
)
from trivox.errors import FormatError

OTHERS = {"imagests", "labelsts"}.union(IMAGE_FOLDERS, LABEL_FOLDERS, *SIDES.values())
"""Names that are no class, in small letters."""


@dataclass(frozen=True)
class Pairing:
    """What the files of one folder are: images by case, masks by case, and masks
    without image.
    """

    images: Mapping[str, tuple[Path, ...]]
    masks: Mapping[str, Path]
    orphans: tuple[Path, ...]


@dataclass(frozen=True)
class ClassFolder:
    """A folder of cases: their side of the split, and their class (None: not known);
    complaints: by file, and of the folder itself if it cannot be looked into.
    """

    path: Path
    side: Side
    class_name: str | None
    files: Pairing
    complaints: Mapping[Path, str]

    @property
    def cases(self) -> Iterator[Case]:
        """Its cases, sorted by name."""
        if self.path in self.complaints:
            case = listed_case(self.path.name, images=(), split=self.side)
            yield case.with_complaint(self.complaints[self.path])
        yield from with_complaints(self._listed, self.complaints)

    @property
    def _listed(self) -> Iterator[Case]:
        for name, images in sorted(self.files.images.items()):
            yield listed_case(
                name,
                images=images,
                label=self.files.masks.get(name),
                split=self.side,
                class_name=self.class_name,
            )


def matches(path: Path) -> bool:
    """Whether `path` holds folders of two classes, with images and masks side by side;
    a folder a case is no class.
    """
    if not path.is_dir():
        return False
    folders = [
        folder
        for folder in _class_folders(path)
        if folder.side != "test" and folder.class_name is not None
    ]
    classes = {folder.class_name for folder in folders}
    paired = [folder for folder in folders if folder.files.masks]
    if len(classes) < 2 or not paired:
        return False
    return not _hold_a_case_each(paired)


def _hold_a_case_each(folders: Sequence[ClassFolder]) -> bool:
    """Whether folders are those of cases: one in each, of the folder's name, or of the
    same name in all.
    """
    if any(len(folder.files.images) != 1 for folder in folders):
        return False
    names = [next(iter(folder.files.images)) for folder in folders]
    pairs = zip(folders, names, strict=True)
    if all(folder.path.name in name for folder, name in pairs):
        return True
    return len(names) > 1 and len(set(names)) == 1


def load(path: Path, *, labels: LabelScheme | None = None) -> Dataset:
    """Read the dataset; without `labels` the label values are found by reading the
    masks.

    An image without mask becomes a case without label. Two cases of one name, and a
    case whose file name holds another class than its folder, have a complaint.
    """
    root = path.absolute()
    folders = _class_folders(root)
    listed = chain.from_iterable(folder.cases for folder in folders)
    cases = unique_cases(_complete(_agreeing(list(listed))), where=root)
    learnt = [case for case in cases if case.split != "test" and not case.complaint]
    masks = [case.label for case in learnt if case.label is not None]
    return Dataset(
        name=root.name,
        root=root,
        layout="class-folders",
        channels=channel_names(cases),
        labels=labels or discover_labels(masks, where=root),
        classes=class_order((folder.class_name for folder in folders), where=root),
        cases=cases,
    )


def _complete(cases: Sequence[Case]) -> Iterator[Case]:
    """`cases`, with the channels that one lacks and most have as absent."""
    numbers = [_numbers(case) for case in cases]
    counts = Counter(each for each in numbers if each)
    ((usual, _),) = counts.most_common(1) or [((), 0)]
    for case, present in zip(cases, numbers, strict=True):
        lacking = tuple(i for i, number in enumerate(usual) if number not in present)
        if present and set(present) < set(usual):
            yield case.model_copy(update={"absent": lacking})
        else:
            yield case


def _numbers(case: Case) -> tuple[int, ...]:
    """The numbers of its channels, as its files are called."""
    parts = [CHANNEL_SUFFIX.fullmatch(image_stem(file)) for file in case.images]
    return tuple(int(each["channel"]) for each in parts if each)


def orphan_labels(dataset: Dataset) -> tuple[Path, ...]:
    """Masks without any image."""
    folders = _class_folders(dataset.root)
    return tuple(chain.from_iterable(folder.files.orphans for folder in folders))


def _class_folders(root: Path) -> list[ClassFolder]:
    """All folders of cases under `root`; cases that lie beside class folders have no
    class.
    """
    places = [*_places(root)]
    files = {path: _image_files(path) for path, _, _ in places}
    numbered = any(_has_numbers(listing.images) for listing in files.values())
    folders = []
    for path, side, class_name in places:
        images, complaints = files[path]
        pairing = pair_files(images, numbered=numbered and side != "test")
        known = None if path in complaints else class_name
        folders.append(ClassFolder(path, side, known, pairing, complaints))
    return folders


def _places(root: Path) -> Iterator[tuple[Path, Side, str | None]]:
    """Folders of cases, their side of the split and their class."""
    sides: dict[Side, Path] = {}
    for side, words in SIDES.items():
        folder = find_folder(root, words)
        if folder is not None:
            sides[side] = folder
    if "train" not in sides:
        sides = {"train": root}
    for side, folder in sides.items():
        yield folder, side, None
        for inner in entries(folder):
            if _may_be_class(inner):
                yield inner, side, inner.name


def _image_files(folder: Path) -> Listing:
    """Images in `folder` by stem, without folders of DICOM files; none where it cannot
    be looked into.
    """
    try:
        images, complaints = survey(folder)
    except FormatError as error:
        return Listing({}, {folder: str(error)})
    files = {stem: path for stem, path in images.items() if not path.is_dir()}
    return Listing(files, complaints)


def _has_numbers(stems: Collection[str]) -> bool:
    """Whether a file and another of its name and channel number lie together."""
    return any(f"{stem}_0000" in stems for stem in stems)


def _may_be_class(folder: Path) -> bool:
    """Whether it is a folder of images, or empty; DICOM series are no class."""
    name = folder.name
    if not folder.is_dir() or name.startswith(".") or name.lower() in OTHERS:
        return False
    if name in NOT_OURS:
        return False
    try:
        inner = entries(folder)
    except FormatError:
        return True
    files = [file for file in inner if not file.name.startswith(".")]
    others = [file for file in files if file.suffix.lower() != ".dcm"]
    return not files or any(is_image_file(file) for file in others)


def pair_files(files: Mapping[str, Path], *, numbered: bool) -> Pairing:
    """Tell images and masks apart by their names (`files` by stem); numbered: images
    are known to end in `_0000`.
    """
    images: dict[str, tuple[Path, ...]] = {}
    masks: dict[str, Path] = {}
    orphans = []
    for stem, file in files.items():
        of_mask = _case_of_mask(stem, files)
        channel = CHANNEL_SUFFIX.fullmatch(stem)
        if of_mask is not None:
            masks[of_mask] = file
        elif channel and f"{channel['case']}_0000" in files:
            case = channel["case"]
            images[case] = (*images.get(case, ()), file)
        elif numbered or LABEL_SUFFIX.search(stem):
            orphans.append(file)
        else:
            images[stem] = (file,)
    return Pairing(images, masks, tuple(orphans))


def _case_of_mask(stem: str, stems: Collection[str]) -> str | None:
    """The case whose mask the file is, None if it is an image or a mask without image."""
    if f"{stem}_0000" in stems:
        return stem
    plain = LABEL_SUFFIX.sub("", stem)
    has_image = plain in stems or f"{plain}_0000" in stems
    return plain if plain != stem and has_image else None


def _agreeing(cases: Sequence[Case]) -> list[Case]:
    """`cases`, with a complaint where the name says another class than the folder, as
    `quiz_1_003` in `subtype0`.

    Names are taken to say classes if one of their fields is the class (or its number)
    in at least two thirds of the cases and in two classes, and never anything but a
    class.
    """
    wrong: dict[str, str] = {}
    classified = [case for case in cases if case.class_name is not None]
    spellings = _spellings({case.class_name or "" for case in classified})
    fields = [re.split(r"[_\-. ]", case.name.lower()) for case in classified]
    for column in zip_longest(*fields, fillvalue=""):
        written = [spellings.get(field) for field in column]
        pairs = [*zip(classified, written, strict=True)]
        agreeing = [name for case, name in pairs if case.class_name == name]
        mostly = 3 * len(agreeing) >= 2 * len(written)
        if None in written or len(set(agreeing)) < 2 or not mostly:
            continue
        wrong |= {
            case.name: f"{name}" for case, name in pairs if case.class_name != name
        }
    return [_disagreeing(case, wrong.get(case.name)) for case in cases]


def _disagreeing(case: Case, written: str | None) -> Case:
    """The case with the complaint that its name says the class `written`, if it does."""
    if written is None or case.complaint:
        return case
    return case.with_complaint(
        f"{case.images[0]} lies in the folder of class '{case.class_name}', its name "
        f"says '{written}'; move or rename it"
    )


def _spellings(classes: Collection[str]) -> dict[str, str]:
    """Classes by how file names may say them: whole, or by their number (`0` for
    `subtype0`) where no other has it.
    """
    numbers = {name: re.sub(r"^.*?(?=\d*$)", "", name) for name in classes}
    counts = Counter(numbers.values())
    telling = [name for name in classes if numbers[name] and counts[numbers[name]] == 1]
    by_number = {numbers[name]: name for name in telling}
    return by_number | {name.lower(): name for name in classes}
