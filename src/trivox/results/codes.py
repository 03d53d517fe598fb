"""What labels are called in terminologies, and how they are drawn.

trivox's own table (`codes.json` beside this module) knows the names of widespread data
sets; a `codes.json` beside a dataset or in a bundle adds to it or overrides it. A label
that nobody codes gets a code of trivox's own scheme, `99TRIVOX`, which means what its
name says and nothing more.
"""

import colorsys
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from trivox.errors import DataError, few
from trivox.files import read_json
from trivox.schema import Frozen

FILE = "codes.json"
PRIVATE_SCHEME = "99TRIVOX"
"""Designator of trivox's own codes (PS3.16 8.2: private ones begin with 99)."""
SIDES = ("left", "right")
_LONGEST_VALUE = 16
"""Characters of a code value (VR SH)."""
_LONGEST_TEXT = 64
"""Of a text (VR LO)."""
_TURN = 0.618034
"""Of the hue from one label to the next, so that neighbours differ (golden section)."""

Colour = tuple[int, int, int]
Component = Annotated[int, Field(ge=0, le=255)]
NoBackslash = r"^[^\\\x00-\x1f\x7f]*$"


class Concept(Frozen):
    """A code: value, scheme (`SCT`: SNOMED CT, `DCM`, `RADLEX`) and meaning."""

    value: str = Field(min_length=1, max_length=_LONGEST_VALUE, pattern=NoBackslash)
    scheme: str = Field(min_length=1, max_length=16, pattern=NoBackslash)
    meaning: str = Field(min_length=1, max_length=64, pattern=NoBackslash)


class LabelCode(Frozen):
    """What a label is (PS3.3 C.8.20.2.3).

    category: the kind of thing; type: the thing; modifier: its side, mostly; color: red,
    green, blue, 0 to 255, in which it is drawn.
    """

    category: Concept
    type: Concept
    modifier: Concept | None = None
    color: tuple[Component, Component, Component] | None = None

    @property
    def is_private(self) -> bool:
        """Whether no terminology knows it."""
        return self.type.scheme == PRIVATE_SCHEME


CodesFile = Annotated[
    dict[str, LabelCode], Field(description="What codes.json says of labels, by name.")
]
_TABLE = TypeAdapter(CodesFile)
TISSUE = Concept(value="85756007", scheme="SCT", meaning="Tissue")


@dataclass(frozen=True)
class Codes:
    """The codes of labels; names match in any case, with `_`, `-` or blanks between
    their words, and `left` or `right` anywhere among them.

    added: those that go before trivox's own, by name; context: the data set that labels
    are of, since `Anterior` alone says not of what.
    """

    added: Mapping[str, LabelCode] = field(default_factory=dict)
    context: str = ""

    @cached_property
    def _by_key(self) -> dict[str, LabelCode]:
        known = dict(_table())
        known.update((key_of(name), code) for name, code in self.added.items())
        return known

    def of(self, label: str, number: int = 0) -> LabelCode:
        """The code of a label, with a colour; number: of the label among its kind,
        which decides the colour where nobody names one.
        """
        code = self._known(f"{self.context} {label}") or self._known(label)
        code = code or _private(label)
        if code.color is None:
            code = code.model_copy(update={"color": _colour(number)})
        return code

    def _known(self, name: str) -> LabelCode | None:
        return self._by_key.get(key_of(name))

    def private(self, labels: Iterable[str]) -> list[str]:
        """The labels that no terminology knows."""
        return [label for label in labels if self.of(label).is_private]

    @property
    def digest(self) -> str:
        """A short hash over what was added; empty if nothing was."""
        if not self.added:
            return ""
        content = _TABLE.dump_json(dict(sorted(self.added.items())))
        return hashlib.sha256(content).hexdigest()[:12]


def read_codes(files: Iterable[Path]) -> Codes:
    """The codes that files add, a later one over an earlier; those that are not there
    add none. Raises `DataError` in one line that names the file and the label.
    """
    added: dict[str, LabelCode] = {}
    for file in files:
        if file.is_file():
            added.update(_read(file))
    return Codes(added)


def _read(file: Path) -> dict[str, LabelCode]:
    content: Any = read_json(file)
    try:
        return _TABLE.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"{file}: {where or 'content'}: {first['msg']}; give each label its "
            '"category" and "type", each with "value", "scheme" and "meaning"'
        ) from error


def uncoded(labels: Sequence[str]) -> tuple[str, ...]:
    """What has to be said of labels that no terminology knows."""
    if not labels:
        return ()
    return (
        f"codes: {few(labels)} has no code and gets a private one; add it to a "
        f"{FILE} beside the input or in the bundle",
    )


def key_of(name: str) -> str:
    """What the spellings of one label have in common: its words, the side last."""
    words = re.findall(r"[^\W_]+", name.casefold())
    plain = [word for word in words if word not in SIDES]
    sides = [word for word in words if word in SIDES]
    return "_".join([*plain, *sides]) or name


def cielab_of(color: Colour) -> tuple[int, int, int]:
    """A colour of sRGB as DICOM has CIELab: each number scaled to 16 bits (PS3.3
    C.10.7.1.1), under the white of screens, D65, which is how viewers read it.
    """
    linear = [_linear(part / 255) for part in color]
    ratios = [
        sum(weight * part for weight, part in zip(row, linear, strict=True))
        for row in _TO_WHITE
    ]
    x, y, z = (_curve(ratio) for ratio in ratios)
    lightness = 116 * y - 16
    return (
        _scaled(lightness / 100),
        _scaled((500 * (x - y) + 128) / 255),
        _scaled((200 * (y - z) + 128) / 255),
    )


_TO_WHITE = (
    (0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883),
)
"""Linear sRGB to XYZ, as shares of its white."""


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def _curve(ratio: float) -> float:
    return ratio ** (1 / 3) if ratio > 216 / 24389 else (24389 / 27 * ratio + 16) / 116


def _scaled(share: float) -> int:
    return min(max(round(share * 65535), 0), 65535)


def _colour(number: int) -> Colour:
    """The colour of a label that nobody gave one."""
    red, green, blue = colorsys.hsv_to_rgb((number * _TURN) % 1, 0.65, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def _private(label: str) -> LabelCode:
    return LabelCode(category=TISSUE, type=private_concept(label))


def private_concept(label: str) -> Concept:
    """A code of trivox's own that means what a name says."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", label).strip("_")
    if plain != label or len(plain) > _LONGEST_VALUE:
        digest = hashlib.sha256(label.encode("utf-8", "backslashreplace")).hexdigest()
        plain = f"{plain[:7]}-{digest[:8]}"
    meaning = cut(re.sub(r"[\\\x00-\x1f\x7f]+", " ", label).strip()) or plain
    return Concept(value=plain, scheme=PRIVATE_SCHEME, meaning=meaning)


def cut(words: str) -> str:
    """The beginning of a text that fits into VR LO: 64 characters, and for programs that
    count bytes as many of those.
    """
    whole = words.encode("utf-8", "replace")
    return whole[:_LONGEST_TEXT].decode("utf-8", "ignore")


@lru_cache(maxsize=1)
def _table() -> dict[str, LabelCode]:
    """The table of trivox itself, by key."""
    table = _read(Path(__file__).with_name(FILE))
    return {key_of(name): code for name, code in table.items()}
