"""What can be wrong with a file: one odd thing, sometimes several, drawn from a seed.

A mutation keeps most of a file as it is, so that a reader comes far enough to meet it.
"""

import gzip
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable

from fuzzing.dicom_mutations import of_dicom

Random = random.Random

NESTED = 100_000
"""Brackets; far beyond what Python's own parser takes."""
LONG = 20_000
WORDS = (
    "",
    " ",
    ".",
    "..",
    "../../etc/passwd",
    "/",
    "a/b",
    "a\\b",
    "C:\\x",
    "\x00",
    "a\x00b",
    "\ud800",
    "\u202egnp.exe",
    "\x1b[2J\x1b]0;title\x07",
    "\u2028",
    "\r\n",
    "\ufeff",
    "²",
    "٣",
    "½",
    "-0",
    "1e999",
    "nan",
    "inf",
    "None",
    "true",
    "0x10",
    "1_000",
    "preparation-key",
    "background",
    "ignore",
    "%s%n",
    "{0.__class__}",
    "<script>alert(1)</script>",
    "$\\frac",
    "a" * 300,
    "é" * 200,
    "x" * LONG,
)
NUMBERS = (
    "0",
    "-0",
    "-1",
    "1",
    "2",
    "3.5",
    "-1.5",
    "1e-320",
    "1e30",
    "1e308",
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "-Infinity",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "1" + "0" * 400,
    "9" * 5000,
)
OTHERS = (
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "[0]",
    "[1, 2]",
    "[1, 2, 3, 4, 5, 6, 7, 8]",
    '{"": ""}',
    '{"a": null}',
    '{"0": 0}',
    '{"a": {"b": {"c": []}}}',
    "[" * NESTED + "]" * NESTED,
    '{"a":' * NESTED + "1" + "}" * NESTED,
    "[" * 40 + "]" * 40,
)
ENCODINGS = ("utf-16", "utf-32", "utf-8-sig", "latin-1", "utf-7")
HOSTILE_INTEGERS = (0, 1, -1, 2, 127, 255, 32767, -32768, 65535, 2**31 - 1, -(2**31))


# -- bytes -----------------------------------------------------------------------------
def flipped(data: bytes, rng: Random) -> bytes:
    """Some bits are wrong."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if content:
            place = _place(len(content), rng)
            content[place] ^= 1 << rng.randrange(8)
    return bytes(content)


def overwritten(data: bytes, rng: Random) -> bytes:
    """A number somewhere is an extreme one."""
    kind = rng.choice(("<h", "<i", "<q", "<f", "<d", ">i", "B"))
    value: float = rng.choice(HOSTILE_INTEGERS)
    if kind in ("<f", "<d"):
        value = rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf"), 1e-38))
    elif kind == "B":
        value = int(value) & 255
    elif kind == "<h":
        value = max(-32768, min(32767, int(value)))
    packed = struct.pack(kind, value)
    place = _place(max(1, len(data) - len(packed)), rng)
    place -= place % rng.choice((1, 2, 4))
    return data[:place] + packed + data[place + len(packed) :]


def cut(data: bytes, rng: Random) -> bytes:
    """The end is missing, or all."""
    return data[: rng.choice((0, 1, 16, rng.randrange(len(data) + 1), len(data) - 1))]


def repeated(data: bytes, rng: Random) -> bytes:
    """A part comes twice, or many times."""
    start = rng.randrange(len(data) + 1)
    part = data[start : start + rng.choice((1, 8, 100, 4096))]
    return data[:start] + part * rng.choice((2, 3, 50)) + data[start:]


def removed(data: bytes, rng: Random) -> bytes:
    """A part is missing."""
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 2, 8, 100)) :]


def blanked(data: bytes, rng: Random) -> bytes:
    """A part was never written."""
    start = rng.randrange(len(data) + 1)
    count = min(len(data) - start, rng.choice((4, 64, 512, len(data))))
    return data[:start] + rng.choice((b"\0", b"\xff")) * count + data[start + count :]


def foreign(data: bytes, rng: Random) -> bytes:
    """Something else lies there."""
    return rng.choice(
        (
            b"",
            b"\0" * 400,
            b"<!DOCTYPE html><html><body>404</body></html>",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
            b"PK\x03\x04" + data[:50],
            b"\x1f\x8b" + data[:50],
            b"\x89HDF\r\n\x1a\n" + data[:90],
            b"\xff\xfe" + data,
            rng.randbytes(200),
        )
    )


def _place(count: int, rng: Random) -> int:
    """Headers stand at the beginning, so that is where most happens."""
    if rng.random() < 0.6:
        return rng.randrange(min(count, 352))
    return rng.randrange(count)


def of_bytes(data: bytes, rng: Random) -> bytes:
    """A damaged file of any kind."""
    kinds = (flipped, flipped, overwritten, overwritten, cut, repeated, removed)
    return rng.choice((*kinds, blanked, foreign))(data, rng)


# -- JSON ------------------------------------------------------------------------------
class Raw(str):
    """JSON that is written as it stands."""

    __slots__ = ()


def odd_value(rng: Random) -> Raw:
    """A value that nobody expects."""
    kind = rng.random()
    if kind < 0.35:
        return Raw(rng.choice(NUMBERS))
    if kind < 0.65:
        return Raw(json.dumps(rng.choice(WORDS)))
    if kind < 0.68:
        return Raw('"\\ud800\\ude"')
    return Raw(rng.choice(OTHERS))


Slot = tuple[dict | list, object]


def _slots(content: object, slots: list[Slot]) -> list[Slot]:
    pairs: list[tuple[object, object]] = []
    if isinstance(content, dict):
        pairs = list(content.items())
    elif isinstance(content, list):
        pairs = list(enumerate(content))
    for key, value in pairs:
        slots.append((content, key))
        _slots(value, slots)
    return slots


def dumped(content: object) -> str:
    """JSON with `Raw` values and pairs of one key as they stand."""
    if isinstance(content, Raw):
        return str(content)
    if isinstance(content, dict):
        pairs = (f"{json.dumps(str(k))}: {dumped(v)}" for k, v in content.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(content, list):
        return "[" + ", ".join(dumped(value) for value in content) + "]"
    return json.dumps(content)


def of_json(data: bytes, rng: Random) -> bytes:
    """JSON of which some values are odd, missing, doubled or of other names."""
    if rng.random() < 0.1:
        return of_text(data, rng)
    content = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        slots = _slots(content, [])
        if not slots or rng.random() < 0.02:
            content = odd_value(rng)
            break
        _alter(*_chosen(slots, rng), rng)
    text = dumped(content)
    if rng.random() < 0.03:
        key = rng.choice(list(content)) if isinstance(content, dict) and content else ""
        text = "{" + f"{json.dumps(str(key))}: {odd_value(rng)}, " + text[1:]
    return text.encode("utf-8", "surrogatepass")


def _chosen(slots: list[Slot], rng: Random) -> Slot:
    """Any value; long lists count as little as short ones, half of the time."""
    if rng.random() < 0.5:
        return rng.choice(slots)
    names = [slot for slot in slots if isinstance(slot[0], dict)]
    return rng.choice(names or slots)


def _alter(parent: dict | list, key: object, rng: Random) -> None:
    kind = rng.random()
    if kind < 0.7:
        parent[key] = odd_value(rng)
    elif kind < 0.8:
        del parent[key]
    elif kind < 0.9 and isinstance(parent, dict):
        parent[rng.choice(WORDS[1:])] = parent.pop(key)
    elif isinstance(parent, dict):
        parent[rng.choice(WORDS)] = odd_value(rng)
    else:
        parent.append(parent[key])


# -- text ------------------------------------------------------------------------------
def of_text(data: bytes, rng: Random) -> bytes:
    """Text of another encoding, or with odd words in it."""
    text = data.decode("utf-8", "replace")
    kind = rng.random()
    if kind < 0.15:
        encoding = rng.choice(ENCODINGS)
        return text.encode(encoding, "replace")
    if kind < 0.3:
        return of_bytes(data, rng)
    if kind < 0.4:
        return rng.choice(OTHERS).encode()
    place = rng.randrange(len(text) + 1)
    word = rng.choice((*WORDS, *NUMBERS))
    rest = text[place + rng.choice((0, 1, 5)) :]
    return (text[:place] + word + rest).encode("utf-8", "surrogatepass")


CELLS = ('"', '""', '"a\nb"', '"a,b"', ";", ",", "\t", "\n", "=1+1", "'", '"a')


def of_csv(data: bytes, rng: Random) -> bytes:
    """A table with odd cells, rows of other lengths, or other separators."""
    if rng.random() < 0.2:
        return of_text(data, rng)
    rows = [line.split(",") for line in data.decode("utf-8", "replace").splitlines()]
    for _ in range(rng.choice((1, 1, 2, 3))):
        row = rng.choice(rows)
        place = rng.randrange(len(row))
        kind = rng.random()
        if kind < 0.5:
            row[place] = rng.choice((*WORDS, *NUMBERS, *CELLS))
        elif kind < 0.6:
            row.insert(place, rng.choice(WORDS))
        elif kind < 0.7 and len(row) > 1:
            del row[place]
        elif kind < 0.85:
            rows.insert(rng.randrange(len(rows) + 1), list(row))
        elif len(rows) > 1:
            rows.remove(row)
    separator = rng.choice((",", ",", ",", ";", "\t", "|"))
    end = rng.choice(("\n", "\n", "\r\n", "\r"))
    text = end.join(separator.join(row) for row in rows)
    return text.encode("utf-8", "surrogatepass")


def of_lines(data: bytes, rng: Random) -> bytes:
    """A file of one JSON object a line."""
    lines = data.splitlines()
    place = rng.randrange(len(lines))
    lines[place] = of_json(lines[place], rng).replace(b"\n", b" ")
    return b"\n".join(lines)


def of_header(data: bytes, rng: Random) -> bytes:
    """A header of text lines over binary data: NRRD, MetaImage."""
    if rng.random() < 0.3:
        return of_bytes(data, rng)
    end = data.find(b"\n\n") + 1 or data.find(b"LOCAL\n") + 6
    lines = data[:end].decode("latin-1").splitlines()
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(lines))
        name, mark, value = lines[place].partition(rng.choice((": ", " = ", " ")))
        words = value.split(" ")
        words[rng.randrange(len(words))] = rng.choice((*WORDS, *NUMBERS))[:LONG]
        lines[place] = name + mark + " ".join(words)
        if rng.random() < 0.15:
            lines.insert(place, lines[rng.randrange(len(lines))])
        elif rng.random() < 0.1 and len(lines) > 2:
            del lines[place]
    header = "\n".join(lines).encode("utf-8", "replace")
    return header + b"\n" + data[end:]


VALUES = (
    "0,,nan",
    "0,90",
    "nan,inf",
    "0.9,1,1.1",
    "1e308,1",
    "0.000001",
    "96,96",
    "96,96,96",
    "cpu",
    "cuda:99",
    "meta",
    "mps",
    "all",
    "a=b",
    "=",
    "a=",
    "epochs=1e999",
    "seed=9223372036854775808",
    "loss=dice+",
    "loss=1e999*dice",
    "patch_size=[0]",
    "network_options.attention=none",
    "network_options={}",
    "augmentation.rotation=NaN",
    "window=[1,-1]",
    "./x",
    "data",
    "\udcff",
)
"""Of options: some are right for one of them."""


def of_arguments(data: bytes, rng: Random) -> bytes:
    """Arguments of a command with some odd ones."""
    content = json.loads(data)
    arguments: list[str] = content["arguments"]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        flag, count = rng.choice(content["options"])
        odd = [_argument(rng) for _ in range(count)]
        kind = rng.random()
        if kind < 0.85:
            arguments += [flag, *odd]
        elif kind < 0.95:
            place = rng.randrange(len(arguments))
            arguments[place] = _argument(rng)
        else:
            arguments.insert(rng.randrange(len(arguments) + 1), _argument(rng))
    return json.dumps({**content, "arguments": arguments}).encode()


def _argument(rng: Random) -> str:
    word = rng.choice((*VALUES, *WORDS, *NUMBERS))
    # what is written stays in the folder of the example
    word = word.lstrip("/").replace("..", ".")
    return word.replace("\x00", "").replace("\ud800", "\udc80")[:5000]


# -- containers ------------------------------------------------------------------------
def of_gzip(data: bytes, rng: Random) -> bytes:
    """A compressed file, or what it holds, is damaged."""
    if rng.random() < 0.3:
        return of_bytes(data, rng)
    inner = gzip.decompress(data)
    return gzip.compress(of_bytes(inner, rng), compresslevel=1, mtime=0)


def of_safetensors(data: bytes, rng: Random) -> bytes:
    """Weights whose header, or whose bytes, are others."""
    if rng.random() < 0.4:
        return of_bytes(data, rng)
    (count,) = struct.unpack("<Q", data[:8])
    header = of_json(data[8 : 8 + count], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + count :]


def of_zip(data: bytes, rng: Random) -> bytes:
    """An archive that is damaged, or a whole one of damaged files."""
    if rng.random() < 0.5:
        return of_bytes(data, rng)
    written = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(written, "w") as target,
    ):
        names = source.namelist()
        odd = rng.choice(names)
        for name in names:
            content = source.read(name)
            if name == odd and rng.random() < 0.7:
                content = of_bytes(content, rng)
            elif name == odd:
                name = rng.choice(WORDS[3:12]) or name
                name = name.encode("utf-8", "replace").decode()
            target.writestr(name, content)
    return written.getvalue()


def of_object(data: bytes, rng: Random) -> bytes:
    """DICOM with odd elements, or odd bytes; what cannot be written any more is damaged
    as bytes.
    """
    if rng.random() < 0.3:
        return of_bytes(data, rng)
    try:
        return of_dicom(data, rng)
    except Exception:  # of pydicom, which writes no nonsense
        return of_bytes(data, rng)


MUTATIONS: dict[str, Callable[[bytes, Random], bytes]] = {
    ".json": of_json,
    ".jsonl": of_lines,
    ".csv": of_csv,
    ".args": of_arguments,
    ".txt": of_text,
    ".gz": of_gzip,
    ".npz": of_zip,
    ".zip": of_zip,
    ".pt": of_zip,
    ".pth": of_zip,
    ".safetensors": of_safetensors,
    ".nrrd": of_header,
    ".nhdr": of_header,
    ".mha": of_header,
    ".mhd": of_header,
    ".dcm": of_object,
}
"""By what a file's name ends in; others are taken as bytes."""


def mutated(name: str, data: bytes, rng: Random) -> bytes:
    """A file of that name with something odd in it."""
    suffix = "." + name.rpartition(".")[2]
    mutation = MUTATIONS.get(suffix, of_bytes)
    try:
        return mutation(data, rng)
    except (ValueError, zlib.error, IndexError):
        # what is hidden behind another name is damaged as bytes
        return of_bytes(data or b"\0", rng)
