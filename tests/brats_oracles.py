"""What the official packages say about a pair of label maps; `python brats_oracles.py
EVAL_PY OUT` writes the golden file.

Runs in `benchmarks/.venv-oracles` (made by `benchmarks/setup_oracles.sh`): medpy (the
HD95 of nnU-Net's BraTS evaluation), brats-evaluation on panoptica (2025). EVAL_PY:
`eval.py` of github.com/rachitsaluja/BraTS-2023-Metrics, which is no package.
"""

import importlib.util
import json
import math
import sys
import tempfile
import warnings
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from brats_cases import REGIONS, brats_cases

if not hasattr(np, "Inf"):  # surface-distance 0.1 is older than numpy 2
    np.Inf = np.inf  # noqa: NPY201

CHALLENGES = {"gli": "BraTS-GLI", "met": "BraTS-MET"}
LEGACY_PENALTY = math.sqrt(240**2 + 240**2 + 155**2)


def legacy(prediction, reference, spacing):
    """nnU-Net's rules for BraTS 2018-2020 (its Task082): medpy's HD95, 373.13 mm where
    one mask is empty.
    """
    from medpy.metric.binary import dc, hd95

    result = {}
    for name, values in REGIONS.items():
        predicted = np.isin(prediction, values)
        true = np.isin(reference, values)
        dice = float(dc(predicted, true)) if true.any() else float(not predicted.any())
        distance = 0.0 if not predicted.any() and not true.any() else LEGACY_PENALTY
        if predicted.any() and true.any():
            distance = float(hd95(predicted, true, spacing))
        result[name] = {"dice": dice, "hd95_mm": distance}
    return result


LESION_WISE = {
    "dice": "LesionWise_Score_Dice",
    "hd95_mm": "LesionWise_Score_HD95",
    "lesions_found": "Num_TP",
    "lesions_spurious": "Num_FP",
    "lesions_missed": "Num_FN",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "whole_dice": "Legacy_Dice",
    "whole_hd95_mm": "Legacy_HD95",
}
"""Metric -> column of the script's table."""


def lesion_wise(prediction, reference, spacing, challenge, eval_py):
    """The official script of 2023 and 2024, run on files."""
    import nibabel

    script = _script_of_2023(eval_py)
    affine = np.diag([*spacing[::-1], 1.0])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = []
        for name, array in (("prediction", prediction), ("reference", reference)):
            path = str(Path(folder) / f"{name}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(array.T, affine), path)
            paths.append(path)
        table = script.get_LesionWiseResults(*paths, challenge_name=challenge)
    table = table.set_index("Labels")
    result = {}
    for region in REGIONS:
        row = table.loc[region]
        result[region] = {name: float(row[key]) for name, key in LESION_WISE.items()}
    return result


def _script_of_2023(eval_py):
    """The script as a module, made to run with today's packages."""
    import pandas
    import surface_distance as google

    if not hasattr(pandas.DataFrame, "append"):  # the script was written for pandas 1
        pandas.DataFrame.append = lambda self, other: pandas.concat([self, other])
    spec = importlib.util.spec_from_file_location("brats_2023", eval_py)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def surface_distances(first, second, mm):
        """The script's own copy took integers as masks."""
        masks = first.astype(bool), second.astype(bool)
        return google.compute_surface_distances(*masks, mm)

    script.surface_distance = SimpleNamespace(
        compute_surface_distances=surface_distances,
        compute_robust_hausdorff=google.compute_robust_hausdorff,
    )
    scores = script.get_LesionWiseScores

    def hashable(**arguments):
        """Today's pandas cannot search columns of arrays for infinity."""
        *before, pairs, dice, hd95, volume, predicted, sensitivity, specificity = (
            scores(**arguments)
        )
        pairs = [(tuple(numbers), *rest) for numbers, *rest in pairs]
        return *before, pairs, dice, hd95, volume, predicted, sensitivity, specificity

    script.get_LesionWiseScores = hashable
    return script


INSTANCE_WISE = {
    "dice": "global_bin_dsc",
    "nsd": "global_bin_nsd",
    "hd95_mm": "global_bin_hd95",
    "instance_dice": "sq_dsc",
    "instance_nsd": "sq_nsd",
    "instance_hd95_mm": "sq_hd95",
    "lesions_found": "tp",
    "lesions_spurious": "fp",
    "lesions_missed": "fn",
    "lesion_precision": "prec",
    "lesion_sensitivity": "rec",
    "rq": "rq",
    "pq": "pq_dsc",
}
"""Metric -> panoptica's name."""


def instance_wise(prediction, reference, spacing):
    """brats-evaluation's configuration for gliomas; infinite distances become 373 as in
    its parser, NaN None.
    """
    from panoptica import Panoptica_Evaluator

    config = files("brats_evaluation").joinpath("configs", "config_gli.yaml")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = Panoptica_Evaluator.load_from_config(str(config))
        groups = evaluator.evaluate(
            np.ascontiguousarray(prediction.T),
            np.ascontiguousarray(reference.T),
            voxelspacing=spacing[::-1],
            skip_groups=["snfh", "netc", "rc"],
        )
        results = {name.upper(): group.to_dict() for name, group in groups.items()}
    known = {}
    for region in REGIONS:
        values = results[region]
        known[region] = {
            name: _known(values.get(key)) for name, key in INSTANCE_WISE.items()
        }
    return known


def _known(value):
    if value is None or math.isnan(value):
        return None
    return 373.0 if math.isinf(value) else float(value)


def golden(eval_py):
    """Convention -> case -> region -> metric -> value."""
    values = {convention: {} for convention in ("legacy", *CHALLENGES, "instance")}
    for name, case in brats_cases().items():
        values["legacy"][name] = legacy(*case)
        for key, challenge in CHALLENGES.items():
            values[key][name] = lesion_wise(*case, challenge, eval_py)
        values["instance"][name] = instance_wise(*case)
    return values


if __name__ == "__main__":
    _, eval_py, out = sys.argv
    Path(out).write_text(json.dumps(golden(eval_py), indent=1) + "\n")
