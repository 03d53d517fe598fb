"""Models of nnU-Net, imported, against nnU-Net itself: how many voxels differ.

    .venv/bin/python nnunet_parity.py [--quick] [--json FILE] [--peers PYTHON]

Each row is a model folder as nnU-Net's own planner writes it (see
`nnunet_folders.py`), of random weights, and a scan stored in some axis order. nnU-Net
predicts it in a process of its own, with PYTHON's nnunetv2; trivox imports the folder
and predicts the same files. A voxel counts as different where the two label maps
differ, ties included: nnU-Net sums windows and rounds logits in fp16, so that two
classes within a thousandth of each other are a tie there, which the first class wins.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trivox.errors import TrivoxError
from trivox.importing.nnunet import import_nnunet
from trivox.inference.predictor import Predictor
from trivox.volumes.formats import read_labels

HERE = Path(__file__).parent
PEERS = HERE / ".venv" / "bin" / "python"
MOST_DIFFERENT = 0.05
"""Percent of the voxels of an accepted row."""
LABELS = {"background": 0, "a": 1, "b": 2, "c": 3}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "tip": 3}
DEFAULT = "ExperimentPlanner"
RESENC_M = "nnUNetPlannerResEncM"
TORCH = "nnUNetPlannerResEncL_torchres"
TORCH_SLICES = "nnUNetPlannerResEncL_torchres_sepz"
NO_RESAMPLING = "nnUNetPlannerResEncL_noResampling"
ISOTROPIC = (1.0, 0.9, 1.1)
THICK = (0.9, 0.8, 4.0)
"""Spacing along x, y, z in mm."""


@dataclass(frozen=True)
class Row:
    """A model of nnU-Net's and a scan for it.

    size, spacing: of the training cases along world x, y, z; the scan has
    `scan_spacing`; changes, network: written into the configurations of the plans and
    into their networks; foreign: written there once nnU-Net has predicted, for what
    only somebody's own nnU-Net has.
    """

    planner: str = DEFAULT
    configuration: str = "3d_fullres"
    storage: str = "RAS"
    reader: str = "SimpleITKIO"
    size: Sequence[int] = (40, 44, 36)
    spacing: Sequence[float] = ISOTROPIC
    scan_spacing: Sequence[float] = ()
    scan_storage: str = ""
    labels: Mapping[str, Any] = field(default_factory=lambda: LABELS)
    order: Sequence[int] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    foreign: Mapping[str, Any] = field(default_factory=dict)
    trainer: str = "nnUNetTrainer"
    mirror: Sequence[int] = (0, 1, 2)
    checkpoint: str = "final"
    channels_key: str = "channel_names"

    def content(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            **asdict(self),
            "scan_spacing": self.scan_spacing or self.spacing,
            "scan_storage": self.scan_storage or self.storage,
        }


@dataclass(frozen=True)
class Outcome:
    """How a row ended: what share of voxels differs (%), the mean Dice of the labels
    against nnU-Net's, how many labels nnU-Net found; or why it was refused.
    """

    different: float = float("nan")
    dice: float = float("nan")
    labels: int = 0
    refused: str = ""

    @property
    def passes(self) -> bool:
        """Whether the row is refused or near enough."""
        return bool(self.refused) or self.different <= MOST_DIFFERENT


def all_rows() -> dict[str, Row]:
    """Every row of the table."""
    rows: dict[str, Row] = {}
    for storage in ("RAS", "LPS", "PIR", "SRA"):
        for name, reader in (
            ("itk", "SimpleITKIO"),
            ("nibabel", "NibabelIO"),
            ("itk-turned", "SimpleITKIOWithReorient"),
            ("nibabel-turned", "NibabelIOWithReorient"),
        ):
            rows[f"{storage}-{name}"] = Row(storage=storage, reader=reader)
        thick = {"storage": storage, "size": (48, 44, 14), "spacing": THICK}
        rows[f"{storage}-thick"] = Row(**thick)
        rows[f"{storage}-thick-2d"] = Row(**thick, configuration="2d")
        rows[f"{storage}-thick-resenc"] = Row(**thick, planner=RESENC_M)
        rows[f"{storage}-lowres"] = Row(storage=storage, configuration="3d_lowres")
        rows[f"{storage}-cascade"] = Row(
            storage=storage, configuration="3d_cascade_fullres"
        )
        for name, planner in (
            ("torch", TORCH),
            ("torch-slices", TORCH_SLICES),
            ("unresampled", NO_RESAMPLING),
        ):
            rows[f"{storage}-thick-{name}"] = Row(**thick, planner=planner)
    return rows | special_rows()


def special_rows() -> dict[str, Row]:
    """Rows that differ in one thing from the first."""
    thick = {"size": (48, 44, 14), "spacing": THICK}
    torch_cascade = Row(planner=TORCH, configuration="3d_cascade_fullres")
    return {
        "resenc": Row(planner=RESENC_M),
        "2d": Row(configuration="2d"),
        "other-storage": Row(storage="LPS", scan_storage="RAI"),
        "thin-scan-of-thick-model": Row(**thick, scan_spacing=(3.5, 0.8, 1.0)),
        "thick-scan": Row(scan_spacing=(0.9, 4.0, 0.8)),
        "regions": Row(labels=REGIONS, order=(1, 2, 3)),
        "ignore": Row(labels={**LABELS, "ignore": 4}),
        "mirror-two": Row(mirror=(0, 2)),
        "mirror-none": Row(mirror=()),
        "batch-norm": Row(trainer="nnUNetTrainerBN"),
        "dropout": Row(
            network={
                "dropout_op": "torch.nn.modules.dropout.Dropout3d",
                "dropout_op_kwargs": {"p": 0.2},
            },
            configuration="3d_fullres",
        ),
        "latest": Row(checkpoint="latest"),
        "modality": Row(channels_key="modality"),
        "order-1": Row(changes=splines(order=1)),
        "across-1": Row(**thick, changes=splines(order_z=1)),
        "across-3": Row(**thick, changes=splines(order_z=3)),
        "whole-volume": Row(**thick, changes=splines(force_separate_z=False)),
        "slices": Row(changes=splines(force_separate_z=True), spacing=(0.8, 1.4, 1.0)),
        "torch-cascade": torch_cascade,
        "regions-cascade": Row(
            labels=REGIONS, order=(1, 2, 3), configuration="3d_cascade_fullres"
        ),
        "own-resampling": Row(foreign={"resampling_fn_data": "my_resampling"}),
        "own-preprocessor": Row(foreign={"preprocessor_name": "MyPreprocessor"}),
        "cubic-answers": Row(
            changes={
                "resampling_fn_probabilities_kwargs": {
                    "is_seg": False,
                    "order": 3,
                    "order_z": 0,
                    "force_separate_z": None,
                }
            }
        ),
    }


def splines(**changes: Any) -> dict[str, Any]:
    """Other arguments of the images' resampling."""
    usual = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {"resampling_fn_data_kwargs": {**usual, **changes}}


def quick_rows() -> dict[str, Row]:
    """One row of each kind, for `--quick` and the tests."""
    names = (
        "RAS-itk",
        "PIR-itk",
        "SRA-nibabel",
        "LPS-itk-turned",
        "PIR-nibabel-turned",
        "PIR-thick-resenc",
        "SRA-thick-2d",
        "LPS-lowres",
        "PIR-cascade",
        "SRA-thick-torch-slices",
        "LPS-thick-unresampled",
        "regions",
        "mirror-two",
        "batch-norm",
    )
    rows = all_rows()
    return {name: rows[name] for name in names}


def compare(rows: Mapping[str, Row], peers: Path) -> dict[str, Outcome]:
    """Run all rows in nnU-Net and in trivox."""
    with tempfile.TemporaryDirectory(prefix="parity-") as name:
        root = Path(name)
        content = {name: row.content() for name, row in rows.items()}
        (root / "rows.json").write_text(json.dumps(content))
        command = [peers, HERE / "nnunet_folders.py", root]
        subprocess.run([str(part) for part in command], check=True)
        return {name: outcome(row, root / name) for name, row in rows.items()}


def outcome(row: Row, folder: Path) -> Outcome:
    """Import the model of a row, predict its scan, and compare with nnU-Net's."""
    model = folder / "model" / f"{row.trainer}__nnUNetPlans__{row.configuration}"
    try:
        import_nnunet(model, folder / "bundle", trust=True)
    except TrivoxError as error:
        return Outcome(refused=str(error).removeprefix(f"{model}/"))
    predictor = Predictor.load(folder / "bundle", device="cpu", precision="fp32")
    files = sorted((folder / "scans").glob("*.nii.gz"))
    ours = predictor.predict_file(files).labels.array
    theirs = read_labels(folder / "theirs" / "scan.nii.gz").array
    found = [int(value) for value in np.unique(theirs) if value]
    return Outcome(
        different=100 * float((ours != theirs).mean()),
        dice=float(np.mean([dice(ours == value, theirs == value) for value in found])),
        labels=len(found),
    )


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Of two masks that are not both empty."""
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def line(name: str, row: Row, result: Outcome) -> str:
    """A line of the table, in Markdown."""
    planner = row.planner.removeprefix("nnUNetPlanner")
    about = f"{name} | {planner} | {row.configuration} | {row.storage} | {row.reader}"
    if result.refused:
        return f"| {about} | refused: {result.refused} | |"
    return f"| {about} | {result.different:.4f} | {result.dice:.5f} |"


def main() -> int:
    """Print the table; 1 if an accepted row differs in too many voxels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one row of each kind")
    parser.add_argument("--peers", type=Path, default=PEERS, help="python of nnunetv2")
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    given = parser.parse_args()
    rows = quick_rows() if given.quick else all_rows()
    if given.only:
        rows = {name: rows[name] for name in given.only}
    results = compare(rows, given.peers)
    print("| row | planner | configuration | stored | reader | differ % | Dice |")
    print("|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        print(line(name, row, results[name]))
    accepted = [each.different for each in results.values() if not each.refused]
    refused = len(results) - len(accepted)
    print(
        f"{len(accepted)} accepted, {refused} refused; at most "
        f"{max(accepted, default=0):.4f} % of voxels differ"
    )
    if given.json:
        content = {name: asdict(result) for name, result in results.items()}
        given.json.write_text(json.dumps(content, indent=1))
    return 0 if all(each.passes for each in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
