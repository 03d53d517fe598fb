"""What the standard's own tools say of an object."""

import subprocess


def errors_of(path):
    """The errors that `dciodvfy` finds in a DICOM file."""
    done = subprocess.run(
        ["dciodvfy", "-new", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = (done.stdout + done.stderr).splitlines()
    assert said, "dciodvfy said nothing at all"
    return [line for line in said if line.startswith(("Error", "***"))]
