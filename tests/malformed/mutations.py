"""Random changes of valid files: of bytes, lines, fields and values."""

import json
import random
from collections.abc import Callable, Sequence

Mutate = Callable[[bytes, random.Random], bytes]

_ODD = (
    *("\0", "\ufeff", "\u202e", "\ud7ff", "\x1b[31m", "\t", "\r", "\n", '"', "'", ",", ";", "\\"),
    *("*", "[", "]", "{", "}", "&", "!", "%", "#", ":", "- ", "?", "|", ">", "<<", "~", "=1+1"),
)
_VALUES: tuple[object, ...] = (
    *(None, True, False, 0, -1, 7, 10**12, 10**19, 1.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", " ", "NULL", "nan", "1", "01", "a" * 300, "\ud800", "\x1b[31m", "../..", "2150-13-01"),
    *([], {}, [None], [1, "a"], {"a": 1}, [[]], {"": {}}),
)


def _place(data: Sequence[object], rng: random.Random) -> int:
    return rng.randrange(max(1, len(data)))


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Up to four bits flipped."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[_place(changed, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Bytes left out: the end, or a part."""
    start = _place(data, rng)
    end = len(data) if rng.random() < 0.5 else start + rng.randint(1, 64)
    return data[:start] + data[end:]


def doubled(data: bytes, rng: random.Random) -> bytes:
    """A part twice, or as many zeros or ones in its place."""
    start = _place(data, rng)
    part = data[start : start + rng.randint(1, 64)]
    return data[:start] + rng.choice((part * 2, bytes(len(part)), b"\xff" * len(part))) + data[start + len(part) :]  # fmt: skip


def inserted(data: bytes, rng: random.Random) -> bytes:
    """An odd character somewhere."""
    start = _place(data, rng)
    return data[:start] + rng.choice(_ODD).encode() + data[start:]


def of_lines(data: bytes, rng: random.Random) -> bytes:
    """Lines doubled, swapped, left out or joined."""
    lines = data.splitlines(keepends=True)
    first, second = _place(lines, rng), _place(lines, rng)
    match rng.randrange(4):
        case 0:
            lines.insert(first, lines[second])
        case 1:
            lines[first], lines[second] = lines[second], lines[first]
        case 2:
            del lines[first]
        case _:
            lines[first] = lines[first].rstrip(b"\n")
    return b"".join(lines)


def of_cells(data: bytes, rng: random.Random) -> bytes:
    """A cell of a CSV left out, or with another value in its place."""
    lines = data.split(b"\n")
    row = _place(lines, rng)
    cells = lines[row].split(b",")
    cell = _place(cells, rng)
    if rng.random() < 0.3:
        del cells[cell]
    else:
        cells[cell] = str(rng.choice(_VALUES)).encode("utf-8", "replace")
    lines[row] = b",".join(cells)
    return b"\n".join(lines)


def of_values(data: bytes, rng: random.Random) -> bytes:
    """A value of a JSON file, or of one of its lines, changed or left out."""
    lines = data.split(b"\n")
    at = None
    try:
        value = json.loads(data)
    except ValueError:
        at = _place(lines[:-1], rng)
        value = json.loads(lines[at])
    text = json.dumps(_changed(value, rng), indent=None if at is not None else 1).encode()
    if at is None:
        return text + b"\n"
    return b"\n".join([*lines[:at], text, *lines[at + 1 :]])


def _changed(value: object, rng: random.Random) -> object:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = _place(value, rng)
        return [*value[:place], _changed(value[place], rng), *value[place + 1 :]]
    return rng.choice(_VALUES)


def of_keys(data: bytes, rng: random.Random) -> bytes:
    """A value of a YAML file changed, or the depth of a line."""
    lines = data.split(b"\n")
    row = _place(lines, rng)
    name, colon, _ = lines[row].rpartition(b": ")
    if colon and rng.random() < 0.7:
        value = json.dumps(rng.choice(_VALUES)).encode()
        closing = lines[row][len(lines[row].rstrip(b"}")) :] if rng.random() < 0.8 else b""
        lines[row] = name + colon + value + closing
    else:
        lines[row] = b" " * rng.randrange(5) + lines[row].lstrip()
    return b"\n".join(lines)


BYTES: tuple[Mutate, ...] = (flipped, cut, doubled, inserted)
LINES: tuple[Mutate, ...] = (*BYTES, of_lines)
