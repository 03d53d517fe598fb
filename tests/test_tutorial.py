"""docs/tutorial.md: a reader who pastes its commands gets what it promises."""

import re
import shlex
from pathlib import Path

from typer.testing import CliRunner

from trivox.cli import app

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
TINY = "--network unet-tiny --patch-size 16 16 16"
SMALLER = {
    "cases=20": "cases=6, shape=(16, 24, 20), spacing=(2.0, 1.5, 1.5)",
    "cases=4,": "cases=2, shape=(16, 24, 20), spacing=(2.0, 1.5, 1.5),",
    "--out plan.json": f"--out plan.json {TINY}",
    "--minutes 4": f"{TINY} --epochs 1 --set iterations_per_epoch=2 --set workers=0",
}
"""The same commands on less data, in seconds; every one of them must be on the page."""
MADE_BY = {
    "trivox check": [],
    "trivox plan": ["plan.json"],
    "trivox train": ["runs/first/report.html", "runs/first/bundle"],
    "trivox predict": [
        "predictions/phantom_000.nii.gz",
        "predictions/predictions.json",
    ],
    "trivox evaluate": ["metrics.json"],
    "trivox report": ["metrics.html"],
    "trivox explain": ["explained/saliency.png", "explained/feature_maps.png"],
    "trivox doctor": [],
    "python -c": ["scans/images", "new_scans/labels"],
}
"""What each command leaves; the page's other words rely on it."""


def commands():
    """The words of each command in the blocks marked `sh`, in order; a command may go
    over lines within quotes.
    """
    text = PAGE
    for what, smaller in SMALLER.items():
        assert text.count(what) == 1, what
        text = text.replace(what, smaller)
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    listed = []
    waiting = ""
    for line in "\n".join(blocks).splitlines():
        waiting += line + "\n"
        try:
            words = shlex.split(waiting, comments=True)
        except ValueError:  # a quotation goes on
            continue
        waiting = ""
        if words:
            listed.append(words)
    assert waiting == ""
    return listed


def test_every_command_does_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = []
    for words in commands():
        name = " ".join(words[:2])
        if name == "python -m":
            assert words[2] == "webbrowser"
            assert Path(words[3]).exists(), f"{words[3]} is opened and not there"
            continue
        if name == "python -c":
            exec(words[2], {})
        else:
            result = CliRunner().invoke(app, words[1:])
            assert result.exit_code == 0, (words, result.output, result.exception)
        for file in MADE_BY[name]:
            assert Path(file).exists(), f"{' '.join(words)} leaves no {file}"
        done.append(name)
    assert set(done) == set(MADE_BY)


def test_the_page_opens_what_was_written():
    opener = ["python", "-m", "webbrowser"]
    opened = [words[3] for words in commands() if words[:3] == opener]
    assert opened == ["runs/first/report.html", "metrics.html"]
