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

from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import LabelScheme
from trivox.datasets.listing import unique_cases
from trivox.errors import FormatError, LabelError

SEQUENCES = ("T1", "T1ce", "T2", "FLAIR")
"""Channels, in this order, whatever the files are called."""

LABEL = "seg"
ALIASES = {
    "t1": "T1",
    "t1n": "T1",
    "t1w": "T1",
    "t1ce": "T1ce",
    "t1c": "T1ce",
    "t1gd": "T1ce",
    "t2": "T2",
    "t2w": "T2",
    "flair": "FLAIR",
    "t2f": "FLAIR",
    "seg": LABEL,
}
"""What the last part of a file's name (lower case) says about its content."""

DEPTH = 5  # collection / release / TrainingData / HGG / case
SUFFIXES = (".nii.gz", ".nii")
FILE = re.compile(
    rf"(?P<case>.+)[_-](?P<content>{'|'.join(sorted(ALIASES, key=len, reverse=True))})",
    re.IGNORECASE,
)
HELD_OUT = re.compile(
    r"(^|.*[^a-z])(val|valid|test)|.*(validation|testing)", re.IGNORECASE
)
FOLDER_ENDING = re.compile(r"[^a-z]?(data|set|cases)$", re.IGNORECASE)
OTHER_CHALLENGE = re.compile(r"brats-[a-z]+-\d{5}-\d{3}", re.IGNORECASE)


def _scheme(*, et: int, cavity: bool = False) -> LabelScheme:
    labels = {"NCR": 1, "ED": 2, "ET": et} | ({"RC": 4} if cavity else {})
    regions = {"WT": (1, 2, et), "TC": (1, et), "ET": (et,)} | (
        {"RC": (4,)} if cavity else {}
    )
    return LabelScheme(
        labels=labels,
        regions=regions,
        region_order=(2, 1, et, *((4,) if cavity else ())),
        nested=True,
    )


@dataclass(frozen=True)
class Family:
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
        return f"{case}{self.suffixes[(*SEQUENCES, LABEL).index(content)]}{suffix}"


_OLD, _NEW = (
    ("_t1", "_t1ce", "_t2", "_flair", "_seg"),
    ("-t1n", "-t1c", "-t2w", "-t2f", "-seg"),
)
FAMILIES: dict[str, Family] = {
    "2020": Family(
        "BraTS 2017-2020",
        "BraTS20_Training_001",
        r"(?P<patient>brats(17|18|19|20)_[\w.-]+?)(_\d)?",
        _scheme(et=4),
        "is enhancing tumour",
        _OLD,
    ),
    "2021": Family(
        "BraTS 2021-2022",
        "BraTS2021_00000",
        r"brats202[12]_(?P<patient>\d{5})",
        _scheme(et=4),
        "is enhancing tumour",
        _OLD,
    ),
    "2023": Family(
        "BraTS 2023 glioma",
        "BraTS-GLI-00000-000",
        r"brats-gli-(?P<patient>\d{5})-0\d\d",
        _scheme(et=3),
        "does not exist",
        _NEW,
    ),
    "post-treatment": Family(
        "BraTS 2024+ post-treatment glioma",
        "BraTS-GLI-00000-100",
        r"brats-gli-(?P<patient>\d{5})-[1-9]\d\d",
        _scheme(et=3, cavity=True),
        "is the resection cavity",
        _NEW,
    ),
}


def family_of(case: str) -> Family | None:
    """The family that names its cases like `case`."""
    return next((family for family in FAMILIES.values() if family.match(case)), None)


def patient_of(case: str) -> str:
    """Whose case it is: the 5-digit number where there is one (all time points), else
    the name without scan number.
    """
    family = family_of(case)
    match = family.match(case) if family else None
    return match["patient"] if match else case


def sequence_of(name: str) -> str:
    """The sequence that a channel or file ending like `t1gd` or `T2-FLAIR` means; empty
    if it is none.
    """
    found = ALIASES.get(name.lower().removeprefix("t2-").removeprefix("t2_"), "")
    return "" if found == LABEL else found


@dataclass
class Exam:
    """The files of one case, by content."""

    name: str
    family: Family
    images: dict[str, PurePath] = field(default_factory=dict)
    label: PurePath | None = None

    @property
    def contents(self) -> dict[str, PurePath]:
        """Files by what they hold: sequences, and the label map under `LABEL`."""
        return self.images | ({} if self.label is None else {LABEL: self.label})

    @property
    def held_out(self) -> bool:
        """Whether it lies in a validation or test folder, or is named so; nothing is
        trained on such cases.
        """
        parts = next(iter(self.contents.values())).parts[:-1]
        named = any(HELD_OUT.fullmatch(FOLDER_ENDING.sub("", part)) for part in parts)
        return named or bool(
            re.search("_(validation|testing)_", self.name, re.IGNORECASE)
        )


def parse_name(name: str) -> tuple[str, str] | None:
    """Case and content (a sequence or `LABEL`) of a file name; None if BraTS does not
    name files so.
    """
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    match = (
        FILE.fullmatch(name[: -len(suffix)])
        if suffix and not name.startswith(".")
        else None
    )
    if match is None or not (
        family_of(match["case"]) or OTHER_CHALLENGE.fullmatch(match["case"])
    ):
        return None
    return match["case"], ALIASES[match["content"].lower()]


def group_files(files: Iterable[PurePath], *, where: Path) -> list[Exam]:
    """The cases that relative paths `files` make up, sorted by name; files that are no
    part of one are left out.

    A case's files may lie in several folders. Where a case has no `seg` and its folder
    holds exactly one other image with `seg` in its name, that is its label map (case
    355 of BraTS 2020 on Kaggle). Raises `FormatError` for two files of one content, and
    for challenges with labels of their own (BraTS-MEN, -MET, -PED...).
    """
    exams: dict[str, Exam] = {}
    strangers: dict[PurePath, list[PurePath]] = defaultdict(list)
    for file in sorted(files):
        parsed = parse_name(file.name)
        if parsed is not None:
            _add(exams, *parsed, file, where)
        elif LABEL in file.name.lower() and not file.name.startswith("."):
            strangers[file.parent].append(file)
    _adopt(exams.values(), strangers)
    return [exams[key] for key in sorted(exams)]


def _add(
    exams: dict[str, Exam], case: str, content: str, file: PurePath, where: Path
) -> None:
    family = family_of(case)
    if family is None:
        raise FormatError(
            f"{where}: {file.name} belongs to a BraTS challenge whose labels mean other things than in the glioma "
            "challenges; describe the dataset in a manifest (manifest.json with channels, labels and cases)"
        )
    exam = exams.setdefault(case.lower(), Exam(case, family))
    earlier = exam.label if content == LABEL else exam.images.get(content)
    if earlier is not None:
        raise FormatError(
            f"{where}: {earlier} and {file} are both the {content} of {case}; remove one"
        )
    if content == LABEL:
        exam.label = file
    else:
        exam.images[content] = file


def _adopt(exams: Iterable[Exam], strangers: dict[PurePath, list[PurePath]]) -> None:
    """Give the single unnamed label map of a folder to the single case there."""
    by_folder: dict[PurePath, list[Exam]] = defaultdict(list)
    for exam in exams:
        for folder in {file.parent for file in exam.images.values()}:
            by_folder[folder].append(exam)
    for folder, found in by_folder.items():
        if (
            len(found) == 1
            and found[0].label is None
            and len(strangers.get(folder, ())) == 1
        ):
            found[0].label = strangers[folder][0]


def list_files(root: Path) -> Iterator[Path]:
    """NIfTI files in `root` and folders in it, relative to it; links are followed, at
    most `DEPTH` folders deep.
    """
    pending = [(root, 0)]
    while pending:
        folder, depth = pending.pop()
        for path in sorted(folder.iterdir()):
            if path.name.lower().endswith(SUFFIXES) and path.is_file():
                yield path.relative_to(root)
            elif depth < DEPTH and not path.name.startswith(".") and path.is_dir():
                pending.append((path, depth + 1))


def matches(path: Path) -> bool:
    """Whether `path` is a folder with BraTS files in it or up to five folders below."""
    return path.is_dir() and any(parse_name(file.name) for file in list_files(path))


def find_exams(path: Path) -> list[Exam]:
    """The cases in folder `path` that have images."""
    return [exam for exam in group_files(list_files(path), where=path) if exam.images]


def orphan_labels(root: Path) -> tuple[Path, ...]:
    """Label maps of cases without any image."""
    exams = group_files(list_files(root), where=root)
    return tuple(
        root / exam.label
        for exam in exams
        if exam.label is not None and not exam.images
    )


def load(path: Path) -> Dataset:
    """Read a dataset to train on; patients are the 5-digit numbers, so time points stay
    together.

    A case that lacks a sequence says so in `absent`. Raises `LabelError` if families
    meet whose labels contradict each other: such a set can be predicted, not trained
    on.
    """
    root = path.absolute()
    exams = find_exams(root)
    labelled = [exam for exam in exams if exam.label is not None]
    scheme = common_labels(labelled, where=root)
    return Dataset(
        name=root.name,
        root=root,
        layout="brats",
        channels=SEQUENCES,
        labels=scheme,
        cases=unique_cases(
            (_case(exam, root, SEQUENCES, scheme) for exam in exams), where=root
        ),
    )


def find_inputs(path: Path, channels: Sequence[str]) -> tuple[Case, ...]:
    """Cases to predict on, each with its family's labels, for a model that reads
    `channels`.

    Sequences are given in the model's order where its channels are named like
    sequences, else in the order of `SEQUENCES`.
    """
    root = path.absolute()
    wanted = [sequence_of(channel) for channel in channels]
    wanted = wanted if all(wanted) and len(set(wanted)) == len(wanted) else [*SEQUENCES]
    return unique_cases(
        (_case(exam, root, wanted, None) for exam in find_exams(root)), where=root
    )


def _case(
    exam: Exam, root: Path, channels: Sequence[str], scheme: LabelScheme | None
) -> Case:
    return Case(
        name=exam.name,
        images=tuple(
            root / exam.images[channel]
            for channel in channels
            if channel in exam.images
        ),
        label=root / exam.label if exam.label else None,
        patient=patient_of(exam.name),
        split="test" if exam.held_out else "train",
        absent=tuple(
            i for i, channel in enumerate(channels) if channel not in exam.images
        ),
        labels=None if exam.family.labels == scheme else exam.family.labels,
    )


def common_labels(exams: Sequence[Exam], *, where: Path) -> LabelScheme | None:
    """The scheme that holds for all `exams`, None without any; raises `LabelError` if
    their labels contradict each other.

    Cases before and after treatment agree in what they share, so they may be trained on
    together (BraTS 2025).
    """
    examples = {exam.family.title: exam for exam in reversed(exams)}
    schemes = [exam.family.labels for exam in examples.values()]
    if not schemes:
        return None
    widest = max(schemes, key=lambda scheme: len(scheme.labels))
    for exam in examples.values():
        if not exam.family.labels.labels.items() <= widest.labels.items():
            other = next(e for e in examples.values() if e.family.labels == widest)
            told = " and ".join(
                f"{e.family.title} ({e.name}: label 4 {e.family.label_4})"
                for e in (exam, other)
            )
            raise LabelError(
                f"{where}: mixes {told}; train on one of them, or import both with --format nnunet"
            )
    return widest
