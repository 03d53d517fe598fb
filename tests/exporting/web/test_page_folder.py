"""What `export --to web` writes, and what it refuses."""

import re
from pathlib import Path

import pytest

from page_cases import drawn
from page_models import ct_bundle
from trivox.errors import BundleError, UsageError
from trivox.exporting.card import ExportCard, Pipeline
from trivox.exporting.export import ExportOptions, export_model
from trivox.exporting.web.assets import Archives, pinned
from trivox.exporting.web.page_folder import ROOM, require_page, write_page
from trivox.version import NOTICE

PAGE = ROOM / "page"
SCRIPTS = sorted(PAGE.rglob("*.js"))


def card_of(pipeline):
    return ExportCard(
        task="segmentation",
        engine="web",
        runtime="onnx",
        opset=18,
        precision="fp32",
        model="1",
        files=(),
        versions={},
        left_out=("the class of the case",),
        pipeline=pipeline,
    )


def test_a_page_is_one_folder(tmp_path):
    write_page(tmp_path, card_of(pipeline_with()), Archives(packages=()))
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {*(each.name for each in PAGE.iterdir()), "README.md", "licenses"}
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    for line in ("python -m http.server", "python serve.py", "Research use only"):
        assert line in readme
    assert "Cross-Origin-Embedder-Policy: require-corp" in readme
    assert "| 3 | c |" in readme
    assert "Left out: the class of the case." in readme


def test_every_script_that_is_imported_is_there():
    written = {each.target for package in pinned() for each in package.files}
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        for name in re.findall(r'from "(\..+?)";', text):
            target = (script.parent / name).resolve()
            there = target.is_file() or target.name in written
            assert there, (script.name, name)


def test_nothing_is_loaded_from_elsewhere():
    for file in [*SCRIPTS, PAGE / "index.html", PAGE / "style.css"]:
        assert "://" not in file.read_text(encoding="utf-8"), file.name
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    policy = re.search(r'content="(default-src .+?)"', html).group(1)
    assert policy.startswith("default-src 'none';")
    assert "'unsafe-eval'" not in policy
    assert "'unsafe-inline'" not in policy
    assert "Research use only" in html
    assert NOTICE.split(".")[0].split(",")[0] in html


def test_licences_name_what_is_taken():
    texts = [file.read_text(encoding="utf-8") for file in (ROOM / "licenses").iterdir()]
    for package in pinned():
        name = package.name.split("/")[-1]
        assert any(
            package.version in text and name.split("-")[0] in text.lower()
            for text in texts
        )


def test_scripts_are_short_enough_to_be_read():
    for script in SCRIPTS:
        lines = script.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 300, script.name
        assert lines[0].startswith("/** "), script.name


def pipeline_with(**changes):
    card = drawn(1).pipeline
    return Pipeline.model_validate({**card, **changes})


def test_rules_that_the_page_lacks_are_refused_by_name():
    require_page(pipeline_with())
    many = [(1, ())] * 32
    with pytest.raises(BundleError, match="32 regions"):
        require_page(pipeline_with(paint=many))
    grid = pipeline_with().grid.model_dump(mode="json")
    grid["labels"]["ties"] = "nearest"
    with pytest.raises(BundleError, match="mask channel"):
        require_page(pipeline_with(grid=grid, mask_channel=True))


def test_assets_are_for_pages_alone(tmp_path):
    bundle = ct_bundle(tmp_path / "model")
    options = ExportOptions("onnx", assets=Path("archives"))
    with pytest.raises(UsageError, match="--to web"):
        export_model([bundle], tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_missing_assets_are_said_before_any_work(tmp_path):
    bundle = ct_bundle(tmp_path / "model")
    options = ExportOptions("web", assets=tmp_path / "nothing")
    with pytest.raises(Exception, match="not there; download https"):
        export_model([bundle], tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
