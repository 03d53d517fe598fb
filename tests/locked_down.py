"""Programs run as containers run them: without rights, network and places to write."""

import shutil
import subprocess

import pytest

NOBODY = 65534


def locked(command, *, writable, user=NOBODY):
    """Run as a user who may read but not write, without network, on a read-only root file
    system.
    """
    limits = [
        "setpriv",
        f"--reuid={user}",
        f"--regid={user}",
        "--clear-groups",
        "--no-new-privs",
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=-all,+dac_read_search",
    ]
    namespaces = ["unshare", "--net", "--mount", "--propagation=private"]
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind / && exec "$@"'
    shell = [*namespaces, "bash", "-c", script, str(writable), *limits]
    touch = (
        f"! touch {writable.parent}/x 2>/dev/null "
        f"&& touch {writable}/x && rm {writable}/x"
    )
    if not works([*shell, "bash", "-c", touch]):
        pytest.skip(
            "no right to make namespaces here; "
            "what needs none is run in the other tests"
        )
    return subprocess.run(
        [*shell, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


def works(command):
    """Whether a program is here and succeeds."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
