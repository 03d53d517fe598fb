"""What is said of a scan that cannot be used, without a word of the scan.

Messages of errors may quote a file: a name, a tag, a comment. Words that stand in the
program's own texts are let through, with numbers and the names of the model's labels;
every other word becomes an ellipsis.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from types import CodeType, ModuleType
from typing import Any

HIDDEN = "…"
PACKAGE = "trivox"
WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?")
TOKEN = re.compile(r"\S+")
NUMBER = re.compile(r"[-+]?\d{1,4}(?:\.\d{1,4})?")
"""Sizes and distances; longer ones may name somebody."""
AROUND = ".,;:!?()[]'\"/<>=x%"
"""Signs that may stand around words and numbers."""
NEUTRAL = re.compile(r"case(?:_\d{4})?(?:\.(?:nii|gz|nrrd|mha|dcm|zip))*|\d{5}\.dcm")
"""Names that the service itself gave."""
LONGEST = 1000
"""Characters of a message."""


def spoken(message: str, names: Iterable[str] = ()) -> str:
    """A message as it may leave the service. names: of labels and channels."""
    known = _vocabulary().union(WORD.findall(" ".join(names)))
    line = " ".join(message.split())[:LONGEST]
    shown = TOKEN.sub(lambda token: _shown(token[0], known), line)
    return re.sub(rf"{HIDDEN}(?:\s+{HIDDEN})+", HIDDEN, shown)


def _shown(token: str, known: frozenset[str]) -> str:
    core = token.strip(AROUND)
    if not core or NUMBER.fullmatch(core) or NEUTRAL.fullmatch(core.rpartition("/")[2]):
        return token if "/" not in core else core.rpartition("/")[2]
    words = WORD.findall(core)
    rest = WORD.sub("", core).strip("-_.,;:/()[]'\"=")
    plain = not rest or NUMBER.fullmatch(rest) is not None
    if words and plain and known.issuperset(words):
        return token
    return HIDDEN


@lru_cache(maxsize=1)
def _vocabulary() -> frozenset[str]:
    """Words in the texts of the program that is loaded, comments and docstrings aside."""
    words: set[str] = set()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == PACKAGE:
            for text in _texts(module):
                words.update(WORD.findall(text))
    return frozenset(words)


def _texts(module: ModuleType) -> Iterator[str]:
    """Strings of a module, of its functions and of the methods of its classes."""
    for value in list(vars(module).values()):
        if isinstance(value, str) and value != module.__doc__:
            yield value
        if getattr(value, "__module__", None) != module.__name__:
            continue
        members = vars(value).values() if isinstance(value, type) else (value,)
        for member in members:
            yield from _texts_of_function(member)


def _texts_of_function(function: Any) -> Iterator[str]:
    plain = getattr(function, "__func__", None) or getattr(function, "fget", function)
    inner = getattr(plain, "__wrapped__", plain)
    code = getattr(inner, "__code__", None)
    if isinstance(code, CodeType):
        yield from _texts_of(code, inner.__doc__)


def _texts_of(code: CodeType, documentation: str | None) -> Iterator[str]:
    for value in code.co_consts:
        if isinstance(value, str) and value != documentation:
            yield value
        if isinstance(value, CodeType):
            yield from _texts_of(value, None)
