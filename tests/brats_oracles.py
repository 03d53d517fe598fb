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
    np.Inf = np.inf

CHALLENGES = {
    "gli": ("BraTS-GLI", 3, 50),
    "met": ("BraTS-MET", 1, 2),
}  # name, dilation, smallest lesion
LEGACY_PENALTY = math.sqrt(240**2 + 240**2 + 155**2)


def legacy(prediction, reference, spacing):
    """nnU-Net's rules for BraTS 2018-2020 (its Task082): medpy's HD95, 373.13 mm where
    one mask is empty.
    """
    from medpy.metric.binary import dc, hd95

    result = {}
    for name, values in REGIONS.items():
        a, b = np.isin(prediction, values), np.isin(reference, values)
        if not b.any():
            result[name] = {
                "dice": float(not a.any()),
                "hd95_mm": LEGACY_PENALTY if a.any() else 0.0,
            }
        else:
            distance = hd95(a, b, spacing) if a.any() else LEGACY_PENALTY
            result[name] = {"dice": float(dc(a, b)), "hd95_mm": float(distance)}
    return result


def lesion_wise(prediction, reference, spacing, challenge, eval_py):
    """The official script of 2023 and 2024, run on files."""
    import nibabel
    import pandas
    import surface_distance as google

    if not hasattr(pandas.DataFrame, "append"):  # the script was written for pandas 1
        pandas.DataFrame.append = lambda self, other: pandas.concat([self, other])
    spec = importlib.util.spec_from_file_location("brats_2023", eval_py)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.surface_distance = (
        SimpleNamespace(  # the script's own copy took integers as masks
            compute_surface_distances=lambda a, b, mm: google.compute_surface_distances(
                a.astype(bool), b.astype(bool), mm
            ),
            compute_robust_hausdorff=google.compute_robust_hausdorff,
        )
    )
    scores = script.get_LesionWiseScores

    def hashable(
        **arguments,
    ):  # today's pandas cannot search columns of arrays for infinity
        *before, pairs, dice, hd95, volume, predicted, sensitivity, specificity = (
            scores(**arguments)
        )
        pairs = [(tuple(numbers), *rest) for numbers, *rest in pairs]
        return *before, pairs, dice, hd95, volume, predicted, sensitivity, specificity

    script.get_LesionWiseScores = hashable
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = []
        for name, array in (("prediction", prediction), ("reference", reference)):
            paths.append(str(Path(folder) / f"{name}.nii.gz"))
            nibabel.save(
                nibabel.Nifti1Image(array.T, np.diag([*spacing[::-1], 1.0])), paths[-1]
            )
        table = script.get_LesionWiseResults(
            *paths, challenge_name=challenge
        ).set_index("Labels")
    names = {
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
    return {
        region: {
            ours: float(table.loc[region, theirs]) for ours, theirs in names.items()
        }
        for region in REGIONS
    }


def instance_wise(prediction, reference, spacing):
    """brats-evaluation's configuration for gliomas; infinite distances become 373 as in
    its parser, NaN None.
    """
    from panoptica import Panoptica_Evaluator

    config = files("brats_evaluation").joinpath("configs", "config_gli.yaml")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = Panoptica_Evaluator.load_from_config(str(config))
        found = evaluator.evaluate(
            np.ascontiguousarray(prediction.T),
            np.ascontiguousarray(reference.T),
            voxelspacing=spacing[::-1],
            skip_groups=["snfh", "netc", "rc"],
        )
        results = {name.upper(): result.to_dict() for name, result in found.items()}
    names = {
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
    return {
        region: {
            ours: _known(results[region].get(theirs)) for ours, theirs in names.items()
        }
        for region in REGIONS
    }


def _known(value):
    if value is None or math.isnan(value):
        return None
    return 373.0 if math.isinf(value) else float(value)


def golden(eval_py):
    """Convention -> case -> region -> metric -> value."""
    cases = brats_cases()
    return {
        "legacy": {name: legacy(*case) for name, case in cases.items()},
        **{
            key: {
                name: lesion_wise(*case, challenge, eval_py)
                for name, case in cases.items()
            }
            for key, (challenge, _, _) in CHALLENGES.items()
        },
        "instance": {name: instance_wise(*case) for name, case in cases.items()},
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(golden(sys.argv[1]), indent=1) + "\n")
