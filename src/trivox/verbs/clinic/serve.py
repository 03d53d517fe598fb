"""Models behind an API: what `trivox serve` does."""

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivox.caches import cache_folder
from trivox.cores import usable_cores
from trivox.errors import ResourceError, UsageError
from trivox.inference.bundle import model_paths, read_any_bundle
from trivox.inference.descriptions import LabelDescription
from trivox.inference.zoo.shelves import ready_models
from trivox.optional import optional_package
from trivox.outputs import require_folder_place
from trivox.service.profiles import read_profiles
from trivox.service.serve.settings import (
    GIBI,
    JobLimits,
    ServedModel,
    WorkSettings,
    usual_memory,
)
from trivox.tasks.console import Console, Quiet
from trivox.verbs.texts import described

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
COMMAND = (sys.executable, "-m", "trivox.verbs.clinic.worker")
WEAK = 16
"""Characters below which a token can be guessed."""
WILDCARDS = ("0.0.0.0", "::", "")
MINUTE = 60.0
HOUR = 3600.0
READABLE = 0o077
RUN = "bundle"
NAMES = 100


@described
def serve(
    model: Path | str | Sequence[Path | str],
    *,
    data: Path | str | None = None,
    profiles: Path | str | None = None,
    host: str = "127.0.0.1",
    port: int = 8470,
    token_file: Path | str | None = None,
    insecure_no_auth: bool = False,
    allow_host: Sequence[str] = (),
    tls_cert: Path | str | None = None,
    tls_key: Path | str | None = None,
    workers: int = 1,
    device: str = "auto",
    state: Path | str | None = None,
    assets: Path | str | None = None,
    queue: int = 256,
    max_upload_gb: float = 2.0,
    job_minutes: float = 60.0,
    job_memory_gb: float | None = None,
    keep_hours: float = 24.0,
    console: Console | None = None,
) -> None:
    """Serve models behind an API, with a queue on disk that survives crashes.

    Returns when the process is asked to stop. Raises `UsageError` for an address that
    others can reach without a token, `BundleError` for models that are damaged,
    `BusyError` where another server has the same folder.
    """
    _require_system()
    console = console or Quiet()
    tokens = read_tokens(token_file, console)
    _require_safe(host, tokens, insecure_no_auth)
    if tokens and not _is_local(host) and tls_cert is None:
        console.say(
            "the token travels in the clear: add --tls-cert, or a proxy with TLS"
        )
    folder = _state_folder(state)
    models = served_models([model] if isinstance(model, str | Path) else model)
    memory = usual_memory(workers) if job_memory_gb is None else job_memory_gb * GIBI
    limits = JobLimits(
        memory=int(memory),
        seconds=job_minutes * MINUTE,
        upload=int(max_upload_gb * GIBI),
        unpacked=int(4 * max_upload_gb * GIBI),
    )
    work = WorkSettings(
        folder=folder,
        models=models,
        device=device,
        cores=max(usable_cores() // workers, 1),
        limits=limits,
        archives=_archives(profiles),
    )
    run_service(
        work,
        workers=workers,
        queue=queue,
        keep=keep_hours * HOUR,
        access=Access(host, port, tuple(tokens), tuple(allow_host)),
        tls=_pair(tls_cert, tls_key),
        data=_folder(data, "--data"),
        assets=_folder(assets, "--assets"),
        console=console,
    )


@dataclass(frozen=True)
class Access:
    """Where the server listens, and for whom."""

    host: str
    port: int
    tokens: tuple[str, ...]
    names: tuple[str, ...]


def run_service(
    work: WorkSettings,
    *,
    workers: int,
    queue: int,
    keep: float,
    access: Access,
    tls: tuple[Path, Path] | None,
    data: Path | None,
    assets: Path | None,
    console: Console,
) -> None:
    """Serve with packages that the extra `serve` brings."""
    from trivox.service.serve.api.limits import ServerLimits, usual_reserve
    from trivox.service.serve.server import Address, Service, run

    limits = ServerLimits(
        queue=queue,
        per_client=max(queue // 2, 1),
        upload=work.limits.upload,
        reserve=usual_reserve(work.folder),
        keep=keep,
    )
    certificate, key = tls or (None, None)
    service = Service(
        work,
        [_view_of(each) for each in work.models],
        COMMAND,
        workers=workers,
        limits=limits,
        gate=_gate(access),
        address=Address(access.host, access.port, certificate, key),
        data=data,
        assets=assets,
    )
    run(service, console.say)


def _gate(access: Access) -> Any:
    from trivox.service.serve.api.security import Gate, host_name, token_digest

    own_names = ("localhost", socket.gethostname(), access.host, *access.names)
    names = frozenset(host_name(name) for name in own_names if name not in WILDCARDS)
    tokens = tuple(token_digest(token) for token in access.tokens)
    return Gate(tokens, names, addresses=access.host in WILDCARDS)


def _require_system() -> None:
    if not hasattr(os, "fork"):
        raise ResourceError(
            "trivox serve needs Linux or macOS; run it in WSL or a container"
        )
    for package in PACKAGES:
        optional_package(package, extra="serve")


def _is_local(host: str) -> bool:
    from trivox.service.serve.api.security import is_loopback

    return is_loopback(host)


def _require_safe(host: str, tokens: Sequence[str], insecure: bool) -> None:
    if _is_local(host) or tokens or insecure:
        return
    raise UsageError(
        f"--host {host}: others could reach the server without a token; give "
        "--token-file FILE, or --insecure-no-auth if everybody there may use it"
    )


def read_tokens(file: Path | str | None, console: Console) -> list[str]:
    """Tokens, one a line; raises `UsageError` for a file without any."""
    if file is None:
        return []
    path = Path(file)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        readable = path.stat().st_mode & READABLE
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: cannot be read as a list of tokens; check the path and its rights"
        ) from error
    tokens = [line.strip() for line in lines if line.strip()]
    if not tokens or not all(map(_is_token, tokens)):
        raise UsageError(
            f"{path}: must hold a token a line, of visible ASCII characters; make one "
            "with: openssl rand -hex 32"
        )
    if readable:
        console.say(
            f"{path}: others on this machine can read it; run: chmod 600 {path}"
        )
    if min(map(len, tokens)) < WEAK:
        console.say(f"{path}: a token is short; make one with: openssl rand -hex 32")
    return tokens


def _is_token(token: str) -> bool:
    return token.isascii() and token.isprintable() and " " not in token


def _state_folder(state: Path | str | None) -> Path:
    folder = cache_folder("serve") if state is None else Path(state)
    if folder is None:
        raise UsageError("there is no home for the jobs; name a folder with --state")
    require_folder_place(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


def _folder(given: Path | str | None, option: str) -> Path | None:
    if given is None:
        return None
    folder = Path(given).absolute()
    if not folder.is_dir():
        raise UsageError(f"{option} {given}: is no folder; name one that is there")
    return folder


def _archives(profiles: Path | str | None) -> Path | None:
    """The file of profiles; raises `FormatError` for one that is damaged."""
    if profiles is None:
        return None
    file = Path(profiles).absolute()
    read_profiles(file)
    return file


def _pair(
    certificate: Path | str | None, key: Path | str | None
) -> tuple[Path, Path] | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError("--tls-cert and --tls-key go together")
    return Path(certificate), Path(key)


def served_models(given: Sequence[Path | str]) -> tuple[ServedModel, ...]:
    """Models by name: that of a ready one, or of the folder of a run or bundle.

    Raises `BundleError` for one that is none or damaged, `UsageError` where two have the
    same name.
    """
    models = []
    for each in given:
        (folder,) = model_paths(Path(each))
        bundle = read_any_bundle(folder)
        bundle.checked(bundle.description.files)
        models.append(ServedModel(name=_name_of(each, folder), path=folder.absolute()))
    names = [each.name for each in models]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(
            f"two models are called {min(twice)}; rename the folder of one of them"
        )
    return tuple(models)


def _name_of(given: Path | str, folder: Path) -> str:
    """What clients call a model."""
    if folder in ready_models().values():
        return str(given)
    place = folder.absolute()
    if place.suffix == ".json":
        place = place.parent
    if place.name == RUN:
        place = place.parent
    letters = [
        each if each.isascii() and each.isalnum() else "-" for each in place.name
    ]
    return "".join(letters).strip("-")[:NAMES] or "model"


def _view_of(model: ServedModel) -> Any:
    """What clients are told of a model."""
    from trivox.service.serve.api.schemas import ModelView
    from trivox.verbs.clinic.engine import formats_of

    bundle = read_any_bundle(model.path)
    description = bundle.description
    labels: dict[str, int] = {}
    channels: list[str] = []
    classes: list[str] = []
    background = 0
    temperature: float | None = None
    if isinstance(description, LabelDescription):
        labels = dict(description.plan.labels.labels)
        background = description.plan.labels.background
        channels = list(description.plan.channels)
        answers = description.classification
        classes = [] if answers is None else list(answers.classes)
        temperature = None if answers is None else answers.temperature
    return ModelView(
        name=model.name,
        task=description.task,
        labels=labels,
        channels=channels,
        classes=classes,
        formats=list(formats_of(model.path)),
        version=description.trivox_version,
        identity=bundle.identity,
        sha256={each.file: each.sha256 for each in description.files},
        card=description.card,
        background=background,
        class_temperature=temperature,
    )
