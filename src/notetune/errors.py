"""The exceptions that a user can act on.

Each message names the thing, the found value, the allowed values and the way out. No message
holds note text: it names a file, a row, a column or a note id instead.
"""

import os
import re
from signal import SIGTERM


class NotetuneError(Exception):
    """Base of everything the user can mend; the command line prints it in one line and exits 2."""


class ConfigError(NotetuneError):
    """A recipe or an override is wrong."""


class DataError(NotetuneError):
    """A notes file, a table, a label or a split is wrong."""


class BackboneError(NotetuneError):
    """A backbone folder cannot be used."""


class BundleError(NotetuneError):
    """A saved adapter, head or bundle is damaged or belongs to another backbone."""


class RunError(NotetuneError):
    """A run folder is in use, unfinished or not one of ours."""


def refusal_of(error: BaseException) -> OSError | None:
    """What the machine refused, such as room on a disk; None if the error is something else."""
    if isinstance(error, OSError):
        return error
    by_a_library = re.search(r"\(os error (\d+)\)", str(error))  # as those in Rust have it
    return (
        OSError(int(by_a_library[1]), os.strerror(int(by_a_library[1]))) if by_a_library else None
    )


def of_the_machine(error: Exception) -> RunError | None:
    """As `refusal_of`, as an error that says what to do."""
    refused = refusal_of(error)
    if refused is None:
        return None
    place = f"{refused.filename}: " if refused.filename else ""
    reason = refused.strerror or "reading or writing failed"  # its own text could hold a note
    return RunError(
        f"{place}{reason}. Mend the path, make room or allow it, then run the same command again."
    )


class TrainingError(NotetuneError):
    """Training cannot go on: no data, or a loss that is not finite."""


class Stopped(BaseException):
    """The process was asked to end; the same command goes on from what is saved.

    Attributes:
        signal: SIGINT (Ctrl-C) or SIGTERM.
        saved: A sentence about what is saved; empty where nothing is known of it.
    """

    def __init__(self, signal: int = SIGTERM, saved: str = "") -> None:
        super().__init__(saved or "stopped; every finished stage is saved.")
        self.signal, self.saved = signal, saved


class RunWarning(UserWarning):
    """What a user should know of a run that goes on; the command line prints it in one line."""
