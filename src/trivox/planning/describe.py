"""Plans in words, for the table that `trivox plan` and the report show."""

from collections.abc import Sequence
from numbers import Integral

from trivox.planning.plan import ImagePlan, Normalisation
from trivox.planning.volumes import VolumePlan

PlanDecision = tuple[str, str, str]
"""What, decision, reason."""


def sized(values: Sequence[float], *, digits: int = 3) -> str:
    """Lengths along the axes as `40 x 56 x 40`: whole numbers in full, others with so
    many significant digits.
    """
    return " x ".join(
        str(value) if isinstance(value, Integral) else f"{value:.{digits}g}"
        for value in values
    )


def describe_plan(plan: ImagePlan) -> list[PlanDecision]:
    """What was decided about images, as rows for people."""
    topology = plan.topology
    strides = ["".join(map(str, stride)) for stride in topology.strides]
    schemes = [_scheme(channel) for channel in plan.normalisations]
    low_resolution = plan.reasons.get("low_resolution", "")
    decisions = {
        "spacing (mm, z y x)": (sized(plan.spacing), "spacing"),
        "resampling": (plan.reasons.get("resampling", ""), "labels_kept"),
        "axis order": (" ".join("zyx"[axis] for axis in plan.axis_order), "axis_order"),
        "median size (voxels)": (sized(plan.median_shape), "median_shape"),
        "patch (voxels)": (sized(plan.patch_size), "patch_size"),
        "batch": (str(plan.batch_size), "batch_size"),
        "network": (plan.network, "topology"),
        "features": (" ".join(map(str, topology.features)), "features"),
        "strides": (" ".join(strides), "strides"),
        "inputs": (", ".join(plan.inputs), "inputs"),
        "normalisation": (", ".join(schemes), "normalisation"),
        "low resolution": (low_resolution, "second_configuration"),
        "memory (GB)": (f"{plan.memory.total / 1e9:.2f}", "memory"),
    }
    if "resampling" not in plan.reasons:
        del decisions["resampling"]
    return _rows(decisions, {**ALWAYS, **plan.reasons})


ALWAYS = {
    "median_shape": "of the training cases at that spacing",
    "labels_kept": "counted before and after, on the label maps",
    "second_configuration": "a second configuration for cases much larger than a patch",
}
"""Reasons that hold for every plan."""


def describe_volume_plan(plan: VolumePlan) -> list[PlanDecision]:
    """What was decided about volumes from X-rays, as rows for people."""
    low, high = plan.window
    prior: str = plan.prior
    if prior != "none":
        prior += f", {plan.prior_iterations} iterations"
    pixels = f"{sized(plan.detector)} pixels of {plan.pixel_mm:.4g} mm"
    distances = (
        f"source to isocentre {plan.sod_mm:g} mm, to detector {plan.sdd_mm:g} mm"
    )
    steps = f"{plan.consistency_steps}, and {plan.final_steps} at prediction"
    decisions = {
        "network": (plan.network, ""),
        "grid": (f"{sized(plan.shape)} voxels about the isocentre", ""),
        "spacing": (f"{sized(plan.spacing, digits=4)} mm", "spacing"),
        "HU window": (f"{low:g} to {high:g}", "window"),
        "X-rays": (pixels, "detector"),
        "distances": (distances, ""),
        "rendered from": (f"{sized(plan.render_shape)} voxels", "render_shape"),
        "water": (f"{plan.water_per_mm:g} / mm", ""),
        "prior": (prior, ""),
        "steps towards the X-rays": (steps, ""),
        "batch size": (str(plan.batch_size), ""),
    }
    return _rows(decisions, plan.reasons)


def _rows(
    decisions: dict[str, tuple[str, str]], reasons: dict[str, str]
) -> list[PlanDecision]:
    """Rows of what was decided, with the reason that each one names."""
    return [
        (what, decision, reasons.get(reason, ""))
        for what, (decision, reason) in decisions.items()
    ]


def _scheme(how: Normalisation) -> str:
    return f"{how.scheme} in the mask" if how.masked else how.scheme
