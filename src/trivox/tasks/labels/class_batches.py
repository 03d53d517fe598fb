"""Batches with the class of each case, part of each centred on lesions."""

from collections.abc import Sequence

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Dataset
from trivox.datasets.labels import LabelScheme
from trivox.datasets.lesions import lesion_indices
from trivox.preparation.classes import CaseClasses
from trivox.preparation.sampler import LesionSampling
from trivox.preparation.store import Store


def lesion_sampling(
    dataset: Dataset, names: Sequence[str], labels: LabelScheme, recipe: Recipe
) -> LesionSampling:
    """Patches centred on lesions of the cases `names` that have a class; balanced: each
    class equally often.
    """
    options = recipe.classification
    wanted = set(names)
    by_class: dict[str, list[str]] = {name: [] for name in dataset.classes}
    known = []
    for case in dataset.cases:
        if case.name in wanted and case.class_name is not None:
            by_class[case.class_name].append(case.name)
            known.append(case.name)
    balanced = options.imbalance == "balanced_sampler"
    groups = list(by_class.values()) if balanced else [known]
    return LesionSampling(
        lesion_indices(labels, options.lesion),
        options.lesion_fraction,
        tuple(tuple(group) for group in groups if group),
    )


def case_classes(
    dataset: Dataset, store: Store, names: Sequence[str], lesion: Sequence[int]
) -> CaseClasses:
    """Class and lesion voxels of the cases `names`; a case without a mask has -1
    voxels, not none.
    """
    cases = {case.name: case for case in dataset.cases}
    index: dict[str, int] = {}
    voxels: dict[str, int] = {}
    for name in names:
        case = cases[name]
        if case.class_name is not None:
            index[name] = dataset.classes.index(case.class_name)
        voxels[name] = -1
        if case.label is not None:
            present = store.facts(name)["present"]
            voxels[name] = sum(present.get(str(value), 0) for value in lesion)
    return CaseClasses(index, voxels)
