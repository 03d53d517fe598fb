"""What stays of a DICOM object: element by element, sequences in depth."""

import re
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID_dictionary

from trivox.config.choices import DateRule
from trivox.privacy.dates import cleaned_date, cleaned_moment, cleaned_time
from trivox.privacy.key import Key
from trivox.privacy.profile import (
    CODES,
    DATES,
    EMPTY,
    FIXED,
    MOMENTS,
    NAMES_OF_STRUCTURES,
    NUMBERS,
    SEQUENCES,
    TAGS,
    TERMS,
    TIMES,
)
from trivox.privacy.vocabulary import maker, meaning, structure

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
SIDES = re.compile(r"[APLRHF]{1,3}")
DEEPEST = 32
"""Sequences within each other; reports have some ten."""
TISSUE = ("85756007", "SCT", "Tissue")
"""What stands for a property of a segment that the standard's tables do not hold."""
PROPERTIES = (
    "SegmentedPropertyCategoryCodeSequence",
    "SegmentedPropertyTypeCodeSequence",
)
SAYING: dict[str, tuple[str, ...]] = {
    "CONTAINER": (),
    "NUM": ("MeasuredValueSequence",),
    "CODE": ("ConceptCodeSequence",),
    "UIDREF": ("UID",),
    "IMAGE": ("ReferencedSOPSequence",),
    "COMPOSITE": ("ReferencedSOPSequence",),
    "SCOORD": ("GraphicType",),
    "SCOORD3D": ("GraphicType",),
}
"""Kinds of items of a report that may stay, and what makes them whole (PS3.3 C.17.3)."""
UNNAMED = ("CONTAINER", "IMAGE", "COMPOSITE", "SCOORD", "SCOORD3D")
"""Those that may do without a name."""


class TooDeepError(ValueError):
    """Sequences lie within each other more often than any object needs."""


@dataclass(frozen=True)
class Cleaner:
    """Cleans objects of one patient.

    key: makes pseudonyms; dates: what becomes of them; days: by how many they move.
    """

    key: Key
    dates: DateRule
    days: int

    def cleaned(self, dataset: Any, depth: int = 0) -> Dataset:
        """The elements that may stay; raises `TooDeepError`."""
        if depth > DEEPEST:
            raise TooDeepError
        result = Dataset()
        for tag in sorted(dataset.keys()):
            keyword = keyword_for_tag(tag)
            # groups that repeat, as those of overlays, have one name for many tags
            if keyword and tag_for_keyword(keyword) == tag:
                self._take(result, dataset, keyword, depth)
        return result

    def _take(self, result: Dataset, dataset: Any, keyword: str, depth: int) -> None:
        """What stays of one element, if anything does."""
        if keyword in CODES:
            self._take_codes(result, dataset, keyword)
        elif keyword in SEQUENCES:
            self._take_items(result, dataset, keyword, depth)
        elif keyword in NAMES_OF_STRUCTURES:
            result.add_new(keyword, dictionary_VR(keyword), _name(dataset, keyword))
        elif keyword in FIXED:
            result.add_new(keyword, dictionary_VR(keyword), FIXED[keyword])
        else:
            self._take_values(result, dataset, keyword)

    def _take_values(self, result: Dataset, dataset: Any, keyword: str) -> None:
        kind = _kind(keyword, dataset[keyword].VR)
        stored = _texts(dataset[keyword].value)
        values = [value for value in self._values(keyword, kind, stored) if value]
        if values and len(values) == len(stored):
            result.add_new(keyword, kind, _as_stored(kind, values))
        elif keyword in EMPTY:
            result.add_new(keyword, kind, None)

    def _values(self, keyword: str, kind: str, stored: list[str]) -> list[str]:
        """What stays of each value, blank where nothing does."""
        if kind == "UI":
            return [self.uid(text) for text in stored]
        if keyword in NUMBERS:
            return [_number(text) for text in stored]
        if keyword in TERMS:
            return _terms(keyword, stored)
        if keyword in DATES:
            moved = [(keyword, text, self.dates, self.days) for text in stored]
            return [cleaned_date(*each) for each in moved]
        if keyword in MOMENTS:
            moved = [(keyword, text, self.dates, self.days) for text in stored]
            return [cleaned_moment(*each) for each in moved]
        if keyword in TIMES:
            return [cleaned_time(keyword, text, self.dates) for text in stored]
        return _others(keyword, stored)

    def uid(self, uid: str) -> str:
        """Those of the standard stay: classes, syntaxes, schemes."""
        uid = uid.strip().strip("\0")
        if not uid or uid in UID_dictionary:
            return uid
        return self.key.uid(uid)

    def _take_items(
        self, result: Dataset, dataset: Any, keyword: str, depth: int
    ) -> None:
        items = [self.cleaned(item, depth + 1) for item in dataset[keyword].value]
        if keyword == "ContentSequence":
            items = [item for item in items if _says_something(item)]
        setattr(result, keyword, Sequence(items))

    def _take_codes(self, result: Dataset, dataset: Any, keyword: str) -> None:
        items = [_code(item) for item in dataset[keyword].value]
        known = [item for item in items if item is not None]
        if not known and keyword in PROPERTIES:
            known = [code_of(*TISSUE)]
        if known:
            setattr(result, keyword, Sequence(known))


def _kind(keyword: str, stored: str) -> str:
    """The representation of an attribute; of several that the standard allows, the
    stored one.
    """
    allowed = dictionary_VR(keyword).split(" or ")
    return stored if stored in allowed else allowed[0]


def _texts(value: Any) -> list[str]:
    """All values of an element as text."""
    if value is None or (isinstance(value, str | bytes) and not value):
        return []
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return [str(value)]
    if isinstance(value, bytes):
        return []
    return [str(each) for each in value]


def _as_stored(kind: str, values: list[str]) -> Any:
    """Values as pydicom takes them."""
    made: list[Any] = list(values)
    if kind in ("US", "SS", "UL", "SL", "UV", "SV", "AT"):
        made = [int(value) for value in values]
    elif kind in ("FL", "FD", "OF", "OD"):
        made = [float(value) for value in values]
    return made[0] if len(made) == 1 else made


def _number(text: str) -> str:
    plain = text.strip()
    return plain if NUMBER.fullmatch(plain) else ""


def _terms(keyword: str, stored: list[str]) -> list[str]:
    """The standard's terms; kinds of images that it does not name are others."""
    values = [text.strip() for text in stored]
    known = [value if value in TERMS[keyword] else "" for value in values]
    if keyword in ("ImageType", "FrameType"):
        return [value or "OTHER" for value in known]
    return known


def _others(keyword: str, stored: list[str]) -> list[str]:
    """Attributes with a rule of their own; all further ones go."""
    if keyword == "Manufacturer":
        return [maker(text) for text in stored]
    if keyword == "PatientOrientation":
        return [text if SIDES.fullmatch(text) else "" for text in stored]
    if keyword in TAGS:
        return [text for text in map(_tag, stored) if text]
    return []


def _tag(text: str) -> str:
    """The number of an attribute that the standard has; blank for any other."""
    digits = re.sub(r"[(), ]", "", text)
    number = int(digits, 16) if re.fullmatch(r"[0-9A-Fa-f]{8}", digits) else 0
    return str(number) if keyword_for_tag(number) else ""


def _name(dataset: Any, keyword: str) -> str:
    """The name of a structure, if it is one that many files share; else its number."""
    known = structure(str(dataset[keyword].value or ""))
    if known is not None:
        return known
    number = _number(str(dataset.get(NAMES_OF_STRUCTURES[keyword], "")))
    return f"structure {number}".strip()


def _code(item: Any) -> Dataset | None:
    """A code of the standard's tables, with the meaning that stands there."""
    scheme = str(item.get("CodingSchemeDesignator", "")).strip()
    value = str(item.get("CodeValue", "")).strip()
    says = meaning(scheme, value)
    return None if says is None else code_of(value, scheme, says)


def code_of(value: str, scheme: str, says: str) -> Dataset:
    """An item of a sequence of codes (PS3.3 8.8)."""
    code = Dataset()
    code.CodeValue = value
    code.CodingSchemeDesignator = scheme
    code.CodeMeaning = says[:64]
    return code


def _says_something(item: Dataset) -> bool:
    """Whether an item of a report is whole: texts and names of people are gone, and so
    are codes that the standard does not hold.
    """
    kind = item.get("ValueType", "")
    is_named = "ConceptNameCodeSequence" in item or kind in UNNAMED
    if kind not in SAYING or not is_named:
        return False
    return all(keyword in item for keyword in SAYING[kind])
