"""What new cases that are predicted together change in what was promised of volumes."""

from collections.abc import Sequence

from trivox.datasets.dataset import Case
from trivox.errors import ResourceError, TrivoxError, UsageError
from trivox.inference.doubt.shift import Cohort, features_of, weigh_cohort
from trivox.inference.judge import look_of
from trivox.inference.predictor import Predictor
from trivox.tasks.console import Console


def weighed(predictor: Predictor, cases: Sequence[Case], console: Console) -> Cohort:
    """Weigh the validation cases of a model by how much they look like new cases, whose
    images are read for it; those that cannot be read are left out.

    Raises `UsageError` for several models, and one that does not know what its
    validation cases look like.
    """
    if len(predictor.descriptions) > 1:
        raise UsageError(
            "--weighted-intervals needs one model: validation cases are weighed for each "
            "model by itself"
        )
    (description,) = predictor.descriptions
    known = description.volume_cases
    intervals = description.volumes
    if known is None or intervals is None:
        raise UsageError(
            "--weighted-intervals: the model does not know what its validation cases look "
            "like, it was imported, or trained by an earlier version or with fewer than "
            "19 of them; train it again"
        )
    looks = {}
    for case in console.track(cases, len(cases), "looking at images"):
        try:
            begun = predictor.begin(case)
            ready = begun.made_ready(predictor.members, predictor.descriptions)
        except ResourceError:
            raise
        except TrivoxError:
            continue  # prediction says what is wrong with it
        look = look_of(ready.cases[0], predictor.members[0].plan)
        looks[case.name] = features_of(look)
    cohort = weigh_cohort(known, intervals, looks)
    console.say(f"volumes: {cohort.remark}")
    return cohort
