"""Run folders: private files, and folders that are made aside and take their place in one step."""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from notetune import manifest, ownership, storage
from notetune.errors import BackboneError, ConfigError, DataError, Stopped


def make_files_private() -> None:
    """Let only the owner read what this process writes: notes and adapters are sensitive."""
    os.umask(0o077)


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Make files private while a block runs, in a process that is not ours."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def new_folder(folder: Path, inputs: Any) -> Iterator[Path]:
    """Build a folder aside and rename it into place when the block ends without an error.

    `inputs` of a stage hold its number as `format`; a change of the number makes the folder again.

    Yields a temporary sibling. On success it gets a manifest (fingerprint of `inputs`, sha256 of
    every file, provenance), is synced to disk and replaces `folder`; on failure it is removed, and
    whatever stood at `folder` is untouched.

    Raises:
        RunError: As `refuse_foreign`, before the block or after it.
        WriteError: If it cannot be written.
    """
    ownership.refuse_foreign(folder)
    storage.make_folder(folder.parent)
    with storage.written(folder):
        temporary = _part_folder(folder)
        try:
            yield temporary
            manifest.seal(temporary, inputs)
            ownership.refuse_foreign(folder)  # something may have come meanwhile
            if folder.exists():
                _replace(folder, temporary)
            else:
                temporary.rename(folder)
            storage.sync(folder.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextlib.contextmanager
def work_folder(folder: Path, inputs: Any) -> Iterator[Path]:
    """Keep half-done work on `folder` beside it, so that a run after this one can go on with it.

    Yields a sibling whose name depends on `inputs`; in it is what a run with the same inputs left
    that was killed, interrupted or failed. Work for other inputs is removed first, and this one's
    when the block ends, or when the input is at fault, since there is nothing to go on with then.

    Raises:
        RunError: As `refuse_foreign` does for `folder`.
        WriteError: If what the block writes cannot be written.
        Stopped: After Ctrl-C or SIGTERM; it says what is saved.
    """
    ownership.refuse_foreign(folder)
    work = ownership.work_of(folder, storage.fingerprint(inputs))
    for other in ownership.works_of(folder):
        if other != work:
            shutil.rmtree(other)
    storage.make_folder(work)
    try:
        with storage.written(folder):
            yield work
    except (BackboneError, ConfigError, DataError):
        shutil.rmtree(work, ignore_errors=True)
        raise
    except KeyboardInterrupt:
        raise Stopped(signal.SIGINT, ownership.saved_in(work, folder)) from None
    except Stopped as error:
        raise Stopped(error.signal, error.saved or ownership.saved_in(work, folder)) from None
    shutil.rmtree(work, ignore_errors=True)


def _part_folder(folder: Path) -> Path:
    """A new private folder beside `folder`, on the same file system, so that a rename is atomic."""
    return Path(tempfile.mkdtemp(ownership.PART, f".{folder.name}.", folder.parent))


def _replace(folder: Path, temporary: Path) -> None:
    # No rename swaps two full folders, so the old one steps aside, and comes back on an error.
    aside = _part_folder(folder)
    retired = folder.rename(aside / folder.name)
    try:
        temporary.rename(folder)
    except BaseException:
        retired.rename(folder)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)
