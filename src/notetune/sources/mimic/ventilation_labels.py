"""The published labels of prolonged ventilation, read from their pickle without running it.

A pickle is a program. A file with any other instruction than the few that write numbers, strings,
tuples, lists and dicts is refused before anything is carried out.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any, Final

from notetune.errors import DataError

_NAMES: Final = (
    "INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE "
    "STRING BINSTRING SHORT_BINSTRING NONE NEWTRUE NEWFALSE EMPTY_DICT DICT EMPTY_LIST LIST "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 MARK APPEND APPENDS SETITEM SETITEMS PUT BINPUT "
    "LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET PROTO FRAME STOP"
)
_PLAIN: Final = frozenset(_NAMES.split())
"""Instructions that write numbers, strings, tuples, lists and dicts; no other imports, or calls."""
_DAMAGE: Final = (
    *(pickle.UnpicklingError, ArithmeticError, AttributeError),
    *(EOFError, LookupError, TypeError, ValueError),
)
_MAX_BYTES: Final = 50_000_000
_REMEDY: Final = (
    "it must be a dict of HADM_ID to (label, ..., split) of plain numbers and strings; if you "
    "trust it, load it elsewhere and save it again as such"
)


def read_ventilation_labels(path: Path) -> dict[str, bool]:
    """HADM_ID to whether ventilation was prolonged, from pmv_labels.pkl.

    Raises:
        DataError: If the file is missing, too long, no pickle, holds anything but plain values,
            or is not as published.

    Source:
        Data specification, section 2.6 (BEEP): the first item is the label, the last the split.
    """
    labels = read_plain_pickle(path)
    if not isinstance(labels, dict):
        raise _refused(path, "it holds no dict")
    for key, value in labels.items():
        if not isinstance(key, int) or isinstance(key, bool) or key < 0:
            raise _refused(path, "a key is no whole number")
        if not isinstance(value, list | tuple) or len(value) < 2:
            raise _refused(path, "a value is no sequence of two or more items")
        if value[0] not in (0, 1, "0", "1") or value[-1] not in ("train", "val", "test"):
            raise _refused(path, "a label is not 0 or 1, or a split not train, val or test")
    return {str(key): int(value[0]) == 1 for key, value in labels.items()}


def read_plain_pickle(path: Path) -> Any:
    """The value in a pickle of plain numbers, strings, tuples, lists and dicts.

    Raises:
        DataError: If the file is missing, over 50 MB, damaged, or needs any other instruction.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing; check the path.")
    if path.stat().st_size > _MAX_BYTES:
        raise _refused(path, f"it is over {_MAX_BYTES:,} bytes")
    data = path.read_bytes()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in _PLAIN:
                raise _refused(path, f"it asks for the instruction {opcode.name}")
            if "PUT" in opcode.name and int(argument or 0) > len(data):
                raise ValueError  # it would take that much memory
        return _PlainUnpickler(io.BytesIO(data)).load()
    except _DAMAGE:  # from None, since its message may show what is in the file
        raise _refused(path, "it is damaged or no pickle") from None


class _PlainUnpickler(pickle.Unpickler):
    """Imports nothing, whatever a pickle asks for."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}")


def _refused(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is refused: {reason}; {_REMEDY}.")
