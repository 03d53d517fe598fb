"""Models at work beside an archive: `trivox pacs watch` and `trivox node`."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from trivox.errors import UsageError
from trivox.learning.interruption import stop_signals
from trivox.outputs import require_folder_place
from trivox.service.jobs.queue import Queue
from trivox.service.jobs.states import Job
from trivox.service.jobs.work import Arrival, Worker
from trivox.service.node.commitments import Commitments
from trivox.service.node.intake import Intake, received_folder
from trivox.service.node.listener import Listener
from trivox.service.node.serving import serve
from trivox.service.objects import Shelf
from trivox.service.peers.archive import Archive
from trivox.service.peers.choice import archive_of
from trivox.service.profiles import (
    DicomWeb,
    Dimse,
    chosen_profile,
    read_profiles,
    users_profiles,
)
from trivox.service.pseudonyms import pseudonyms_of
from trivox.service.rules import SENDER, Rules, read_rules
from trivox.service.watch import Watched, watch
from trivox.tasks.console import Console, Quiet
from trivox.verbs.texts import described
from trivox.volumes.dicom.files import quiet

Profiles = Mapping[str, DicomWeb | Dimse]


@dataclass
class Station:
    """A folder in which the service works: its queue and its shelf."""

    folder: Path
    rules: Rules
    queue: Queue
    shelf: Shelf
    say: Callable[[str], None]
    stop: threading.Event

    def worker(
        self,
        archives: Mapping[str, Archive],
        senders: Mapping[str, str],
        arrivals: Callable[[Job], Arrival],
    ) -> Worker:
        """Who does the work there."""
        return Worker(
            self.folder,
            self.queue,
            self.rules,
            self.shelf,
            archives,
            senders,
            arrivals,
            self.say,
            self.stop,
        )


def new_stop() -> threading.Event:
    """What is set when the service is asked to stop."""
    return threading.Event()


def station_in(folder: Path, rules: Rules, console: Console | None) -> Station:
    """A station in a folder, which is made."""
    require_folder_place(folder)
    names = pseudonyms_of(folder)
    shelf = Shelf(received_folder(folder), names)
    said = (console or Quiet()).say
    return Station(folder, rules, Queue(folder), shelf, said, new_stop())


@described
def pacs_watch(
    rules: Path | str,
    out: Path | str,
    *,
    profiles: Path | str | None = None,
    pacs: str | None = None,
    once: bool = False,
    console: Console | None = None,
) -> str:
    """Watch an archive: series go through the model of their rule, and results back.

    Returns how many series are in which state. Raises `DataError` with `once` if some
    did not come to a good end.
    """
    known = read_profiles(None if profiles is None else Path(profiles))
    name, _ = chosen_profile(known, pacs)
    chosen = read_rules(Path(rules))
    chosen.require_profiles(known)
    station = station_in(Path(out), chosen, console)
    with _archives(known, [name, *_destinations(chosen)]) as archives:
        watched = Watched(
            archives[name], chosen, station.queue, station.shelf, station.say
        )
        worker = station.worker(archives, {}, watched.receive)
        with quiet(), stop_signals(station.stop.set):
            watch(watched, worker, once=once)
    if once and not station.stop.is_set():
        worker.require_done()
    return worker.summary()


@described
def node(
    rules: Path | str,
    out: Path | str = Path("trivox-node"),
    *,
    profiles: Path | str | None = None,
    bind: str | None = None,
    port: int | None = None,
    aet: str | None = None,
    console: Console | None = None,
) -> str:
    """Be a DICOM node: what peers send goes through the model of its rule, and the
    results where the rule says.

    Returns how many series are in which state. Raises `ResourceError` where the port
    cannot be listened at.
    """
    chosen = _with_options(read_rules(Path(rules)), bind=bind, port=port, aet=aet)
    known = _known_profiles(profiles)
    chosen.require_profiles(known)
    senders = _senders(chosen)
    wanted = [*senders.values(), *_destinations(chosen)]
    wanted += [chosen.node.count] if chosen.node.count else []
    station = station_in(Path(out), chosen, console)
    with _archives(known, wanted) as archives:
        listener = _listener(station, archives)
        worker = station.worker(archives, senders, listener.intake.receive)
        with quiet(), stop_signals(station.stop.set):
            serve(listener, worker)
    return worker.summary()


def _listener(station: Station, archives: Mapping[str, Archive]) -> Listener:
    """Who takes what peers send to a station."""
    settings = station.rules.node
    counting = archives[settings.count] if settings.count else None
    intake = Intake(station.rules, station.queue, station.shelf, station.say, counting)
    commitments = Commitments(settings, station.shelf, station.say)
    return Listener(settings, intake, commitments, station.say)


def _known_profiles(file: Path | str | None) -> Profiles:
    """The profiles of a file; none where none is named and the user has none."""
    if file is None and not users_profiles().exists():
        return {}
    return read_profiles(None if file is None else Path(file))


def _with_options(rules: Rules, **options: object) -> Rules:
    """Rules with what the command line says of the node."""
    from trivox.schema import validated
    from trivox.service.rules import Node

    given = {name: value for name, value in options.items() if value is not None}
    changed = validated(
        Node,
        {**rules.node.model_dump(), **given},
        where="node",
        error=UsageError,
        advice="correct the option or the rules",
    )
    return rules.model_copy(update={"node": changed})


def _senders(rules: Rules) -> dict[str, str]:
    """Where results go that belong back to a peer; raises `UsageError` if a rule sends
    there and nobody says where that is.
    """
    peers = rules.node.peers
    senders = {peer.aet: peer.profile for peer in peers if peer.profile is not None}
    lost = [peer.aet for peer in peers if peer.profile is None]
    if rules.answers_senders and (lost or not peers):
        raise UsageError(
            'rules: results go to "sender", so each [[node.peers]] needs a profile; name '
            "it, or another send_to"
        )
    return senders


def _destinations(rules: Rules) -> list[str]:
    names: list[str] = []
    for rule in rules.rules:
        names += [name for name in rule.send_to if name != SENDER]
    return names


@contextmanager
def _archives(known: Profiles, names: Iterable[str]) -> Iterator[dict[str, Archive]]:
    """Archives by name, closed in the end."""
    with ExitStack() as held:
        archives: dict[str, Archive] = {}
        for name in dict.fromkeys(names):
            archives[name] = archive_of(name, known[name])
            held.callback(archives[name].close)
        yield archives
