"""Models that are ready to use: `trivox.models`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trivox.errors import ResourceError, TrivoxError
from trivox.inference.bundle import read_any_bundle
from trivox.inference.descriptions import LabelDescription, VolumeDescription
from trivox.inference.zoo.card import Card
from trivox.inference.zoo.release import Release, fetch_model
from trivox.inference.zoo.shelves import known_names, ready_models, users_shelf
from trivox.tasks.console import Console, Quiet
from trivox.verbs.texts import described

MEGABYTE = 1e6


@dataclass(frozen=True)
class ReadyModel:
    """A model that has a name.

    folder: of its bundle; None: not here yet; bytes: of its weights; inputs, outputs:
    what goes in and what comes out, in words; trouble: why it cannot be used, empty
    where it can.
    """

    name: str
    folder: Path | None = None
    task: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    bytes: int = 0
    identity: str = ""
    card: Card | None = field(default=None, repr=False)
    trouble: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """What people want to know of it; the first line says what it is."""
        if self.trouble:
            return (f"{self.name}: {self.trouble}",)
        what = f"{', '.join(self.inputs)} to {', '.join(self.outputs)}"
        size = f"{self.bytes / MEGABYTE:.1f} MB"
        first = f"{self.name}: {self.task}, {what}, {size}, {self.folder}"
        if self.card is None:
            return (first,)
        rows = [f"  {heading:12} {text}" for heading, text in self.card.lines]
        return (first, f"  {self.card.summary}", *rows)


@described
def models(
    fetch: str | Sequence[str] = (),
    *,
    source: Path | str | None = None,
    console: Console | None = None,
) -> tuple[ReadyModel, ...]:
    """List the models that are ready to use, with their cards.

    Returns all of them by name, those of this version that are not here yet included.
    Raises `BundleError` for names that the release does not have and for files that
    differ from its index, `ResourceError` where it cannot be reached.
    """
    names = [fetch] if isinstance(fetch, str) else list(fetch)
    if names:
        _fetch(names, source, (console or Quiet()).say)
    here = ready_models()
    return tuple(_listed(name, here.get(name)) for name in known_names())


def _fetch(
    names: Sequence[str], source: Path | str | None, say: Callable[[str], None]
) -> None:
    shelf = users_shelf()
    if shelf is None:
        raise ResourceError(
            "fetched models lie in the user's cache, and there is no home; give the "
            "release's folder of a model by its path instead"
        )
    release = Release.at(source)
    for name in names:
        release.model(name)
    for name in names:
        fetch_model(release, name, shelf, require=_require_usable, say=say)


def _require_usable(folder: Path) -> None:
    """Raise `BundleError` for a bundle that this version cannot read."""
    bundle = read_any_bundle(folder)
    bundle.checked(bundle.description.files)


def _listed(name: str, folder: Path | None) -> ReadyModel:
    """A model as the list shows it; one that is damaged says so."""
    if folder is None:
        trouble = f"not here yet; get it with 'trivox models fetch {name}'"
        return ReadyModel(name, trouble=trouble)
    try:
        bundle = read_any_bundle(folder)
        files = bundle.checked(bundle.description.files)
    except TrivoxError as error:
        return ReadyModel(name, folder, trouble=str(error))
    description = bundle.description
    inputs, outputs = _ends(description)
    return ReadyModel(
        name,
        folder,
        task=description.task,
        inputs=inputs,
        outputs=outputs,
        bytes=sum(file.stat().st_size for file in files),
        identity=bundle.identity,
        card=description.card,
    )


def _ends(
    description: LabelDescription | VolumeDescription,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What goes into a model and what comes out."""
    if isinstance(description, LabelDescription):
        answers = description.classification
        classes = () if answers is None else answers.classes
        return description.plan.channels, (*description.plan.labels.targets, *classes)
    views = ", ".join(str(number) for number in description.views)
    return (f"{views} X-rays",), ("a volume in HU",)
