"""X-ray exams: `ROOT/patients/ID/{views.npz | views.nii.gz, geometry.json, ct.nii.gz}`
and `ROOT/patients.csv`.

`views.npz` holds `views`, float32 `(v, rows, columns)`; `views.nii.gz` the same array.
The CT, whose grid and orientation are its own, is what a reconstruction is learnt from;
an exam without one can be predicted on. `patients.csv` has columns case, patient, split
(train, validation, test); without it every exam is its own patient, to train on.
"""

import os
from pathlib import Path

from trivox.datasets.dataset import Case, Dataset, listed_case
from trivox.datasets.listing import ADVICE, NOT_OURS, entries, unique_cases
from trivox.datasets.names import complaint_of
from trivox.datasets.tables import read_table
from trivox.errors import FormatError
from trivox.schema import validated

PATIENTS = "patients"
TABLE = "patients.csv"
VIEWS = ("views.npz", "views.nii.gz")
GEOMETRY = "geometry.json"
VOLUME = "ct.nii.gz"
"""Names of the folder of exams, the table beside it, and the files of an exam."""


def matches(path: Path) -> bool:
    """Whether `path` is a dataset of exams, a folder of exams, or one exam."""
    return bool(exam_folders(path))


def exam_folders(path: Path) -> list[Path]:
    """Folders of exams: those in `path/patients`, else those in `path`, else `path`
    itself; sorted.
    """
    if not path.is_dir():
        return []
    if is_exam(path):
        return [path]
    inner = path / PATIENTS if (path / PATIENTS).is_dir() else path
    folders = [
        folder
        for folder in entries(inner)
        if not folder.name.startswith(".") and folder.name not in NOT_OURS
    ]
    closed = [folder for folder in folders if _is_closed(folder)]
    exams = [folder for folder in folders if folder not in closed and is_exam(folder)]
    return sorted([*exams, *closed]) if exams else []


def _is_closed(folder: Path) -> bool:
    """Whether it is a folder that cannot be looked into."""
    return folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK)


def is_exam(folder: Path) -> bool:
    """Whether `folder` holds views or a geometry file, or links to such."""
    return folder.is_dir() and any(
        _is_there(folder / name) for name in (*VIEWS, GEOMETRY)
    )


def _is_there(file: Path) -> bool:
    return file.is_file() or file.is_symlink()


def load(path: Path) -> Dataset:
    """List the exams without opening them; raises `FormatError` where `patients.csv`
    names what is not there.
    """
    root = path.absolute()
    folders = exam_folders(root)
    rows = _table(root / TABLE, {folder.name for folder in folders})
    cases = (_case(folder, rows.get(folder.name, {})) for folder in folders)
    return Dataset(
        name=root.name,
        root=root,
        layout="xrays",
        channels=("xray",),
        cases=unique_cases(cases, where=root),
    )


def _case(folder: Path, row: dict[str, str]) -> Case:
    if _is_closed(folder):
        case = listed_case(folder.name, images=())
        return case.with_complaint(f"{folder} cannot be opened; correct its rights")
    if complaint_of(folder.name):
        return listed_case(folder.name, images=())
    present = [folder / name for name in VIEWS if _is_there(folder / name)]
    views = present[0] if present else folder / VIEWS[0]
    volume = folder / VOLUME
    content = {
        "name": folder.name,
        "images": (views,),
        "geometry": folder / GEOMETRY,
        "volume": volume if volume.is_file() else None,
        "patient": row.get("patient", ""),
        "split": row.get("split") or "train",
    }
    where = row.get("where", str(folder))
    return validated(Case, content, where=where, error=FormatError, advice=ADVICE)


def _table(file: Path, present: set[str]) -> dict[str, dict[str, str]]:
    """Rows of `patients.csv` by case; nothing where there is no such file."""
    if not file.is_file():
        return {}
    table = read_table(file)
    if "case" not in table.columns:
        raise FormatError(
            f"{file}: needs a column 'case' (and 'patient', 'split'), found "
            f"{[*table.columns]}"
        )
    rows: dict[str, dict[str, str]] = {}
    for line, cells in zip(table.lines, table.rows, strict=True):
        row = dict(zip(table.columns, cells, strict=True))
        row["where"] = f"{file}, line {line}"
        name = row["case"]
        problem = ""
        if name in rows:
            problem = "is listed twice"
        elif name not in present:
            problem = f"has no folder in {PATIENTS}/"
        if problem:
            raise FormatError(
                f"{row['where']}: case '{name}' {problem}; correct the table"
            )
        rows[name] = row
    return rows
