"""Names and codes that say nothing of a person: structures, makers of scanners, the
codes of the standard.
"""

import re
from functools import lru_cache

from pydicom.sr._concepts_dict import concepts

from trivox.privacy.profile import MAKERS

MILLILITRES = (("UCUM", "mL"), ("UCUM", "ml"))
"""A unit that every report of volumes has, and the tables of the standard do not."""
STRUCTURES = re.compile(
    r"(background|anterior|posterior|liver|spleen|pancreas|heart|aorta|brain|prostate|"
    r"bladder|urinary bladder|stomach|esophagus|duodenum|colon|spine|trachea|"
    r"gallbladder|thyroid|thyroid gland|hippocampus|body|skin|spinal cord|brainstem|"
    r"(left |right )?(lung|kidney|adrenal gland|femur|hip|eye|lens|parotid)"
    r"( left| right)?|tumou?r|lesion|cyst|edema|necrosis|enhancing tumou?r|"
    r"whole tumou?r|tumou?r core|gtv|ctv|ptv|nodule)"
)
"""Names of structures that many files share."""


def structure(name: str) -> str | None:
    """The name of a structure in plain letters; None for one that is not known."""
    plain = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    return plain if STRUCTURES.fullmatch(plain) else None


def maker(name: str) -> str:
    """The name of a maker of scanners, blank for one that is not known."""
    plain = name.strip().lower()
    known = [made for start, made in MAKERS.items() if plain.startswith(start)]
    return known[0] if known else ""


@lru_cache(maxsize=1)
def _meanings() -> dict[tuple[str, str], str]:
    """Of all codes that the standard's tables hold, by scheme and value."""
    meanings: dict[tuple[str, str], str] = dict.fromkeys(MILLILITRES, "milliliter")
    for scheme, words in concepts.items():
        for codes in words.values():
            for value, (meaning, _) in codes.items():
                meanings[scheme, value] = meaning
    return meanings


def meaning(scheme: str, value: str) -> str | None:
    """What a code of the standard's tables (PS3.16) means; None for any other."""
    return _meanings().get((scheme, value))
