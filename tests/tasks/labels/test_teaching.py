"""The objective of a student: what its labels say and what its teacher answers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loss_cases import few
from training_toys import Scripted
from trivox.config.recipe import make_recipe
from trivox.datasets.labels import IGNORED
from trivox.errors import PlanError, RecipeError
from trivox.inference.bundle import read_bundle
from trivox.networks.class_head import Outputs
from trivox.networks.registry import PATCH_NETWORKS, build_network
from trivox.planning.planner import student_plan
from trivox.planning.topology import as_slices, fitted_topology
from trivox.tasks.labels.objective import SegmentationObjective
from trivox.tasks.labels.teachers import Voter, require_same_grid
from trivox.tasks.labels.teaching import TaughtObjective, Teacher
from trivox.tasks.reconstruction.task import ReconstructionTask
from untrained_models import plan_of, write_untrained

RECIPE = make_recipe("quick_test", {"network": "unet-tiny"})


def teacher_of(folder, *, temperature=2.0, **options):
    bundle = read_bundle(write_untrained(folder, **options))
    (weights,) = bundle.description.weights
    voter = Voter(bundle, weights, frozenset())
    return Teacher.of([voter, voter], temperature)


def taught(folder, weight, *, regions=False):
    teacher = teacher_of(folder, regions=regions)
    learnt = SegmentationObjective.of(plan_of(regions=regions), RECIPE)
    return TaughtObjective(learnt, teacher, weight)


def batch(seed=0, count=2):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 16, 16, 16, generator=generator)
    labels = torch.randint(0, 4, (count, 16, 16, 16), generator=generator)
    return images, labels.to(torch.int16)


def student(outputs, *, scales=2):
    torch.manual_seed(5)
    sizes = [(16, 16, 16), (8, 8, 8)][:scales]
    return [torch.randn(2, outputs, *size, requires_grad=True) for size in sizes]


@pytest.mark.parametrize("regions", [False, True])
def test_the_weight_goes_from_labels_to_teacher(tmp_path, regions):
    images, labels = batch()
    values = {}
    for weight in (0.0, 0.25, 1.0):
        objective = taught(tmp_path / str(weight), weight, regions=regions)
        outputs = student(objective.learnt.labels.output_channels)
        targets = objective.targets(images, labels)
        values[weight] = float(objective.loss(outputs, targets).detach())
    by_labels = float(objective.learnt.loss(outputs, labels).detach())
    assert values[0.0] == pytest.approx(by_labels)
    between = 0.75 * values[0.0] + 0.25 * values[1.0]
    assert values[0.25] == pytest.approx(between, rel=1e-5)
    # validation goes by the labels
    assert float(objective.loss(outputs, labels).detach()) == pytest.approx(by_labels)


@pytest.mark.parametrize("regions", [False, True])
def test_where_nothing_is_labelled_the_teacher_alone_is_learnt(tmp_path, regions):
    objective = taught(tmp_path, 0.5, regions=regions)
    images, labels = batch()
    labels[:] = IGNORED
    outputs = student(objective.learnt.labels.output_channels)
    targets = objective.targets(images, labels)
    value = objective.loss(outputs, targets)
    by_teacher = objective.teacher.distance(outputs[0], targets.answers)
    assert float(value.detach()) == pytest.approx(0.5 * float(by_teacher.detach()))
    value.backward()
    assert float(outputs[0].grad.abs().max()) > 0
    assert all(output.grad.isfinite().all() for output in outputs)
    assert float(outputs[1].grad.abs().max()) == 0  # the finest output alone


@few
@given(st.integers(0, 9))
def test_a_teacher_answers_for_each_patch_as_for_it_alone(tmp_path_factory, seed):
    teacher = teacher_of(tmp_path_factory.mktemp("teacher"), dropout=0.5)
    images, _ = batch(seed, count=3)
    together = teacher.answers(images)
    alone = torch.cat([teacher.answers(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.equal(together, teacher.answers(images))  # dropout sleeps
    assert torch.allclose(together.sum(1), torch.ones(3, 16, 16, 16), atol=1e-5)
    assert not together.requires_grad


def test_a_teacher_learns_nothing(tmp_path):
    objective = taught(tmp_path, 0.5)
    assert objective.module is None
    for network in objective.teacher.networks:
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_label_maps_of_networks_with_classes_are_taught(tmp_path):
    objective = taught(tmp_path, 0.5)
    images, labels = batch()
    outputs = student(4)
    silent = TaughtObjective(OfClasses(), objective.teacher, 0.5)
    both = Outputs(segmentation=outputs, classes=torch.ones(2, 2))
    targets = silent.targets(images, labels)
    value = float(silent.loss(both, targets).detach())
    by_teacher = objective.teacher.distance(outputs[0], targets.answers)
    assert value == pytest.approx(0.5 * 4 + 0.5 * float(by_teacher.detach()))


class OfClasses(Scripted):
    """A loss of classes alone."""

    def __init__(self):
        super().__init__([])

    def loss(self, outputs, targets):
        return outputs.classes.sum()


@pytest.mark.parametrize(
    "network", [name for name in PATCH_NETWORKS if not name.startswith("swin")]
)
def test_the_patch_of_a_student_suits_both_networks(network):
    teacher = plan_of(patch=(24, 16, 20))
    recipe = make_recipe("quick_test", {"network": network})
    blueprint = PATCH_NETWORKS[network].blueprint
    plan = student_plan([teacher], recipe, blueprint, cases=9, activation_bytes=4)
    for topology in (plan.topology, teacher.topology):
        steps = np.array(topology.divisor)
        assert not (np.array(plan.patch_size) % steps).any()
    assert all(np.array(plan.patch_size) >= np.array(teacher.patch_size))
    assert plan.preparation_key == teacher.preparation_key
    assert plan.network == network
    assert plan.memory != teacher.memory


def test_a_student_of_slices_looks_at_slices():
    blueprint = PATCH_NETWORKS["unet-tiny"].blueprint
    flat = student_plan([_slices()], RECIPE, blueprint, cases=9, activation_bytes=4)
    assert flat.patch_size[0] == 1
    network = build_network("unet-tiny", flat.topology, channels=1, outputs=4).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, *flat.patch_size)).shape[2:] == flat.patch_size


def _slices():
    blueprint = PATCH_NETWORKS["nnunet-plain"].blueprint
    topology, patch = fitted_topology(blueprint, (32, 24), (2.0, 2.0))
    changes = {
        "dimension": 2,
        "patch_size": (1, *patch),
        "topology": as_slices(topology),
    }
    return plan_of().model_copy(update=changes)


def test_patches_that_a_teacher_cannot_read_are_refused(tmp_path):
    bundle = read_bundle(write_untrained(tmp_path))
    plan = bundle.description.plan
    require_same_grid(plan, [bundle])
    for changes in ({"patch_size": (18, 18, 18)}, {"spacing": (1.0, 1.0, 1.0)}):
        with pytest.raises(PlanError, match="leave --plan out"):
            require_same_grid(plan.model_copy(update=changes), [bundle])


def test_settings_that_teach_nothing_are_refused():
    with pytest.raises(RecipeError, match="nothing without teachers"):
        make_recipe("quick_test", {"distillation": {"unlabelled": "images"}})
    recipe = make_recipe("quick_test", {"distillation": {"teachers": ["run"]}})
    with pytest.raises(RecipeError, match="leave distillation out"):
        ReconstructionTask().require_possible(recipe)
