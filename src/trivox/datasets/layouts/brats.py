"""BraTS folders: four MRI sequences of each case, told by their names alone; no image
is opened.

Four families of names (adult glioma; Baid et al. 2021, arXiv 2107.02314; de Verdier et
al. 2024, arXiv 2405.18368): `BraTS20_Training_001_flair.nii` (2017-2020, HGG/LGG
folders included), `BraTS2021_00000_flair.nii.gz` (2021-2022),
`BraTS-GLI-00000-000-t2f.nii.gz` (2023) and the same with time points from 100 on (2024
and later, after treatment). Label 4 is enhancing tumour in the first two families and
the resection cavity in the last one.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from trivox.datasets.channels import ALIASES, sequence_of
from trivox.datasets.dataset import Case, Dataset, listed_case
from trivox.datasets.labels import LabelScheme
from trivox.datasets.listing import SEGMENTATIONS, UNREADABLE, entries, unique_cases
from trivox.errors import FormatError, LabelError

SEQUENCES = ("T1", "T1ce", "T2", "FLAIR")
"""Channels, in this order, whatever the files are called."""

LABEL = "seg"
CONTENTS = {**ALIASES, "seg": LABEL}
"""What the last part of a file's name (lower case) says about its content."""

DEPTH = 5  # collection / release / TrainingData / HGG / case
SUFFIXES = (".nii.gz", ".nii", *SEGMENTATIONS)
FILE = re.compile(
    rf"(?P<case>.+)[_-](?P<content>{'|'.join(sorted(CONTENTS, key=len, reverse=True))})",
    re.IGNORECASE,
)
HELD_OUT = re.compile(
    r"(^|.*[^a-z])(val|valid|test)|.*(validation|testing)", re.IGNORECASE
)
FOLDER_ENDING = re.compile(r"[^a-z]?(data|set|cases)$", re.IGNORECASE)
OTHER_CHALLENGE = re.compile(r"brats-[a-z]+-\d{5}-\d{3}", re.IGNORECASE)


def _scheme(*, et: int, cavity: bool = False) -> LabelScheme:
    labels = {"NCR": 1, "ED": 2, "ET": et}
    regions: dict[str, tuple[int, ...]] = {"WT": (1, 2, et), "TC": (1, et), "ET": (et,)}
    order = [2, 1, et]
    if cavity:
        labels["RC"] = 4
        regions["RC"] = (4,)
        order.append(4)
    return LabelScheme(
        labels=labels, regions=regions, region_order=tuple(order), nested=True
    )


@dataclass(frozen=True)
class BratsFamily:
    """Releases that name files and write labels alike.

    example: a case name; pattern: what case names look like in any case, with the group
    `patient`; label_4: what it means; suffixes: how files end, for the sequences and
    the label map.
    """

    title: str
    example: str
    pattern: str
    labels: LabelScheme
    label_4: str
    suffixes: tuple[str, str, str, str, str]

    def match(self, case: str) -> re.Match[str] | None:
        """The case name taken apart, if it is one of this family's."""
        return re.fullmatch(self.pattern, case, re.IGNORECASE)

    def file_name(self, case: str, content: str, *, suffix: str = ".nii.gz") -> str:
        """The file of a case that holds `content` (a sequence or `LABEL`) as this
        family names it.
        """
        number = (*SEQUENCES, LABEL).index(content)
        return f"{case}{self.suffixes[number]}{suffix}"


_OLD = ("_t1", "_t1ce", "_t2", "_flair", "_seg")
_NEW = ("-t1n", "-t1c", "-t2w", "-t2f", "-seg")
FAMILIES: dict[str, BratsFamily] = {
    "2020": BratsFamily(
        "BraTS 2017-2020",
        "BraTS20_Training_001",
        r"(?P<patient>brats(17|18|19|20)_[\w.-]+?)(_\d)?",
        _scheme(et=4),
        "is enhancing tumour",
        _OLD,
    ),
    "2021": BratsFamily(
        "BraTS 2021-2022",
        "BraTS2021_00000",
        r"brats202[12]_(?P<patient>\d{5})",
        _scheme(et=4),
        "is enhancing tumour",
        _OLD,
    ),
    "2023": BratsFamily(
        "BraTS 2023 glioma",
        "BraTS-GLI-00000-000",
        r"brats-gli-(?P<patient>\d{5})-0\d\d",
        _scheme(et=3),
        "does not exist",
        _NEW,
    ),
    "post-treatment": BratsFamily(
        "BraTS 2024+ post-treatment glioma",
        "BraTS-GLI-00000-100",
        r"brats-gli-(?P<patient>\d{5})-[1-9]\d\d",
        _scheme(et=3, cavity=True),
        "is the resection cavity",
        _NEW,
    ),
}


def family_of(case: str) -> BratsFamily | None:
    """The family that names its cases like `case`."""
    return next((family for family in FAMILIES.values() if family.match(case)), None)


def patient_of(case: str) -> str:
    """Whose case it is: the 5-digit number where there is one (all time points), else
    the name without scan number.
    """
    family = family_of(case)
    match = family.match(case) if family else None
    return match["patient"] if match else case


@dataclass
class Scan:
    """The files of one case, by content; complaint: why they cannot be used."""

    name: str
    family: BratsFamily
    images: dict[str, PurePath] = field(default_factory=dict)
    label: PurePath | None = None
    complaint: str = ""

    @property
    def contents(self) -> dict[str, PurePath]:
        """Files by what they hold: sequences, and the label map under `LABEL`."""
        return self.images | ({} if self.label is None else {LABEL: self.label})

    @property
    def held_out(self) -> bool:
        """Whether it lies in a validation or test folder, or is named so; nothing is
        trained on such cases.
        """
        files = iter(self.contents.values())
        folders = next(files, PurePath()).parts[:-1]
        if any(HELD_OUT.fullmatch(FOLDER_ENDING.sub("", name)) for name in folders):
            return True
        return bool(re.search("_(validation|testing)_", self.name, re.IGNORECASE))


def parse_name(name: str) -> tuple[str, str] | None:
    """Case and content (a sequence or `LABEL`) of a file name; None if BraTS does not
    name files so.
    """
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    if not suffix or name.startswith("."):
        return None
    match = FILE.fullmatch(name[: -len(suffix)])
    if match is None:
        return None
    case = match["case"]
    if not (family_of(case) or OTHER_CHALLENGE.fullmatch(case)):
        return None
    return case, CONTENTS[match["content"].lower()]


def group_files(files: Iterable[PurePath], *, where: Path) -> list[Scan]:
    """The cases that relative paths `files` make up, sorted by name; files that are no
    part of one are left out.

    A case's files may lie in several folders. Where a case has no `seg` and its folder
    holds exactly one other image with `seg` in its name, that is its label map (case
    355 of BraTS 2020 on Kaggle). Two files of one content are a complaint. Raises
    `FormatError` for challenges with labels of their own (BraTS-MEN, -MET, -PED...).
    """
    scans: dict[str, Scan] = {}
    strangers: dict[PurePath, list[PurePath]] = defaultdict(list)
    for file in sorted(files):
        parsed = parse_name(file.name)
        if file.name == UNREADABLE:
            scan = _unreadable(file.parent)
            scans[scan.name.lower()] = scan
        elif parsed is not None:
            _add(scans, *parsed, file, where)
        elif LABEL in file.name.lower() and not file.name.startswith("."):
            strangers[file.parent].append(file)
    _adopt(scans.values(), strangers)
    return [scans[key] for key in sorted(scans)]


def _unreadable(folder: PurePath) -> Scan:
    """The case that a folder is of which cannot be looked into."""
    family = family_of(folder.name) or next(iter(FAMILIES.values()))
    complaint = f"the folder {folder} cannot be opened; correct its rights"
    return Scan(folder.name, family, complaint=complaint)


def _add(
    scans: dict[str, Scan], case: str, content: str, file: PurePath, where: Path
) -> None:
    family = family_of(case)
    if family is None:
        raise FormatError(
            f"{where}: {file.name} belongs to a BraTS challenge whose labels mean "
            "other things than in the glioma challenges; describe the dataset in a "
            "manifest (manifest.json with channels, labels and cases)"
        )
    scan = scans.setdefault(case.lower(), Scan(case, family))
    earlier = scan.label if content == LABEL else scan.images.get(content)
    if earlier is not None:
        scan.complaint = f"{earlier} and {file} are both its {content}; remove one"
    elif content == LABEL:
        scan.label = file
    else:
        scan.images[content] = file


def _adopt(scans: Iterable[Scan], strangers: dict[PurePath, list[PurePath]]) -> None:
    """Give the single unnamed label map of a folder to the single case there."""
    by_folder: dict[PurePath, list[Scan]] = defaultdict(list)
    for scan in scans:
        for folder in {file.parent for file in scan.images.values()}:
            by_folder[folder].append(scan)
    for folder, there in by_folder.items():
        unnamed = strangers.get(folder, ())
        if len(there) == len(unnamed) == 1 and there[0].label is None:
            there[0].label = unnamed[0]


def list_files(root: Path) -> Iterator[Path]:
    """NIfTI files in `root` and folders in it, relative to it; links are followed, at
    most `DEPTH` folders deep, those to a folder that they lie in left out.

    A file whose place cannot be seen is listed as `UNREADABLE` in its folder.
    """
    pending = [(root, 0)]
    while pending:
        folder, depth = pending.pop()
        try:
            inner = entries(folder)
        except FormatError:
            yield folder.relative_to(root) / UNREADABLE
            continue
        for path in inner:
            if path.name.lower().endswith(SUFFIXES) and not path.is_dir():
                yield path.relative_to(root)
            elif depth < DEPTH and not path.name.startswith(".") and _leads_on(path):
                pending.append((path, depth + 1))


def _leads_on(path: Path) -> bool:
    """Whether it is a folder, and no link back to one that it lies in."""
    if not path.is_dir():
        return False
    return not (path.is_symlink() and path.resolve() in path.absolute().parents)


def matches(path: Path) -> bool:
    """Whether `path` is a folder with BraTS files in it or up to five folders below."""
    return path.is_dir() and any(parse_name(file.name) for file in list_files(path))


def find_scans(path: Path) -> list[Scan]:
    """The cases in folder `path` that have images, or a complaint."""
    scans = group_files(list_files(path), where=path)
    return [scan for scan in scans if scan.images or scan.complaint]


def orphan_labels(dataset: Dataset) -> tuple[Path, ...]:
    """Label maps of cases without any image."""
    root = dataset.root
    scans = group_files(list_files(root), where=root)
    return tuple(
        root / scan.label
        for scan in scans
        if scan.label is not None and not scan.images
    )


def load(path: Path) -> Dataset:
    """Read a dataset to train on; patients are the 5-digit numbers, so time points stay
    together.

    A case that lacks a sequence says so in `absent`. Raises `LabelError` if families
    meet whose labels contradict each other: such a set can be predicted, not trained
    on.
    """
    root = path.absolute()
    scans = find_scans(root)
    labelled = [scan for scan in scans if scan.label is not None]
    scheme = common_labels(labelled, where=root)
    cases = (_case(scan, root, SEQUENCES, scheme) for scan in scans)
    return Dataset(
        name=root.name,
        root=root,
        layout="brats",
        channels=SEQUENCES,
        labels=scheme,
        cases=unique_cases(cases, where=root),
    )


def find_inputs(path: Path, channels: Sequence[str]) -> tuple[Case, ...]:
    """Cases to predict on, each with its family's labels, for a model that reads
    `channels`.

    Sequences are given in the model's order where its channels are named like
    sequences, else in the order of `SEQUENCES`.
    """
    root = path.absolute()
    order = [sequence_of(channel) for channel in channels]
    if not all(order) or len(set(order)) < len(order):
        order = [*SEQUENCES]
    cases = (_case(scan, root, order, None) for scan in find_scans(root))
    return unique_cases(cases, where=root)


def _case(
    scan: Scan, root: Path, channels: Sequence[str], scheme: LabelScheme | None
) -> Case:
    present = [channel for channel in channels if channel in scan.images]
    absent = [i for i, channel in enumerate(channels) if channel not in scan.images]
    case = listed_case(
        scan.name,
        images=tuple(root / scan.images[channel] for channel in present),
        label=root / scan.label if scan.label else None,
        patient=patient_of(scan.name),
        split="test" if scan.held_out else "train",
        absent=tuple(absent),
        labels=None if scan.family.labels == scheme else scan.family.labels,
    )
    return case.with_complaint(case.complaint or scan.complaint)


def common_labels(scans: Sequence[Scan], *, where: Path) -> LabelScheme | None:
    """The scheme that holds for all `scans`, None without any; raises `LabelError` if
    their labels contradict each other.

    Cases before and after treatment agree in what they share, so they may be trained on
    together (BraTS 2025).
    """
    examples = {scan.family.title: scan for scan in reversed(scans)}
    schemes = [scan.family.labels for scan in examples.values()]
    if not schemes:
        return None
    widest = max(schemes, key=lambda scheme: len(scheme.labels))
    for scan in examples.values():
        if not scan.family.labels.labels.items() <= widest.labels.items():
            other = next(e for e in examples.values() if e.family.labels == widest)
            raise LabelError(
                f"{where}: mixes {_meaning(scan)} and {_meaning(other)}; train on one "
                "of them, or import both with --format nnunet"
            )
    return widest


def _meaning(scan: Scan) -> str:
    """Its family, and what label 4 means there."""
    family = scan.family
    return f"{family.title} ({scan.name}: label 4 {family.label_4})"
