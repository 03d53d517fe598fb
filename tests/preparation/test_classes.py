"""Classes of cases: given where the lesion is in view, the batch itself untouched."""

import torch

from trivox.config.options import Augmentation
from trivox.preparation.batches import BatchSource
from trivox.preparation.classes import CaseClasses, Classed
from trivox.preparation.sampler import LesionSampling, PatchSampler

CPU = torch.device("cpu")
CLASSES = CaseClasses(index={"a": 1, "b": 0}, lesion_voxels={"a": 7, "b": -1})


def source(store, **changes):
    lesions = LesionSampling(indices=(1,), fraction=0.5, groups=(("a",), ("b",)))
    sampler = PatchSampler(store, ("a", "b", "c"), (8, 8, 8), 4, lesions=lesions)
    settings = {"seed": 3, "spacing": (1.0, 1.0, 1.0), "positions": range(4)}
    return BatchSource(sampler, **settings, **changes)


def test_in_training_a_class_comes_only_with_patches_centred_on_the_lesion(store):
    made = source(store, augmentation=Augmentation())
    for step in range(5):
        batch = made.read(step)
        _, targets = Classed(made, CLASSES).read(step).finish(CPU)
        wanted = [CLASSES.index[case] for case in batch.cases[2:]]
        assert targets.classes.tolist() == [-1, -1, *wanted]


def test_in_validation_every_patch_of_a_known_case_has_its_class(store):
    made = source(store)
    for step in range(5):
        batch = made.read(step)
        _, targets = Classed(made, CLASSES).read(step).finish(CPU)
        wanted = [CLASSES.index.get(case, -1) for case in batch.cases]
        assert targets.classes.tolist() == wanted
        voxels = [CLASSES.lesion_voxels.get(case, -1) for case in batch.cases]
        assert targets.lesion.tolist() == voxels


def test_classes_change_nothing_about_images_and_labels(store):
    made = source(store, augmentation=Augmentation(rotation=1))
    images, labels = made.read(2).finish(CPU)
    again, targets = Classed(made, CLASSES).read(2).finish(CPU)
    assert torch.equal(again, images)
    assert torch.equal(targets.labels, labels)
    assert torch.equal(targets[1:3].classes, targets.classes[1:3])
    assert len(targets) == 4
