"""One model of an ensemble made ready: its networks with their weights, its windows and
mirrored copies.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from trivox.errors import BundleError
from trivox.inference.bundle import Bundle
from trivox.inference.classes.reader import ClassReader
from trivox.inference.doubt.uncertainty import wake_dropout
from trivox.inference.voting import Member, scaled_spacing
from trivox.inference.windows import SlidingWindows
from trivox.learning.case_classifier.classifier import CaseClassifier
from trivox.learning.checkpoints import load_weights
from trivox.learning.runtime import Runtime
from trivox.networks.class_head import LesionMasks, MultitaskNetwork, add_class_head
from trivox.networks.registry import build_network

AXES = {"z": 0, "y": 1, "x": 2}


def load_member(
    bundle: Bundle,
    runtime: Runtime,
    mirror: bool | None,
    overlap: float | None,
    mc_samples: int,
) -> Member:
    """The networks of a bundle on the runtime's device; None: mirrored copies and
    overlap as the bundle says.
    """
    description = bundle.description
    plan = description.plan
    axes = (
        description.mirror_axes if mirror is None else ("z", "y", "x") if mirror else ()
    )
    flipped = tuple(AXES[a] for a in axes if plan.patch_size[AXES[a]] > 1)
    networks = [
        _load_network(bundle, path).to(runtime.device).eval()
        for path in bundle.weight_files()
    ]
    segmenters = [
        network.segmenter if isinstance(network, MultitaskNetwork) else network
        for network in networks
    ]
    for segmenter in segmenters if mc_samples else ():
        wake_dropout(segmenter)
    windows = SlidingWindows(
        segmenters,
        plan.patch_size,
        plan.labels.output_channels,
        runtime,
        overlap=description.overlap if overlap is None else overlap,
        mirror_axes=flipped,
    )
    return Member(
        plan,
        windows,
        description.temperature,
        mc_samples,
        _readers(bundle, networks, runtime, flipped),
    )


def _load_network(bundle: Bundle, path: Path) -> nn.Module:
    plan, answers = bundle.description.plan, bundle.description.classification
    network = build_network(
        plan.network,
        plan.topology,
        channels=len(plan.inputs),
        outputs=plan.labels.output_channels,
        options=plan.network_options,
    )
    if answers is not None:
        network = add_class_head(
            network,
            plan.topology,
            name=plan.network,
            channels=len(plan.inputs),
            classes=len(answers.classes),
            masks=LesionMasks.of(plan.labels, answers.lesion, plan.spacing),
            width=answers.width,
        )
    try:
        network.load_state_dict(load_weights(path))
    except RuntimeError as error:
        raise BundleError(
            f"{path}: weights do not fit the plan of the bundle (made by another version?); train again"
        ) from error
    return network


def _readers(
    bundle: Bundle,
    networks: Sequence[nn.Module],
    runtime: Runtime,
    mirror_axes: tuple[int, ...],
) -> tuple[ClassReader, ...]:
    """What reads the class of a case with each network; none for a model without
    classes.
    """
    answers = bundle.description.classification
    if answers is None:
        return ()
    classifiers: list[CaseClassifier | None] = [
        CaseClassifier.load(file) for file in bundle.classifier_files()
    ]
    classifiers = classifiers or [None] * len(networks)
    if len(classifiers) != len(networks):
        raise BundleError(
            f"{bundle.folder}: {len(classifiers)} classifiers for {len(networks)} networks; export it again"
        )
    return tuple(
        ClassReader.of(
            network,
            bundle.description.plan,
            answers.lesion,
            runtime,
            mirror_axes=mirror_axes,
            classifier=classifier,
            temperature=answers.temperature,
        )
        for network, classifier in zip(networks, classifiers, strict=True)
        if isinstance(network, MultitaskNetwork)
    )


def scaled_member(member: Member, scale: float) -> Member:
    """The same networks looking at another spacing; what they read about the class
    holds for their own spacing only.
    """
    if scale == 1:
        return member
    plan = member.plan.model_copy(
        update={"spacing": scaled_spacing(member.plan, scale)}
    )
    return replace(member, plan=plan, readers=())
