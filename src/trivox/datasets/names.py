"""Names of cases, which become names of files."""

import re

LONGEST = 180
"""Bytes; file systems take 255, and the longest ending and a temporary name's beginning
are added.
"""
RESERVED = ("preparation-key",)
"""Files of a store of prepared cases have that name."""
DRIVE = re.compile(r"[A-Za-z]:")


def complaint_of(name: str) -> str:
    """Why a name cannot be that of files in a folder of ours; empty if it can."""
    if not name or not name.strip("."):
        return "must have a letter or number"
    if "/" in name or "\\" in name or DRIVE.match(name):
        return "must not lead to another folder"
    if not name.isprintable():
        return "must not hold control characters or bytes that are no text"
    if name in RESERVED:
        return "is reserved"
    if len(name.encode()) > LONGEST:
        return f"must not be longer than {LONGEST} bytes"
    return ""


def safe_name(name: str) -> str:
    """A name of files as much like `name` as such a name can be."""
    text = name.encode("utf-8", "backslashreplace").decode()
    letters = [letter if letter.isprintable() else "_" for letter in text]
    plain = re.sub(r"[/\\:]", "_", "".join(letters)).strip(".") or "unnamed"
    short = plain.encode()[: LONGEST - 10].decode(errors="ignore")
    return f"{short}_" if complaint_of(short) else short


def usable_name(name: str) -> str:
    """The name; raises `ValueError` with the remedy if `complaint_of` it
    has something to say.
    """
    complaint = complaint_of(name)
    if complaint:
        raise ValueError(f"{name[:60]!a} {complaint}, since files are named after it")
    return name
