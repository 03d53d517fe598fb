"""Containers for challenges: the context is whole, the entry point keeps the contract,
bad cases are named.

Nothing here needs Docker: the entry point is the file that the image runs, with other
folders for /input and /output.
"""

import importlib.util
import json
import os
import re
import resource
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import trivox
from trivox import Predictor, Volume, write_volume
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.brats import FAMILIES, SEQUENCES
from trivox.errors import BundleError, RecipeError, ResourceError
from trivox.exporting.containers import package_model
from trivox.exporting.own_wheel import installed_versions, write_wheel
from trivox.inference.bundle import read_bundle, write_bundle
from trivox.inference.descriptions import LabelDescription

SHAPE = (14, 18, 16)
SLUGS = {"t1-mri": "T1", "t1-contrast": "T1ce", "t2-mri": "T2", "flair-mri": "FLAIR"}
LINTERS = Path(sys.executable).parent


def random_model(
    run,
    out,
    *,
    channels=SEQUENCES,
    labels=FAMILIES["2021"].labels,
    seed=0,
    task="segmentation",
):
    """A bundle of the tiny run's network with random weights."""
    import torch
    from safetensors.torch import save_file

    from trivox.networks.registry import build_network

    plan = read_bundle(run).description.plan
    plan = plan.model_copy(
        update={
            "channels": tuple(channels),
            "labels": labels,
            "dataset": "Tiny BraTS",
            "task": task,
            "normalisations": plan.normalisations[:1] * len(channels),
        }
    )
    torch.manual_seed(seed)
    network = build_network(
        plan.network,
        plan.topology,
        channels=len(channels),
        outputs=labels.output_channels,
        options=plan.network_options,
    )
    out.mkdir(parents=True)
    save_file(network.state_dict(), out / "random.safetensors")
    description = LabelDescription(task=plan.task, plan=plan)
    write_bundle(out, description, {"0": out / "random.safetensors"})
    return out


@pytest.fixture(scope="module")
def bundle(tiny_run, tmp_path_factory):
    return random_model(tiny_run, tmp_path_factory.mktemp("models") / "bundle")


@pytest.fixture(scope="module")
def brats(bundle, tmp_path_factory):
    """A packaged model, `/input` style; tests read it and never write into it."""
    out = tmp_path_factory.mktemp("context") / "brats"
    package_model([bundle], out, target="brats")
    return out


@pytest.fixture(scope="module")
def grand_challenge(bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("context") / "grand-challenge"
    package_model(
        [bundle], out, target="grand-challenge", input_slugs=SLUGS, output_slug="tumour"
    )
    return out


def enter(context, capsys, **options):
    """Run the entry point; returns exit code and lines on stderr."""
    arguments = [
        part for name, value in options.items() for part in (f"--{name}", str(value))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["predict.py", "--device", "cpu", *arguments])
        try:
            runpy.run_path(str(context / "predict.py"), run_name="__main__")
            code = 0
        except SystemExit as stop:
            code = stop.code
    return code, capsys.readouterr().err.splitlines()


def scan(path, seed, affine=None):
    noise = np.random.default_rng(seed).normal(100, 20, (1, *SHAPE)).astype(np.float32)
    write_volume(
        path,
        Volume(noise, np.diag([-1.0, -1.0, 1.0, 1.0]) if affine is None else affine),
    )
    return path


def brats_case(folder, name, *, family="2023", flat=False, without=()):
    place = folder if flat else folder / name
    place.mkdir(parents=True, exist_ok=True)
    return [
        scan(place / FAMILIES[family].file_name(name, sequence), seed)
        for seed, sequence in enumerate(SEQUENCES)
        if sequence not in without
    ]


def instructions(context):
    """Instruction and arguments of each line of the Dockerfile, continued lines joined."""
    text = (context / "Dockerfile").read_text()
    lines = [
        line
        for line in text.replace("\\\n", " ").splitlines()
        if line and not line.startswith("#")
    ]
    return [line.split(maxsplit=1) for line in lines]


# the context


@pytest.mark.parametrize("target", ["brats", "grand_challenge"])
def test_everything_that_is_copied_stands_in_the_context_and_is_not_ignored(
    target, request
):
    context = request.getfixturevalue(target)
    allowed = {
        line.removeprefix("!")
        for line in (context / ".dockerignore").read_text().splitlines()
        if line[0] == "!"
    }
    copied = {
        name.strip("/")
        for what, given in instructions(context)
        if what == "COPY"
        for name in given.split()[:-1]
    }
    assert copied == allowed
    assert all((context / name).exists() for name in copied)
    wheels = [path.name for path in (context / "wheels").iterdir()]
    assert len(wheels) == 1
    assert f"wheels/{wheels[0]}" in (context / "Dockerfile").read_text()


@pytest.mark.parametrize("target", ["brats", "grand_challenge"])
def test_image_runs_as_a_user_without_rights_and_in_exec_form(target, request):
    steps = instructions(request.getfixturevalue(target))
    names = [what for what, _ in steps]
    assert set(names) == {
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
    assert int(final["USER"].partition(":")[0]) > 0
    assert names.index("USER") > max(
        i for i, what in enumerate(names) if what in ("RUN", "COPY")
    )
    assert json.loads(final["ENTRYPOINT"])[-1] == "/opt/trivox/predict.py"
    assert final["HEALTHCHECK"] == "NONE"
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", final["FROM"])


def test_context_is_readable_for_everybody_whatever_the_umask(bundle, tmp_path):
    before = os.umask(0o077)
    try:
        package_model([bundle], tmp_path / "out", target="brats")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*")}
    assert modes == {0o755, 0o644}


def test_same_model_gives_the_same_bytes(brats, bundle, tmp_path):
    package_model([bundle], tmp_path / "again", target="brats")
    first = {
        path.relative_to(brats): path.read_bytes()
        for path in brats.rglob("*")
        if path.is_file()
    }
    again = tmp_path / "again"
    assert first == {
        path.relative_to(again): path.read_bytes()
        for path in again.rglob("*")
        if path.is_file()
    }


def linted(tool, *arguments):
    program = shutil.which(tool) or shutil.which(tool, path=str(LINTERS))
    if program is None:
        pytest.skip(f"no {tool} here (pip install {tool}-py)")
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", ["brats", "grand_challenge"])
def test_hadolint_finds_nothing(target, request):
    linted("hadolint", str(request.getfixturevalue(target) / "Dockerfile"))


@pytest.mark.parametrize("target", ["brats", "grand_challenge"])
def test_shellcheck_finds_nothing(target, request):
    linted("shellcheck", str(request.getfixturevalue(target) / "smoke_test.sh"))


def test_only_what_inference_reads_is_copied_from_a_bundle(brats):
    assert {path.name for path in (brats / "models" / "model0").iterdir()} == {
        "bundle.json",
        "weights-fold0.safetensors",
    }


# trivox in the image


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """trivox as the image has it: the wheel, installed by pip."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = write_wheel(folder / "wheels")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        folder / "site",
        wheel,
    ]
    subprocess.run([str(part) for part in command], check=True)
    return folder / "site"


def test_wheel_holds_the_imported_package_and_what_it_needs(installed):
    source = Path(trivox.__file__).parent
    files = {
        path.relative_to(source)
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = installed / "trivox"
    assert {
        path.relative_to(found)
        for path in found.rglob("*")
        if path.suffix != ".pyc" and path.is_file()
    } == files
    assert all(
        (found / name).read_bytes() == (source / name).read_bytes() for name in files
    )
    about = next(installed.glob("trivox-*.dist-info"))
    assert "Requires-Dist: torch" in (about / "METADATA").read_text()


def test_versions_are_those_that_run_here_without_build_labels(brats):
    import torch

    versions = installed_versions()
    assert versions["torch"] == torch.__version__.partition("+")[0]
    assert versions["numpy"] == np.__version__
    assert {"jinja2", "markupsafe"} <= set(versions)  # what is needed indirectly counts
    assert not {"pytest", "trivox", "fastapi"} & set(versions)
    lines = (brats / "constraints.txt").read_text().splitlines()
    assert lines == [f"{name}=={version}" for name, version in versions.items()]


# brats


def test_locked_container_predicts_what_trivox_predicts(
    brats, bundle, installed, tmp_path
):
    """From the wheel, as nobody, without network, nothing writable but /output: label
    maps and not a file more.
    """
    name = "BraTS-GLI-00007-000"
    images, out = brats_case(tmp_path / "input", name), tmp_path / "output"
    out.mkdir()
    out.chmod(0o777)
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(installed)!r}); import trivox, os; print(trivox.__file__, "
        f"os.getuid()); runpy.run_path({str(brats / 'predict.py')!r}, run_name='__main__')"
    )
    done = locked(
        [
            sys.executable,
            "-I",
            "-B",
            "-c",
            code,
            "--device",
            "cpu",
            "--input",
            tmp_path / "input",
            "--output",
            out,
        ],
        writable=out,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == [
        str(installed / "trivox" / "__init__.py"),
        "65534",
    ]
    assert [path.name for path in out.iterdir()] == [f"{name}.nii.gz"]
    written, source = nib.load(out / f"{name}.nii.gz"), nib.load(images[0])
    np.testing.assert_array_equal(written.affine, source.affine)
    labels = Predictor.load(bundle, device="cpu").predict_file(images).labels.array[0]
    assert set(np.unique(labels)) == {0, 1, 2, 4}
    np.testing.assert_array_equal(
        np.asarray(written.dataobj).T, np.where(labels == 4, 3, labels)
    )


def locked(command, *, writable):
    """Run as nobody, who may read but not write, without network, on a read-only root
    file system.
    """
    limits = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--no-new-privs",
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=-all,+dac_read_search",
    ]
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind / && exec "$@"'
    shell = [
        "unshare",
        "--net",
        "--mount",
        "--propagation",
        "private",
        "bash",
        "-c",
        script,
        writable,
        *limits,
    ]
    check = [
        "bash",
        "-c",
        f"! touch {writable.parent}/x 2>/dev/null && touch {writable}/x && rm {writable}/x",
    ]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*shell, *check], capture_output=True, check=False).returncode
    ):
        pytest.skip(
            "no right to make namespaces here; the entry point is run without them in the other tests"
        )
    return subprocess.run(
        [*map(str, shell), *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


def test_every_case_comes_back_in_the_values_of_its_own_family(brats, tmp_path, capsys):
    brats_case(tmp_path / "in", "BraTS2021_00001", family="2021", flat=True)
    brats_case(tmp_path / "in", "BraTS-GLI-00002-000", flat=True)
    assert enter(brats, capsys, input=tmp_path / "in", output=tmp_path / "out") == (
        0,
        [],
    )
    values = {
        path.name: set(np.unique(np.asarray(nib.load(path).dataobj)))
        for path in (tmp_path / "out").iterdir()
    }
    assert values == {
        "BraTS2021_00001.nii.gz": {0, 1, 2, 4},
        "BraTS-GLI-00002-000.nii.gz": {0, 1, 2, 3},
    }


def test_bad_cases_are_named_and_the_others_predicted(brats, tmp_path, capsys):
    brats_case(tmp_path / "in", "BraTS-GLI-00001-000")
    brats_case(tmp_path / "in", "BraTS-GLI-00002-000")[2].write_bytes(b"no image")
    brats_case(tmp_path / "in", "BraTS-GLI-00003-000", without=["T2"])
    (tmp_path / "in" / "BraTS-GLI-00004-000").mkdir()
    code, lines = enter(brats, capsys, input=tmp_path / "in", output=tmp_path / "out")
    assert code == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == [
        "BraTS-GLI-00001-000.nii.gz"
    ]
    for number, what in ((2, "not a gzip file"), (3, "has no T2"), (4, "no images")):
        assert [
            what in line
            for line in lines
            if line.startswith(f"BraTS-GLI-0000{number}-000: set aside")
        ] == [True]
    assert lines[-1].startswith("error: 3 of 4 cases failed: ")


def test_a_missing_sequence_is_predicted_if_packaged_so(bundle, tmp_path, capsys):
    package_model(
        [bundle], tmp_path / "context", target="brats", missing_channels="zeros"
    )
    brats_case(tmp_path / "in", "BraTS-GLI-00003-000", without=["T2"])
    assert enter(
        tmp_path / "context", capsys, input=tmp_path / "in", output=tmp_path / "out"
    ) == (0, [])
    assert (tmp_path / "out" / "BraTS-GLI-00003-000.nii.gz").exists()


def test_the_command_of_earlier_challenges_is_understood(
    brats, tmp_path, capsys, monkeypatch
):
    brats_case(tmp_path / "in", "BraTS-GLI-00001-000")
    given = [
        "infer",
        f"--data_path={tmp_path / 'in'}",
        f"--output_path={tmp_path / 'out'}",
        "--parameters_file=/none.yml",
    ]
    monkeypatch.setattr(sys, "argv", ["predict.py", *given])
    runpy.run_path(str(brats / "predict.py"), run_name="__main__")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [
        "BraTS-GLI-00001-000.nii.gz"
    ]


def test_an_empty_input_is_one_line(brats, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    code, lines = enter(brats, capsys, input=tmp_path / "in", output=tmp_path / "out")
    assert (code, len(lines)) == (1, 1)
    assert str(tmp_path / "in") in lines[0]


@pytest.mark.parametrize("target", ["brats", "grand_challenge"])
def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    target, request, tmp_path, capsys
):
    context, folder = request.getfixturevalue(target), tmp_path / "in"
    brats_case(folder, "BraTS-GLI-00001-000") if target == "brats" else sockets(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (128, limits[1]))
    try:
        code, lines = enter(context, capsys, input=folder, output=tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (code, len(lines)) == (1, 1)
    assert re.fullmatch("error: .* cannot be written .*", lines[0])
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


# grand-challenge


def sockets(folder, *, moved=False, key="socket"):
    """Images as the platform mounts them; `moved` into folders that only inputs.json
    knows.
    """
    turned = np.array(
        [[-0.8, 0.9, 0, 3], [-0.6, -1.2, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1]]
    )
    entries = []
    for seed, slug in enumerate(SLUGS):
        place = f"images/{slug}" + ("-moved" if moved else "")
        scan(folder / place / f"uuid-{seed}.mha", seed, turned)
        entries.append({key: {"slug": slug, "relative_path": place}})
    (folder / "inputs.json").write_text(json.dumps(entries))
    return folder


@pytest.mark.parametrize(
    ("moved", "key"), [(False, "socket"), (True, "socket"), (True, "interface")]
)
def test_a_label_map_of_bytes_lies_on_the_grid_of_the_input(
    grand_challenge, bundle, tmp_path, capsys, moved, key
):
    sockets(tmp_path / "in", moved=moved, key=key)
    assert enter(
        grand_challenge, capsys, input=tmp_path / "in", output=tmp_path / "out"
    ) == (0, [])
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [
        tmp_path / "out" / "images" / "tumour" / "uuid-0.mha"
    ]
    written = sitk.ReadImage(str(tmp_path / "out" / "images" / "tumour" / "uuid-0.mha"))
    images = [
        next((tmp_path / "in" / "images").glob(f"{slug}*/*.mha")) for slug in SLUGS
    ]
    source = sitk.ReadImage(str(images[0]))
    assert written.GetPixelID() == sitk.sitkUInt8
    for grid in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(
            getattr(written, grid)(), getattr(source, grid)(), atol=1e-5
        )
    expected = Predictor.load(bundle, device="cpu").predict_file(images).labels.array[0]
    assert expected.any()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), expected)


def test_without_inputs_json_the_folders_are_named_after_the_slugs(
    grand_challenge, tmp_path, capsys
):
    (sockets(tmp_path / "in") / "inputs.json").unlink()
    assert enter(
        grand_challenge, capsys, input=tmp_path / "in", output=tmp_path / "out"
    ) == (0, [])


def break_nothing(folder):
    shutil.rmtree(folder / "images")


def break_one(folder):
    next((folder / "images" / "t2-mri").iterdir()).unlink()


def break_twice(folder):
    scan(folder / "images" / "t2-mri" / "second.mha", 9)


def break_file(folder):
    next((folder / "images" / "t2-mri").iterdir()).write_bytes(b"no image")


def break_list(folder):
    (folder / "inputs.json").write_text('[{"value": 1}]')


def break_out(folder):
    (folder / "inputs.json").write_text(
        '[{"socket": {"slug": "t1-mri", "relative_path": "../../etc"}}]'
    )


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (break_nothing, "socket 't1-mri' (T1) holds no .mha"),
        (break_one, "socket 't2-mri' (T2) holds no .mha"),
        (break_twice, "holds 2 .mha files"),
        (break_file, "damaged"),
        (break_list, "inputs.json: is not a list"),
        (break_out, "leads out of"),
    ],
)
def test_a_wrong_input_is_one_line_and_no_output(
    grand_challenge, tmp_path, capsys, harm, message
):
    harm(sockets(tmp_path / "in"))
    code, lines = enter(
        grand_challenge, capsys, input=tmp_path / "in", output=tmp_path / "out"
    )
    assert (code, len(lines)) == (1, 1)
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


def test_mounted_weights_stay_out_of_the_image(bundle, tmp_path, capsys):
    context = tmp_path / "context"
    package_model(
        [bundle],
        context,
        target="grand-challenge",
        input_slugs=SLUGS,
        output_slug="x",
        mounted_weights=True,
    )
    assert "models" not in " ".join(
        given for what, given in instructions(context) if what == "COPY"
    )
    assert "/opt/ml/model" in (context / "README.md").read_text()
    sockets(tmp_path / "in")
    code, lines = enter(context, capsys, input=tmp_path / "in", output=tmp_path / "out")
    assert (code, len(lines)) == (1, 1)
    assert "/opt/ml/model/model0" in lines[0]
    assert (
        enter(
            context,
            capsys,
            input=tmp_path / "in",
            output=tmp_path / "out",
            models=context / "models",
        )[0]
        == 0
    )


def test_a_missing_image_is_predicted_if_packaged_so(bundle, tmp_path, capsys):
    context = tmp_path / "context"
    package_model(
        [bundle],
        context,
        target="grand-challenge",
        input_slugs=SLUGS,
        output_slug="x",
        missing_channels="zeros",
    )
    break_one(sockets(tmp_path / "in"))
    assert enter(context, capsys, input=tmp_path / "in", output=tmp_path / "out") == (
        0,
        [],
    )


# the smoke test


def test_smoke_test_passes(brats):
    done = subprocess.run(
        [sys.executable, "-B", brats / "smoke_test.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "all: ok\n"), done.stderr


@pytest.fixture
def smoke(grand_challenge):
    """The smoke test as a module, and its contract."""
    spec = importlib.util.spec_from_file_location(
        "smoke_test", grand_challenge / "smoke_test.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, json.loads((grand_challenge / "contract.json").read_text())


def test_smoke_test_passes_for_grand_challenge(
    smoke, grand_challenge, tmp_path, capsys, monkeypatch
):
    module, contract = smoke

    def predict(
        source, output, models
    ):  # in this process, which has torch loaded already
        code, lines = enter(
            grand_challenge, capsys, input=source, output=output, models=models
        )
        return subprocess.CompletedProcess([], code, "", "\n".join(lines))

    monkeypatch.setattr(module, "predict", predict)
    module.run_all(tmp_path, contract, grand_challenge / "models")


def right(labels):
    return labels


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (right, None),
        (lambda labels: labels.with_array(labels.array.astype(np.int16)), "type int16"),
        (
            lambda labels: labels.with_array(labels.array + np.uint8(77)),
            r"values \[77\]",
        ),
        (
            lambda labels: Volume(labels.array, labels.affine @ np.diag([1, -1, 1, 1])),
            "grid",
        ),
        (lambda labels: Volume(labels.array[:, :-1], labels.affine), "grid"),
        (lambda labels: None, "files"),
    ],
)
def test_smoke_test_notices_wrong_label_maps(smoke, tmp_path, wrong, message):
    module, contract = smoke
    expected = module.make(tmp_path / "in", contract)
    ((name, image),) = expected.items()
    source = trivox.read_volume(image)
    made = wrong(source.with_array(np.zeros(source.array.shape, np.uint8)))
    (tmp_path / "out").mkdir()
    if made is not None:
        write_volume(tmp_path / "out" / name, made)
    if message is None:
        module.check(expected, tmp_path / "out", {0, 1, 2, 4}, kind="uint8")
        return
    with pytest.raises(module.BrokenContractError, match=message):
        module.check(expected, tmp_path / "out", {0, 1, 2, 4}, kind="uint8")


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ((1, 1, 1), "exit code 1"),
        ((0, 0, 1), "a broken case gave exit code 0"),
        ((0, 1, 0), "an empty input gave"),
    ],
)
def test_smoke_test_notices_wrong_exit_codes(
    smoke, tmp_path, monkeypatch, codes, message
):
    module, contract = smoke
    left = iter(codes)

    def pretend(source, output, models):
        files = list(source.rglob("*.mha"))
        if (code := next(left)) == 0 and files and files[0].stat().st_size > 100:
            first = trivox.read_volume(files[0])
            slug = source / "images" / next(iter(SLUGS))
            name = next(slug.iterdir()).name
            write_volume(
                output / "images" / "tumour" / name,
                first.with_array(np.zeros(first.array.shape, np.uint8)),
            )
        named = "".join(path.stem for path in files)
        return subprocess.CompletedProcess([], code, "", f"error: {named}\n")

    monkeypatch.setattr(module, "predict", pretend)
    with pytest.raises(module.BrokenContractError, match=message):
        module.run_all(tmp_path, contract, tmp_path)


# what is refused


def test_several_models_vote(tiny_run, bundle, tmp_path, capsys):
    other = random_model(tiny_run, tmp_path / "other", seed=1)
    contract = package_model([bundle, other], tmp_path / "context", target="brats")
    assert contract.models == ("model0", "model1")
    images = brats_case(tmp_path / "in", "BraTS2021_00001", family="2021")
    assert (
        enter(
            tmp_path / "context", capsys, input=tmp_path / "in", output=tmp_path / "out"
        )[0]
        == 0
    )
    expected = (
        Predictor.load([bundle, other], device="cpu")
        .predict_file(images)
        .labels.array[0]
    )
    np.testing.assert_array_equal(
        np.asarray(nib.load(tmp_path / "out" / "BraTS2021_00001.nii.gz").dataobj).T,
        expected,
    )


def test_post_treatment_models_are_tried_on_post_treatment_cases(tiny_run, tmp_path):
    model = random_model(
        tiny_run, tmp_path / "m", labels=FAMILIES["post-treatment"].labels
    )
    contract = package_model([model], tmp_path / "context", target="brats")
    assert contract.values == (0, 1, 2, 3, 4)
    assert contract.example_cases[0] == "BraTS-GLI-00001-100"


def test_a_filled_folder_is_refused_and_an_empty_one_taken(bundle, tmp_path):
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "mine.txt").write_text("mine")
    with pytest.raises(ResourceError, match="not empty"):
        package_model([bundle], tmp_path / "filled", target="brats")
    assert [path.name for path in (tmp_path / "filled").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    package_model([bundle], tmp_path / "empty", target="brats")
    assert (tmp_path / "empty" / "Dockerfile").exists()


def test_an_error_halfway_leaves_nothing_behind(bundle, tmp_path, monkeypatch):
    def no_space(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trivox.exporting.containers.write_wheel", no_space)
    with pytest.raises(ResourceError, match="No space left"):
        package_model([bundle], tmp_path / "out", target="brats")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "changes", "message"),
    [
        ("brats", {"channels": ("CT",)}, "BraTS gives T1, T1ce, T2 and FLAIR"),
        ("brats", {"channels": ("T1", "T1n")}, "once each"),
        (
            "brats",
            {"labels": LabelScheme(labels={"NCR": 1, "kidney": 2})},
            "labels kidney are not those of BraTS",
        ),
        ("brats", {"task": "multitask"}, "a model for multitask"),
        (
            "grand-challenge",
            {"labels": LabelScheme(labels={"organ": 300})},
            "do not fit",
        ),
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
    ("target", "slugs", "output", "message"),
    [
        ("grand-challenge", {}, "x", "names the channels none"),
        (
            "grand-challenge",
            {"a": "T1"},
            "x",
            "names the channels T1, the model reads T1, T1ce",
        ),
        ("grand-challenge", {**SLUGS, "e": "T1"}, "x", "once for each"),
        (
            "grand-challenge",
            SLUGS,
            "",
            "a socket has no name; name them with .* and --output-slug SLUG",
        ),
        ("grand-challenge", SLUGS, "../up", "'../up' is no slug"),
        ("grand-challenge", {**SLUGS, "a/b": "T1"}, "x", "'a/b' is no slug"),
        ("brats", SLUGS, "", "are for --target grand-challenge"),
        ("brats", {}, "x", "are for --target grand-challenge"),
    ],
)
def test_slugs_name_every_channel_once(
    bundle, tmp_path, target, slugs, output, message
):
    with pytest.raises(RecipeError, match=message):
        package_model(
            [bundle],
            tmp_path / "out",
            target=target,
            input_slugs=slugs,
            output_slug=output,
        )


def test_a_folder_that_is_no_model_and_damaged_weights_are_refused(bundle, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(BundleError, match="no model"):
        package_model([tmp_path / "nothing"], tmp_path / "out", target="brats")
    harmed = shutil.copytree(bundle, tmp_path / "harmed")
    weights = harmed / "weights-fold0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="checksum"):
        package_model([harmed], tmp_path / "out", target="brats")
