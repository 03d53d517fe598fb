"""The models that a small network learns from: which of their networks answer, on which
cases these were trained, and the plan that follows from theirs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trivox.config.options import DistillationOptions
from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Dataset
from trivox.datasets.splits import trained_splits
from trivox.errors import BundleError, PlanError, RecipeError, TrivoxError
from trivox.inference.bundle import LabelBundle, read_bundle
from trivox.inference.descriptions import Weights
from trivox.inference.members import require_alike
from trivox.learning.runtime import Runtime
from trivox.networks.registry import patch_family
from trivox.planning.plan import Plan
from trivox.planning.planner import student_plan
from trivox.tasks.labels.prepared import PreparedImages


@dataclass(frozen=True, eq=False)
class Voter:
    """A network that answers.

    trained_on: names of its training cases, None where that is not known.
    """

    bundle: LabelBundle
    weights: Weights
    trained_on: frozenset[str] | None

    def may_know(self, names: Iterable[str]) -> bool:
        """Whether it was trained on any of the cases `names`, or may have been."""
        return self.trained_on is None or not self.trained_on.isdisjoint(names)


def read_teachers(options: DistillationOptions) -> list[LabelBundle]:
    """The models that teach; raises `BundleError` for those that cannot teach, not
    together, or that are others than the options name.
    """
    bundles = [read_bundle(Path(path)) for path in options.teachers]
    first = bundles[0]
    require_alike(bundles)
    for bundle in bundles:
        plan = bundle.description.plan
        if plan.refines:
            raise BundleError(
                f"{bundle.folder}: refines the labels of a coarser model, which patches "
                "alone do not show; distil a model of one stage"
            )
        if plan.preparation_key != first.description.plan.preparation_key:
            raise BundleError(
                f"{bundle.folder}: prepares images otherwise than {first.folder} "
                "(spacing, normalisation): they cannot teach together; give models of "
                "one plan"
            )
    named = dict(zip(options.teachers, options.identities, strict=False))
    for path, bundle in zip(options.teachers, bundles, strict=True):
        if named.get(path, bundle.identity) != bundle.identity:
            raise BundleError(
                f"{path}: holds model {bundle.identity}, not {named[path]} as when this "
                "run began; restore it, or choose another --out"
            )
    return bundles


def voters(
    bundles: Sequence[LabelBundle], options: DistillationOptions, fold: int | str
) -> list[Voter]:
    """The networks that answer in a fold; raises `RecipeError` where there are none."""
    chosen: list[Voter] = []
    for bundle in bundles:
        for weights in bundle.description.weights:
            if options.networks == "all" or weights.fold == str(fold):
                cases = _trained_on(bundle, weights.fold)
                chosen.append(Voter(bundle, weights, cases))
    if not chosen:
        there = sorted({w.fold for each in bundles for w in each.description.weights})
        raise RecipeError(
            f"{bundles[0].folder}: has no network of fold {fold} to teach that fold; "
            f"choose --fold {' or '.join(there)}, or leave --fold out: all networks "
            "teach one student"
        )
    return chosen


def _trained_on(bundle: LabelBundle, fold: str) -> frozenset[str] | None:
    """Cases that a network was trained on; None where its run is not at hand, and where
    an ensemble taught it, each of which knew others.
    """
    run = bundle.run
    if run is None or _taught_by_ensemble(bundle):
        return None
    try:
        split = trained_splits(run, [fold])[0]
    except (TrivoxError, IndexError):
        return None
    return frozenset(split.train)


def _taught_by_ensemble(bundle: LabelBundle) -> bool:
    recipe = bundle.description.training.get("recipe")
    taught = recipe.get("distillation") if isinstance(recipe, dict) else None
    if not isinstance(taught, dict):
        return False
    return bool(taught.get("teachers")) and taught.get("networks") == "all"


def plan_of_student(dataset: Dataset, recipe: Recipe, runtime: Runtime) -> Plan:
    """The plan of a network that learns from teachers; raises `PlanError` where these
    know other channels or labels than the dataset.
    """
    bundles = read_teachers(recipe.distillation)
    plans = [bundle.description.plan for bundle in bundles]
    known = (plans[0].channels, plans[0].labels)
    if known != (dataset.channels, dataset.labels):
        raise PlanError(
            f"{bundles[0].folder}: was trained on other channels or labels than "
            f"{dataset.root} has; give the dataset of the teacher, or another teacher"
        )
    plan = student_plan(
        plans,
        recipe,
        patch_family(recipe.network).blueprint,
        cases=len(dataset.training_cases),
        activation_bytes=runtime.activation_bytes,
        gpu=runtime.on_gpu,
    )
    return plan.model_copy(update={"dataset": dataset.name})


def require_same_grid(plan: Plan, bundles: Sequence[LabelBundle]) -> None:
    """Raise `PlanError` for a plan whose patches teachers cannot read."""
    for bundle in bundles:
        theirs = bundle.description.plan
        steps = zip(plan.patch_size, theirs.topology.divisor, strict=True)
        halves = all(size % step == 0 for size, step in steps)
        if plan.preparation_key != theirs.preparation_key or not halves:
            raise PlanError(
                f"plan.json: its patches are not such as {bundle.folder} reads; leave "
                "--plan out, the plan of a student follows from its teacher"
            )


def known_cases(
    prepared: PreparedImages, recipe: Recipe, folds: Iterable[int]
) -> list[str]:
    """A warning for the reader of the figures, if held-out cases of folds are such as
    their teachers were trained on.
    """
    options = recipe.distillation
    if not options.teachers:
        return []
    bundles = read_teachers(options)
    knowing = 0
    asked = 0
    for fold in folds:
        held_out = prepared.splits[fold].validation
        answering = voters(bundles, options, fold)
        knowing += sum(voter.may_know(held_out) for voter in answering)
        asked += len(answering)
    if not knowing:
        return []
    return [
        f"{knowing} of the {asked} networks that taught this model were trained on "
        "cases held out here, or it is not known on which: the figures flatter; measure "
        "it on cases that none of them has seen, or distil with --fold, where each fold "
        "learns from its own network alone"
    ]
