"""Rules in one TOML file: which series go through which model, what comes of them, and
where that goes.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from trivox.errors import FormatError, UsageError, few
from trivox.schema import Frozen, validated
from trivox.service.profiles import Port, Seconds, Title, is_this_machine, read_toml

ADVICE = "correct the file; docs/how-to/connect-to-a-pacs.md lists what rules may say"
SENDER = "sender"
"""The archive that a series came from, as a destination."""
PRIORITIES = {"urgent": 2, "normal": 1, "low": 0}
TAG = re.compile(r"[0-9A-Fa-f]{8}|[0-9A-Fa-f]{4},[0-9A-Fa-f]{4}")
OPTIONS_OF_OURS = ("--out", "--format", "--cases", "--overwrite", "--json")
"""Options of `trivox predict` that the service gives itself."""
LONGEST = 10_000
"""Letters of a value that a pattern is held against."""

Look = Callable[[str], str | None]
"""The value of an attribute by its keyword, blank where the object has none, None where
nobody can say yet."""


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is no regular expression ({error})") from error
    return text


def _keyword(name: str) -> str:
    """The keyword of an attribute, given as such or as its tag."""
    from pydicom.datadict import keyword_for_tag, tag_for_keyword

    if TAG.fullmatch(name):
        name = keyword_for_tag(int(name.replace(",", ""), 16))
    if tag_for_keyword(name) is None:
        raise ValueError("is no keyword and no tag of DICOM's dictionary")
    return name


Pattern = Annotated[str, AfterValidator(_pattern)]
Keyword = Annotated[str, AfterValidator(_keyword)]


class Rule(Frozen):
    """Which series a model is for, and what becomes of its results.

    modality, body_part: one, or several, as DICOM has them; description: pattern in
    the series' description; tags: pattern by attribute; instances: fewest objects of a
    series; formats: of the results; send_to: names of profiles, or "sender"; options:
    for `trivox predict`; time_limit: seconds of a prediction.
    """

    name: str = Field(min_length=1, max_length=60, pattern=r"^[\w .+-]+$")
    model: str = Field(min_length=1)
    modality: str | tuple[str, ...] = ()
    description: Pattern | None = None
    study_description: Pattern | None = None
    body_part: str | tuple[str, ...] = ()
    tags: Mapping[Keyword, Pattern] = Field(default_factory=dict)
    instances: int = Field(1, ge=1, le=1_000_000)
    formats: tuple[str, ...] = ("dicom-seg",)
    priority: Literal["urgent", "normal", "low"] = "normal"
    send_to: tuple[str, ...] = (SENDER,)
    options: tuple[str, ...] = ()
    time_limit: Seconds = 3600.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for option in self.options:
            name = option.split("=", 1)[0]
            if name in OPTIONS_OF_OURS:
                raise ValueError(f"options: {name} is given by the service itself")
        if not self.formats or not all(name.strip() for name in self.formats):
            raise ValueError("formats: name at least one")
        return self

    @property
    def rank(self) -> int:
        """The higher, the earlier."""
        return PRIORITIES[self.priority]

    def fits(self, look: Look) -> bool | None:
        """Whether a series is of this rule; None: not known before its files are here."""
        answers = [_holds(look(keyword), test) for keyword, test in self._tests()]
        if False in answers:
            return False
        return None if None in answers else True

    def _tests(self) -> Iterable[tuple[str, Callable[[str], bool]]]:
        """By attribute, what its value must be."""
        if self.modality:
            yield "Modality", _one_of(self.modality)
        if self.body_part:
            yield "BodyPartExamined", _one_of(self.body_part)
        patterns = dict(self.tags)
        if self.description is not None:
            patterns["SeriesDescription"] = self.description
        if self.study_description is not None:
            patterns["StudyDescription"] = self.study_description
        for keyword, pattern in patterns.items():
            yield keyword, _matches(pattern)


def _holds(value: str | None, test: Callable[[str], bool]) -> bool | None:
    return None if value is None else test(value[:LONGEST])


def _one_of(wanted: str | tuple[str, ...]) -> Callable[[str], bool]:
    names = (wanted,) if isinstance(wanted, str) else wanted
    folded = {name.strip().casefold() for name in names}
    return lambda value: value.strip().casefold() in folded


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda value: compiled.search(value) is not None


class Intake(Frozen):
    """How series come in and how long they stay.

    every: seconds between two looks at the archive; days: how far back studies are
    looked for; stable: seconds without a new object after which a series is taken to
    be whole; keep_hours: how long the files of series that are done stay here.
    """

    every: Seconds = 30.0
    days: int = Field(2, ge=0, le=36_500)
    stable: float = Field(30.0, ge=0, le=86_400)
    keep_hours: float = Field(24.0, ge=0, le=100_000)


class Peer(Frozen):
    """Who may send to the node: a title, from an address.

    host: its address, or none where the title is enough; port: where it listens for
    commitments; profile: where "sender" leads for what it sends.
    """

    aet: Title
    host: str | None = Field(None, min_length=1)
    port: Port | None = None
    profile: str | None = None


class Node(Frozen):
    """How the node listens.

    bind: address; anybody but this machine reaches it only where another than the
    loopback is given; peers: who may send; count: profile that is asked how many
    objects a series has; largest_gb: of one object; free_gb: that stay free on the
    disk.
    """

    bind: str = "127.0.0.1"
    port: Port = 11112
    aet: Title = "TRIVOX"
    peers: tuple[Peer, ...] = ()
    count: str | None = None
    associations: int = Field(10, ge=1, le=1000)
    timeout: Seconds = 60.0
    largest_gb: float = Field(4.0, gt=0, le=1000)
    free_gb: float = Field(1.0, ge=0, le=100_000)
    cert_file: Path | None = None
    key_file: Path | None = None
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not is_this_machine(self.bind) and not self.peers:
            raise ValueError("name the peers that may send where others can reach it")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("TLS needs cert_file and key_file")
        if self.ca_file is not None and self.cert_file is None:
            raise ValueError("ca_file needs cert_file and key_file")
        return self


class Rules(Frozen):
    """All that `rules.toml` says; the first rule that fits a series counts."""

    rules: tuple[Rule, ...] = Field(min_length=1)
    intake: Intake = Intake()
    node: Node = Node()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [rule.name for rule in self.rules]
        double = [name for name in names if names.count(name) > 1]
        if double:
            raise ValueError(f"two rules are called {double[0]!r}")
        return self

    def named(self, name: str) -> Rule | None:
        """The rule of a name, None where there is none any more."""
        return next((rule for rule in self.rules if rule.name == name), None)

    def candidate(self, look: Look) -> Rule | None:
        """The first rule that fits or may fit a series; None if none can."""
        return next((r for r in self.rules if r.fits(look) is not False), None)

    def chosen(self, look: Look, count: int) -> Rule | None:
        """The first rule that fits a series of so many objects, all of them known."""
        enough = (rule for rule in self.rules if count >= rule.instances)
        return next((rule for rule in enough if rule.fits(look)), None)

    def require_profiles(self, names: Iterable[str]) -> None:
        """Raise `UsageError` for a destination that no profile describes."""
        known = {SENDER, *names}
        wanted = list(chain.from_iterable(rule.send_to for rule in self.rules))
        wanted += [peer.profile for peer in self.node.peers if peer.profile]
        wanted += [self.node.count] if self.node.count else []
        missing = sorted(set(wanted) - known)
        if missing:
            raise UsageError(
                f"rules: {few(missing)}: there is no such profile; there are: "
                f"{few(sorted(names)) or 'none'}"
            )

    @property
    def answers_senders(self) -> bool:
        """Whether a rule sends results to where the series came from."""
        return any(SENDER in rule.send_to for rule in self.rules)


def read_rules(file: Path) -> Rules:
    """The rules of a file; raises `FormatError` in one line. Paths in it are relative to
    its folder.
    """
    content = read_toml(file, "the rules")
    node = content.get("node")
    if isinstance(node, dict):
        for name in ("cert_file", "key_file", "ca_file"):
            if isinstance(node.get(name), str):
                node[name] = file.parent / Path(node[name]).expanduser()
    return validated(Rules, content, where=file, error=FormatError, advice=ADVICE)
