"""What is ours on a disk, and what is a user's and so never deleted or overwritten.

An output takes the place of nothing, or of what carries a manifest of ours and holds nothing else.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from notetune.errors import RunError

MANIFEST = "manifest.json"
DIGEST = "digest"  # of the rest of the manifest
_MANIFEST_KEYS = {"format", "inputs", "files", "provenance", DIGEST}
# Names that nothing else gives: what has one is ours and half-done.
PART, _WORK, LEASE = ".notetune.part", ".work", ".lease"
_LEASE_START = b'{"token": "'
PART_NAME = re.compile(r"\.(?P<of>.+)\.[a-z0-9_]{8}\.notetune\.part")
WORK_NAME = re.compile(r"\.(?P<of>.+)\.[0-9a-f]{16}\.work")


def refuse_existing(path: Path) -> None:
    """Refuse to write where anything stands, be it a link that leads nowhere.

    Raises:
        RunError: If something does.
    """
    if os.path.lexists(path):
        raise RunError(
            f"{path} exists already and would be overwritten; name another place, or move it away."
        )


def refuse_foreign(folder: Path) -> None:
    """Refuse to replace what is not ours.

    Ours is a folder with our manifest that holds only what is listed there, or in the manifest of a
    folder inside it, and half-done work. All that lies in a work folder is ours.

    Raises:
        RunError: If a file, a link, a folder without our manifest or one with other files in it
            stands there.
    """
    is_in_work = any(WORK_NAME.fullmatch(each.name) for each in folder.parents)
    if is_in_work or not os.path.lexists(folder):
        return
    if folder.is_symlink() or _listed(folder) is None:
        raise RunError(
            f"{folder} was not made by notetune, or its {MANIFEST} is lost, and would be replaced; "
            "name another place, or move it away."
        )
    if foreign := next(_foreign(folder, frozenset()), None):
        raise RunError(
            f"{folder} would be replaced, but {foreign} in it was not made by notetune; move that "
            "elsewhere."
        )


def refuse_full_lock(path: Path) -> None:
    """Refuse to take for a lock what is not empty, as ours are: taking it would empty it.

    Raises:
        RunError: If it is not empty, or a link.
    """
    if os.path.lexists(path) and (path.is_symlink() or path.stat().st_size):
        refuse_existing(path)


def refuse_foreign_lease(path: Path) -> None:
    """Refuse to take for a lease what is none.

    Raises:
        RunError: If something else stands there.
    """
    if not _is_lease(path):
        refuse_existing(path)


def _listed(folder: Path) -> frozenset[Path] | None:
    """The files that the manifest of a folder lists, and itself; None if there is none of ours.

    A file that it lists may be damaged or missing, and so may its digest.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    is_ours = isinstance(manifest, dict) and manifest.keys() == _MANIFEST_KEYS
    if not is_ours or not isinstance(manifest["files"], dict):
        return None
    return frozenset(folder / name for name in (MANIFEST, *manifest["files"]))


def _foreign(folder: Path, ours: frozenset[Path]) -> Iterator[Path]:
    """Files and links below a folder that no manifest lists and that are not half-done work."""
    ours |= _listed(folder) or frozenset()
    for path in sorted(folder.iterdir()):
        if PART_NAME.fullmatch(path.name) or WORK_NAME.fullmatch(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _foreign(path, ours)
        elif path not in ours and not _is_lock(path) and not _is_lease(path):
            yield path


def _is_lock(path: Path) -> bool:
    """Whether a lock of ours stands there, or did until just now."""
    is_named_so = path.name.startswith(".") and path.suffix == ".lock"
    try:
        return is_named_so and not path.lstat().st_size  # a link has a size
    except FileNotFoundError:
        return True


def _is_lease(path: Path) -> bool:
    """Whether a lease of ours stands there, or did until just now."""
    if path.suffix != LEASE or path.is_symlink():
        return False
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        start = path.read_bytes()[: len(_LEASE_START)].strip(b"\0")
    except FileNotFoundError:
        return True
    return _LEASE_START.startswith(start)  # a power loss leaves zeros, or a part


def lease_of(folder: Path) -> Path:
    """Where it stands who makes a folder."""
    return folder.parent / f".{folder.name}{LEASE}"


def work_of(folder: Path, inputs_fingerprint: str) -> Path:
    """Where half-done work on a folder is kept."""
    return folder.parent / f".{folder.name}.{inputs_fingerprint}{_WORK}"


def works_of(folder: Path) -> list[Path]:
    """All half-done work on a folder, for whatever inputs."""
    names = {path: WORK_NAME.fullmatch(path.name) for path in folder.parent.glob(f".*{_WORK}")}
    of_folder = (path for path, name in names.items() if name and name["of"] == folder.name)
    return sorted(path for path in of_folder if path.is_dir() and not path.is_symlink())


def meant(path: Path) -> Path:
    """What a path stands for where a part of it is half-done."""
    names = [PART_NAME.fullmatch(part) or WORK_NAME.fullmatch(part) for part in path.parts]
    return Path(*(n["of"] if n else p for n, p in zip(names, path.parts, strict=True)))


def saved_in(work: Path, folder: Path) -> str:
    """What a stage that was stopped can go on with."""
    saved = [path.parent for path in work.rglob(MANIFEST)]
    newest = max(saved, key=lambda each: each.stat().st_mtime_ns, default=None)
    if newest is None:
        return f"{folder}: stopped; what was finished before it is saved."
    return f"{folder}: stopped; its work up to {newest.relative_to(work)} is saved."
