"""Containers for challenges: the context is whole, the same each time, and models that
do not fit are refused.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from container_inputs import SLUGS, files_below, random_model
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.brats import FAMILIES
from trivox.errors import BundleError, DataError, RecipeError, ResourceError
from trivox.exporting.containers import package_model

LINTERS = Path(sys.executable).parent
each_target = pytest.mark.parametrize(
    "target", ["brats", "grand_challenge", "docker", "mercure", "map"]
)


@pytest.fixture
def context(target, request):
    if target in ("brats", "grand_challenge"):
        return request.getfixturevalue(target)
    return request.getfixturevalue("contexts")[target]


def instructions(context):
    """Instruction and arguments of each line of the Dockerfile, continued lines joined."""
    text = (context / "Dockerfile").read_text()
    lines = text.replace("\\\n", " ").splitlines()
    code = [line for line in lines if line and not line.startswith("#")]
    return [line.split(maxsplit=1) for line in code]


def copied_names(context):
    """What the Dockerfile copies from the context."""
    names = set()
    for what, arguments in instructions(context):
        if what == "COPY":
            names |= {name.strip("/") for name in arguments.split()[:-1]}
    return names


# -- the context -----------------------------------------------------------------------
@each_target
def test_everything_that_is_copied_stands_in_the_context_and_is_not_ignored(context):
    ignored = (context / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line[0] == "!"}
    copied = copied_names(context)
    assert copied == allowed
    assert all((context / name).exists() for name in copied)
    (wheel,) = (context / "wheels").iterdir()
    assert f"wheels/{wheel.name}" in (context / "Dockerfile").read_text()


@each_target
def test_image_runs_as_a_user_without_rights_and_in_exec_form(context):
    steps = instructions(context)
    names = [what for what, _ in steps]
    assert set(names) - {"ENV"} == {
        "FROM",
        "ARG",
        "LABEL",
        "WORKDIR",
        "COPY",
        "RUN",
        "USER",
        "HEALTHCHECK",
        "ENTRYPOINT",
    }
    final = dict(steps)
    user = names.index("USER")
    assert int(final["USER"].partition(":")[0]) > 0
    assert "RUN" not in names[user:]
    assert "COPY" not in names[user:]
    home = next(arguments for what, arguments in steps if what == "WORKDIR")
    assert json.loads(final["ENTRYPOINT"])[-1] == f"{home}/predict.py"
    assert final["HEALTHCHECK"] == "NONE"
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", final["FROM"])


@pytest.mark.skipif(os.name == "nt", reason="no file modes on Windows")
def test_context_is_readable_for_everybody_whatever_the_umask(bundle, tmp_path):
    before = os.umask(0o077)
    try:
        package_model([bundle], tmp_path / "out", target="brats")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*")}
    assert modes == {0o755, 0o644}


def test_same_model_gives_the_same_bytes(brats, bundle, tmp_path):
    again = tmp_path / "again"
    package_model([bundle], again, target="brats")
    assert files_below(again) == files_below(brats)
    for name in files_below(brats):
        assert (again / name).read_bytes() == (brats / name).read_bytes()


def linted(tool, *arguments):
    program = shutil.which(tool) or shutil.which(tool, path=str(LINTERS))
    if program is None:
        pytest.skip(f"no {tool} here (pip install {tool}-py)")
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@each_target
def test_hadolint_finds_nothing(context):
    linted("hadolint", str(context / "Dockerfile"))


@each_target
def test_shellcheck_finds_nothing(context):
    linted("shellcheck", str(context / "smoke_test.sh"))


def test_only_what_inference_reads_is_copied_from_a_bundle(brats):
    names = {path.name for path in (brats / "models" / "model0").iterdir()}
    assert names == {"bundle.json", "weights-fold0.safetensors"}


def test_mounted_weights_stay_out_of_the_image(bundle, tmp_path):
    context = tmp_path / "context"
    package_model(
        [bundle],
        context,
        target="grand-challenge",
        input_slugs=SLUGS,
        output_slug="x",
        mounted_weights=True,
    )
    assert "models" not in copied_names(context)
    assert "/opt/ml/model" in (context / "README.md").read_text()


def test_post_treatment_models_are_tried_on_post_treatment_cases(tiny_run, tmp_path):
    labels = FAMILIES["post-treatment"].labels
    model = random_model(tiny_run, tmp_path / "m", labels=labels)
    contract = package_model([model], tmp_path / "context", target="brats")
    assert contract.values == (0, 1, 2, 3, 4)
    assert contract.example_cases[0] == "BraTS-GLI-00001-100"


# -- what is refused -------------------------------------------------------------------
def test_a_filled_folder_is_refused_and_an_empty_one_taken(bundle, tmp_path):
    filled = tmp_path / "filled"
    filled.mkdir()
    (filled / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        package_model([bundle], filled, target="brats")
    assert [path.name for path in filled.iterdir()] == ["mine.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    package_model([bundle], empty, target="brats")
    assert (empty / "Dockerfile").exists()


def test_an_error_halfway_leaves_nothing_behind(bundle, tmp_path, monkeypatch):
    def no_space(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trivox.exporting.containers.write_wheel", no_space)
    with pytest.raises(ResourceError, match="No space left"):
        package_model([bundle], tmp_path / "out", target="brats")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_filled_meanwhile_is_left_as_it_is(
    bundle, tmp_path, monkeypatch
):
    out = tmp_path / "out"

    def fill(folder):
        out.mkdir()
        (out / "theirs.txt").write_text("theirs")
        return folder / "trivox.whl"

    monkeypatch.setattr("trivox.exporting.containers.write_wheel", fill)
    with pytest.raises(ResourceError, match="cannot be written"):
        package_model([bundle], out, target="brats")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["theirs.txt"]


KIDNEY = LabelScheme(labels={"NCR": 1, "kidney": 2})
LARGE_VALUE = LabelScheme(labels={"organ": 300})


@pytest.mark.parametrize(
    ("target", "changes", "message"),
    [
        ("brats", {"channels": ("CT",)}, "BraTS gives T1, T1ce, T2 and FLAIR"),
        ("brats", {"channels": ("T1", "T1n")}, "once each"),
        ("brats", {"labels": KIDNEY}, "labels kidney are not those of BraTS"),
        ("brats", {"task": "multitask"}, "a model for multitask"),
        ("grand-challenge", {"labels": LARGE_VALUE}, "do not fit"),
    ],
)
def test_models_that_do_not_fit_the_target_are_refused(
    tiny_run, tmp_path, target, changes, message
):
    model = random_model(tiny_run, tmp_path / "model", **changes)
    slugs = {} if target == "brats" else {"input_slugs": SLUGS, "output_slug": "x"}
    with pytest.raises(BundleError, match=message):
        package_model([model], tmp_path / "out", target=target, **slugs)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("slugs", "output", "message"),
    [
        ({}, "x", "names the channels none"),
        ({"a": "T1"}, "x", "names the channels T1, the model reads T1, T1ce"),
        ({**SLUGS, "e": "T1"}, "x", "once for each"),
        (SLUGS, "", "a socket has no name; name them with .* and --output-slug SLUG"),
        (SLUGS, "../up", "'../up' is no slug"),
        ({**SLUGS, "a/b": "T1"}, "x", "'a/b' is no slug"),
    ],
)
def test_slugs_name_every_channel_once(bundle, tmp_path, slugs, output, message):
    with pytest.raises(RecipeError, match=message):
        package_model(
            [bundle],
            tmp_path / "out",
            target="grand-challenge",
            input_slugs=slugs,
            output_slug=output,
        )


@pytest.mark.parametrize(
    "options",
    [{"input_slugs": SLUGS}, {"output_slug": "x"}, {"mounted_weights": True}],
)
def test_brats_has_no_sockets(bundle, tmp_path, options):
    with pytest.raises(RecipeError, match="are for --target grand-challenge"):
        package_model([bundle], tmp_path / "out", target="brats", **options)


def test_a_folder_that_is_no_model_and_damaged_weights_are_refused(bundle, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(BundleError, match="no model"):
        package_model([tmp_path / "nothing"], tmp_path / "out", target="brats")
    harmed = shutil.copytree(bundle, tmp_path / "harmed")
    weights = harmed / "weights-fold0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="checksum"):
        package_model([harmed], tmp_path / "out", target="brats")
