"""Attributes that may stay, and how: an allow-list for images, segmentations, structure
sets and reports, in `profile.json`. What is not named there goes.

After the Basic Application Level Confidentiality Profile (PS3.15 Annex E), which names
what has to go; a list of what may stay also keeps out what no list foresaw. Terms are
those of PS3.3 and PS3.16.
"""

from pathlib import Path
from typing import Any

from trivox.files import read_json

PROFILE: dict[str, Any] = read_json(Path(__file__).with_name("profile.json"))

CLASSES: dict[str, str] = PROFILE["classes"]
"""Classes of objects that are known well enough to be cleaned."""
TEXT_BURNT_IN = frozenset(PROFILE["text_burnt_in"])
"""Kinds whose pixels often hold a name, unless the object says that they do not."""
NUMBERS = frozenset(PROFILE["numbers"])
TAGS = frozenset(PROFILE["tags"])
"""Whose values are names of attributes; those of the standard may stay."""
DATES = frozenset(PROFILE["dates"])
TIMES = frozenset(PROFILE["times"])
MOMENTS = frozenset(PROFILE["moments"])
STAND_INS: dict[str, str] = PROFILE["stand_ins"]
"""What stands for a date that is taken out where objects may not do without it."""
EMPTY = frozenset(PROFILE["empty"])
"""What has to be there and may be empty (type 2)."""
NEEDED: dict[str, list[str]] = PROFILE["needed"]
"""What objects of a kind have as well, empty if need be."""
CODES = frozenset(PROFILE["codes"])
"""Sequences of codes; those of the standard's tables may stay, with their meanings."""
SEQUENCES = frozenset(PROFILE["sequences"])
NAMES_OF_STRUCTURES: dict[str, str] = PROFILE["names_of_structures"]
"""Names that people gave to structures, and the number that stands for an unknown one."""
FIXED: dict[str, str] = PROFILE["fixed"]
"""What stands for texts that objects may not do without."""
TERMS = {name: frozenset(terms) for name, terms in PROFILE["terms"].items()}
"""Terms of the standard that may stay, by attribute; of several values all have to be
among them.
"""
MAKERS: dict[str, str] = PROFILE["makers"]
"""Makers of scanners by what their names begin with, and how they are written."""
