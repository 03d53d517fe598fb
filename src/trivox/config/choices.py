"""Names that users choose from. Nothing heavy is imported here, so that the command line can
list them at once; tests hold them equal to what the rooms know.
"""

from enum import StrEnum
from typing import Any, Literal, get_args

from trivox.errors import RecipeError

TaskName = Literal["segmentation", "multitask", "reconstruction"]
"""Tasks that give a model."""
USUAL_TASK: TaskName = "segmentation"
PresetName = Literal["quick_test", "production", "fine_tuning", "large"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
EngineName = Literal["torch", "openvino", "onnx"]
"""What computes networks at prediction."""
EngineChoice = Literal["auto", "torch", "openvino", "onnx"]
ExportTarget = Literal["onnx", "openvino", "tensorrt", "triton", "web"]
"""What a model is exported to."""
ExportPrecision = Literal["fp32", "bf16", "fp16", "int8"]
MissingChannels = Literal["refuse", "zeros"]
"""Cases that lack a channel: refuse them, or take zeros for it."""
MissedKind = Literal["voxels", "lesions"]
"""Of what at most a share may be missed."""
DateRule = Literal["remove", "shift", "keep"]
"""What becomes of dates when scans are de-identified."""
SeriesRule = Literal["largest", "thinnest", "axial"]
"""Which of several DICOM series is meant: that of most slices, that of the smallest slice
distance, those whose slices lie across the body.
"""
UncertaintyKind = Literal["entropy", "mutual_information", "variance"]


class Uncertainty(StrEnum):
    """`UncertaintyKind` for an option that may be given several times."""

    ENTROPY = "entropy"
    MUTUAL_INFORMATION = "mutual_information"
    VARIANCE = "variance"


SplitRule = Literal["patient", "intensity"]
"""How cases are dealt to folds."""
ResultFormat = Literal["nifti", "dicom-seg", "rtstruct", "sr", "png", "dicom-ct"]
"""What predictions are written as."""
SegType = Literal["binary", "labelmap", "fractional"]
"""Kinds of DICOM segmentations: a plane of bits a segment, whole numbers, or
probabilities.
"""
ConventionName = Literal[
    "trivox", "brats-legacy", "brats-lesion-wise", "brats-instance"
]
ViewFormat = Literal["npz", "nifti"]
DemoName = Literal["segmentation", "brats", "multitask", "reconstruction"]
USUAL_DEMO: DemoName = "segmentation"
CheckpointName = Literal["final", "best", "latest"]
BratsFormat = Literal["brats", "nnunet"]
ClassFoldersFormat = Literal["nnunet"]
ContainerTarget = Literal["brats", "grand-challenge", "docker", "mercure", "map"]


def require_choice(what: str, value: str, choices: Any) -> None:
    """Raise `RecipeError` for a value that a `Literal` does not list."""
    known = get_args(choices)
    if value not in known:
        raise RecipeError(
            f"{what} '{value}' does not exist; choose one of {', '.join(known)}"
        )
