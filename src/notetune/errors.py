"""The exceptions that a user can act on.

Each message names the thing, the found value, the allowed values and the way out. No message
holds note text: it names a file, a row, a column or a note id instead.
"""

from collections.abc import Iterable
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


class WriteError(RunError):
    """Something cannot be written: no room, or not allowed."""


class TrainingError(NotetuneError):
    """Training cannot go on: no data, or a loss that is not finite."""


class TrainingMemoryError(TrainingError):
    """Memory does not hold what trains; with more of it the same command goes on."""


class StepError(TrainingError):
    """A step that cannot be taken.

    Attributes:
        documents: Where those on which it failed stand in their store.
        as_told: What is raised of it with the names of its notes.
    """

    def __init__(
        self,
        message: str,
        documents: Iterable[int],
        as_told: type[TrainingError] = TrainingError,
    ) -> None:
        super().__init__(message)
        self.documents, self.as_told = list(documents), as_told


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
