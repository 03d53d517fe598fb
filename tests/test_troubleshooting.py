"""docs/how-to/troubleshooting.md: the messages that it explains are those of the code."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "troubleshooting.md"
DIFFERS = "..."
"""What stands in the page for the parts of a message that differ."""


def texts_of(file):
    """Strings of a module; an expression in one is what differs."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [getattr(part, "value", None) for part in node.values]
            yield "".join(p if isinstance(p, str) else DIFFERS for p in parts)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def messages():
    """First cells of the page's tables of messages."""
    page = PAGE.read_text(encoding="utf-8")
    return re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)


def test_every_message_is_said_somewhere():
    files = (ROOT / "src" / "trivox").rglob("*.py")
    said = " \n".join(text for file in files for text in texts_of(file))
    assert len(messages()) > 20
    for message in messages():
        for part in message.split(DIFFERS):
            assert part.strip(" :=") in said, f"{part!r} of {message!r}"
