"""Small phantoms with a class that a network can learn."""

from pathlib import Path

import numpy as np

from trivox.datasets.phantoms.ellipsoids import PhantomSettings, phantom_case
from trivox.files import write_json
from trivox.volumes.formats import write_volume

CASES, UNKNOWN, UNMARKED = 14, 3, 5
"""All cases; one without a class, one without a mask."""


def write_classed_phantoms(folder: Path) -> Path:
    """Phantoms whose lesions are bright (class b, the odd ones) or dark (class a)."""
    settings = PhantomSettings(
        cases=CASES,
        shape=(16, 24, 20),
        spacing=(2.0, 1.5, 1.5),
        lesions=1,
        spacing_variation=0.0,
    )
    entries = []
    for index in range(CASES):
        image, label = phantom_case(settings, index)
        array = image.array.astype(np.float32)
        array[label.array == 2] += 400 if index % 2 else -300
        name = f"case_{index:02d}"
        write_volume(folder / f"{name}.nii.gz", image.with_array(array))
        entry = {
            "case": name,
            "images": [f"{name}.nii.gz"],
            "class": "ab"[index % 2],
            "patient": f"p{index}",
        }
        if index == UNKNOWN:
            del entry["class"]
        if index != UNMARKED:
            write_volume(folder / "labels" / f"{name}.nii.gz", label)
            entry["label"] = f"labels/{name}.nii.gz"
        entries.append(entry)
    write_json(
        folder / "manifest.json",
        {"labels": {"organ": 1, "lesion": 2}, "classes": ["a", "b"], "cases": entries},
    )
    return folder
