"""Commands that bring models to where scans are made and read."""

from pathlib import Path
from typing import Annotated, Any

from trivox.cli.answers import answers
from trivox.cli.options import Device, argument, option
from trivox.cli.terminal import Terminal


@answers("deidentify")
def deidentify(
    dicom: Annotated[list[Path], argument("deidentify", "dicom")],
    out: Annotated[Path, option("deidentify", "out")],
    key: Annotated[Path, option("deidentify", "key")],
    keep_dates: Annotated[bool, option("deidentify", "keep_dates")] = False,
    shift_dates: Annotated[bool, option("deidentify", "shift_dates")] = False,
) -> Any:
    """Write DICOM objects and scans anew, with nothing that names the person."""
    from trivox.verbs.clinic.deidentify import deidentify as run

    return run(
        dicom,
        out,
        key,
        keep_dates=keep_dates,
        shift_dates=shift_dates,
        console=Terminal(),
    )


def serve(
    model: Annotated[list[Path], argument("serve", "model", metavar="MODEL...")],
    data: Annotated[Path | None, option("serve", "data")] = None,
    profiles: Annotated[Path | None, option("serve", "profiles")] = None,
    host: Annotated[str, option("serve", "host")] = "127.0.0.1",
    port: Annotated[int, option("serve", "port", min=0, max=65535)] = 8470,
    token_file: Annotated[Path | None, option("serve", "token_file")] = None,
    insecure_no_auth: Annotated[bool, option("serve", "insecure_no_auth")] = False,
    allow_host: Annotated[list[str] | None, option("serve", "allow_host")] = None,
    tls_cert: Annotated[Path | None, option("serve", "tls_cert")] = None,
    tls_key: Annotated[Path | None, option("serve", "tls_key")] = None,
    workers: Annotated[int, option("serve", "workers", min=1, max=64)] = 1,
    device: Device = "auto",
    state: Annotated[Path | None, option("serve", "state")] = None,
    assets: Annotated[Path | None, option("serve", "assets")] = None,
    queue: Annotated[int, option("serve", "queue", min=1, max=100_000)] = 256,
    max_upload_gb: Annotated[
        float, option("serve", "max_upload_gb", min=0.001, max=1000)
    ] = 2.0,
    job_minutes: Annotated[
        float, option("serve", "job_minutes", min=0.01, max=10_000)
    ] = 60.0,
    job_memory_gb: Annotated[
        float | None, option("serve", "job_memory_gb", min=0.1, max=10_000)
    ] = None,
    keep_hours: Annotated[
        float, option("serve", "keep_hours", min=0.01, max=100_000)
    ] = 24.0,
) -> None:
    """Serve models behind an API, with a queue on disk that survives crashes."""
    from trivox.verbs.clinic.serve import serve as run

    run(
        list(model),
        data=data,
        profiles=profiles,
        host=host,
        port=port,
        token_file=token_file,
        insecure_no_auth=insecure_no_auth,
        allow_host=allow_host or (),
        tls_cert=tls_cert,
        tls_key=tls_key,
        workers=workers,
        device=device,
        state=state,
        assets=assets,
        queue=queue,
        max_upload_gb=max_upload_gb,
        job_minutes=job_minutes,
        job_memory_gb=job_memory_gb,
        keep_hours=keep_hours,
        console=Terminal(),
    )
