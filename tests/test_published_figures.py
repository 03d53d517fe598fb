"""The page of published figures: what it says of trivox is what trivox says elsewhere."""

import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

import trivox
from trivox.config.presets import NAMED_RECIPES, PRESETS
from trivox.networks.registry import NETWORKS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "published-figures.md"
COUNT = re.compile(r"trivox info (\S+) --input (\d+) (\d+) (\d+) (\d+)")
NUMBER = re.compile(r"(?<![\w^.-])[+-]?\d+(?:\.\d+)?(?!\d|\.\d|[a-wy-zA-Z_^])")
COSTLY = ("info swin", "info xray2ct")
"""Networks that take seconds to count."""


def rows(header):
    """The cells of each row of all tables with that header."""
    found, inside = [], False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        inside = line.startswith("|") and (inside or line == header)
        if inside and line != header and not line.startswith("|---"):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


CLAIMS = rows("| quoted | kind | here | where | verdict |")


@cache
def counted(command):
    """Millions of parameters, GFLOP and GiB that a command prints."""
    name, *size = COUNT.fullmatch(command).groups()
    if name.startswith(("swin", "mednext", "segresnet")) and not monai():
        pytest.skip("MONAI is not installed: its networks are not counted")
    facts = trivox.info(name, input=tuple(map(int, size)))
    return facts["parameters"] / 1e6, facts["gflop"], facts["saved_activation_gib"]


def monai():
    return importlib.util.find_spec("monai") is not None


@cache
def numbers_of(file):
    text = (PAGE.parent / file).resolve().read_text(encoding="utf-8")
    return {number.lstrip("+") for number in NUMBER.findall(text)}


def printed(number, where):
    """Whether a command or a page of `where` has the number, as exact as it stands."""
    digits = len(number.partition(".")[2])
    for command in re.findall(r"`(trivox [^`]+)`", where):
        if any(f"{value:.{digits}f}" == number for value in counted(command)):
            return True
    files = re.findall(r"\]\(([^)#]+)", where)
    files += [f"../../{file}" for file in re.findall(r"`([\w/]+\.md|Makefile)`", where)]
    return any(number in numbers_of(file) for file in files)


def parameters():
    for claim in CLAIMS:
        costly = any(name in claim[3] for name in COSTLY)
        marks = pytest.mark.slow if costly else ()
        yield pytest.param(claim, marks=marks, id=claim[0][:40])


@pytest.mark.parametrize("claim", list(parameters()))
def test_each_figure_is_printed_by_its_source(claim):
    _, _, here, where, _ = claim
    for number in NUMBER.findall(re.sub(r"`[^`]+`", "", here)):
        assert printed(number.lstrip("+"), where), f"{number} is not in {where}"


def test_each_claim_has_a_kind_and_a_verdict_and_what_is_not_measured_is_not_compared():
    assert len(CLAIMS) > 35
    for quoted, kind, here, _, verdict in CLAIMS:
        assert kind in {"estimated", "expected", "target", "measured", "counted"}, (
            quoted
        )
        if here == "none":
            assert verdict.startswith("cannot be compared"), quoted


def test_a_wrong_figure_is_found():
    command = "`trivox info unet-tiny --input 4 128 128 128`"
    assert printed("1.3", command)
    assert not printed("1.4", command)
    assert not printed("0.8731", "`benchmarks/README.md`")


def test_names_of_sizes_are_names_of_presets_recipes_and_networks():
    table = rows("| there | here | what it is |")
    known = {"preset": PRESETS, "network": NETWORKS, "recipe": NAMED_RECIPES}
    for _, here, _ in table:
        for option, name in re.findall(r"--(preset|network|recipe) ([\w-]+)", here):
            assert name in known[option], here
    assert PRESETS["large"]["network"] == "hybrid-large"
    assert PRESETS["quick_test"]["network"] == "unet-small"
