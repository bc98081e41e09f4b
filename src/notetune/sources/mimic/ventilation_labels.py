"""The published labels of prolonged ventilation, read from their pickle without running it.

A pickle is a program. This reader knows the few instructions that write numbers, strings, tuples,
lists and dicts, and refuses a file with any other before it has done anything.
"""

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from notetune.errors import DataError

_MAX_BYTES: Final = 50_000_000
_REMEDY: Final = (
    "it must be a dict of HADM_ID to (label, ..., split) of plain numbers and strings; if you "
    "trust it, load it elsewhere and save it again as such"
)


class PublishedLabel(NamedTuple):
    """One admission: whether ventilation was prolonged, and its published split."""

    prolonged: bool
    split: str


def read_ventilation_labels(path: Path) -> dict[str, PublishedLabel]:
    """HADM_ID to its label, from pmv_labels.pkl.

    Raises:
        DataError: If the file is missing, too long, no pickle, holds anything but plain values,
            or is not as published.

    Source:
        Data specification, section 2.6 (BEEP): the first item is the label, the last the split.
    """
    labels = read_plain_pickle(path)
    if not isinstance(labels, dict):
        raise _refused(path, "it holds no dict")
    return {_hadm_id(path, key): _label(path, value) for key, value in labels.items()}


def _hadm_id(path: Path, key: object) -> str:
    if not isinstance(key, int) or isinstance(key, bool) or key < 0:
        raise _refused(path, "a key is no whole number")
    return str(key)


def _label(path: Path, value: object) -> PublishedLabel:
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise _refused(path, "a value is no sequence of two or more items")
    label, split = value[0], value[-1]
    if label not in (0, 1, "0", "1") or split not in ("train", "val", "test"):
        raise _refused(path, "a label is not 0 or 1, or a split not train, val or test")
    return PublishedLabel(int(label) == 1, split)


def read_plain_pickle(path: Path) -> Any:
    """The value in a pickle of plain numbers, strings, tuples, lists and dicts.

    Nothing is imported or called: the instructions are carried out here, one by one.

    Raises:
        DataError: If the file is missing, over 50 MB, damaged, or needs any other instruction.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing; check the path.")
    if path.stat().st_size > _MAX_BYTES:
        raise _refused(path, f"it is over {_MAX_BYTES:,} bytes")
    stack = _Stack()
    try:
        for opcode, argument, _ in pickletools.genops(path.read_bytes()):
            if (step := _STEPS.get(opcode.name)) is None:
                raise _refused(path, f"it asks for the instruction {opcode.name}")
            step(stack, argument)
        (value,) = stack.items
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError):
        # From None: the message of the error may show what is in the file.
        raise _refused(path, "it is damaged or no pickle") from None
    return value


def _refused(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is refused: {reason}; {_REMEDY}.")


class _Stack:
    """The state of a pickle program: a stack, the places of its marks, and remembered values."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def push(self, value: object) -> None:
        self.items.append(value)

    def mark(self, _: object) -> None:
        self._marks.append(len(self.items))

    def since_mark(self) -> list[Any]:
        return self.last(len(self.items) - self._marks.pop())

    def last(self, count: int) -> list[Any]:
        """Take the last values off; `IndexError` if there are fewer."""
        if not 0 <= count <= len(self.items):
            raise IndexError
        start = len(self.items) - count
        taken, self.items[start:] = self.items[start:], []
        return taken

    def remember(self, place: int | None) -> None:
        self._memo[len(self._memo) if place is None else place] = self.items[-1]

    def recall(self, place: int) -> None:
        self.items.append(self._memo[place])

    def extend(self, values: list[Any]) -> None:
        target = self.items[-1]
        if not isinstance(target, list):
            raise TypeError
        target.extend(values)

    def fill(self, values: list[Any]) -> None:
        target = self.items[-1]
        if not isinstance(target, dict):
            raise TypeError
        target.update(zip(values[::2], values[1::2], strict=True))


def _do_nothing(_stack: _Stack, _argument: object) -> None:
    pass


def _as_dict(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(values[::2], values[1::2], strict=True))


_VALUES: Final = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "UNICODE",
    "BINUNICODE", "SHORT_BINUNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING",
)  # fmt: skip
_STEPS: Final[dict[str, Callable[[_Stack, Any], None]]] = {
    **dict.fromkeys(_VALUES, lambda stack, value: stack.push(value)),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _do_nothing),
    "NONE": lambda stack, _: stack.push(None),
    "NEWTRUE": lambda stack, _: stack.push(True),
    "NEWFALSE": lambda stack, _: stack.push(False),
    "EMPTY_DICT": lambda stack, _: stack.push({}),
    "EMPTY_LIST": lambda stack, _: stack.push([]),
    "EMPTY_TUPLE": lambda stack, _: stack.push(()),
    "MARK": _Stack.mark,
    "DICT": lambda stack, _: stack.push(_as_dict(stack.since_mark())),
    "LIST": lambda stack, _: stack.push(stack.since_mark()),
    "TUPLE": lambda stack, _: stack.push(tuple(stack.since_mark())),
    "TUPLE1": lambda stack, _: stack.push(tuple(stack.last(1))),
    "TUPLE2": lambda stack, _: stack.push(tuple(stack.last(2))),
    "TUPLE3": lambda stack, _: stack.push(tuple(stack.last(3))),
    "APPEND": lambda stack, _: stack.extend(stack.last(1)),
    "APPENDS": lambda stack, _: stack.extend(stack.since_mark()),
    "SETITEM": lambda stack, _: stack.fill(stack.last(2)),
    "SETITEMS": lambda stack, _: stack.fill(stack.since_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Stack.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Stack.recall),
}
"""Instruction to what it does; those that import, call or build objects are not here."""
