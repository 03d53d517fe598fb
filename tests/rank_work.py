"""What two ranks do in tests: losses whose sums span both, validation that they share,
work that fails on one of them. Imported by each rank, so it imports little.
"""

import os
from dataclasses import replace

import torch

from trivox.config.recipe import read_recipe
from trivox.datasets.splits import Split
from trivox.errors import DataError
from trivox.files import read_json
from trivox.learning.losses.choice import LOSSES, LossSetup
from trivox.learning.losses.combined import AdaptiveLoss
from trivox.learning.ranks.sharing import from_first, shared
from trivox.tasks.choice import task_named
from trivox.tasks.console import Quiet
from trivox.tasks.labels.validation import TrainedFolds, validate_folds
from trivox.tasks.stages import prepared_before
from trivox.tasks.task import RunRequest

NAMES = ("dice", "generalised_dice", "tversky", "focal_tversky", "cl_dice")
TERMS = ((1.0, 4.0), (3.0, 1.0))  # of the two ranks; swapped in the second window


# -- losses ----------------------------------------------------------------------------
def batch():
    torch.manual_seed(0)
    return torch.randn(2, 3, 5, 5, 5), torch.randint(0, 3, (2, 5, 5, 5))


def gradient(name, logits, labels):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(
        LOSSES[name](LossSetup(batch=True))(logits, labels), logits
    )[0]


def adaptive(rule, terms):
    """Gradients of outputs and log-variances, or the balance after two windows, of
    terms that are given.
    """
    now = {"terms": terms}
    loss = AdaptiveLoss(
        lambda x, _: now["terms"] * x, {"a": 1.0, "b": 1.0}, rule=rule, window=1
    )
    x = torch.ones(2, requires_grad=True)
    loss(x, x).backward()
    if rule == "uncertainty":
        return {"outputs": x.grad, "log_variance": loss.log_variance.grad}
    now["terms"] = terms.flip(0)
    loss(x, x)
    return {"factor": loss.factor}


def losses_of(rank):
    """Gradients and weights of a rank that has half of the batch."""
    half = [part[rank : rank + 1] for part in batch()]
    result = {name: gradient(name, *half) for name in NAMES}
    for rule in ("uncertainty", "balancing"):
        result |= adaptive(rule, torch.tensor(TERMS[rank]))
    return result


# -- validation ------------------------------------------------------------------------
def validated(data, run, out):
    """Validation of all cases by the weights of a run; two folds hold out one of them
    both.
    """
    task = task_named("segmentation")
    dataset = task.load(data)
    recipe = read_recipe(read_json(run / "recipe.json"))
    request = RunRequest(data, run)
    prepared = prepared_before(task, dataset, request, recipe, console=Quiet())
    names = tuple(case.name for case in dataset.training_cases)
    splits = (Split((), names[:3]), Split((), names[2:]))
    folds = TrainedFolds(
        replace(prepared, splits=splits),
        recipe,
        dict.fromkeys("01", run / "checkpoints" / "latest" / "weights.safetensors"),
        None,
        device="cpu",
    )
    return validate_folds(
        folds, out, task="segmentation", whole="everything", console=Quiet()
    )


def failures():
    """What each rank is told of a case that fails on the second one, and of plain work."""

    def compute(cases):
        if 3 in cases:
            raise DataError("case 3: is broken")
        return cases

    try:
        reason = shared(range(6), compute, ())
    except DataError as error:
        reason = str(error)
    squares = shared(range(5), lambda cases: [case**2 for case in cases], ())
    return [reason, squares, from_first(lambda: ("of the first", os.getpid()), ())]
