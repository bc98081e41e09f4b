"""What a power loss can leave of a folder, worked out from a record of what was done in it.

The rules are those that POSIX gives: a file's content is safe after fsync of the file, the names in
a folder after fsync of the folder; whatever else happened may be on the disk or not.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CONTENTS = {
    "kept": lambda file: file.now,
    "dropped": lambda file: file.safe,
    "zeroed": lambda file: bytes(len(file.now)),
    "halved": lambda file: file.now[: len(file.now) // 2],
}
"""What becomes of content that is not safe."""
NAMES = {
    "kept": lambda folder: folder.now,
    "lost": lambda folder: folder.safe,
    "only what was added": lambda folder: folder.safe | folder.now,
    "only what was removed": lambda folder: {
        name: item for name, item in folder.safe.items() if folder.now.get(name) is item
    },
}
"""What becomes of names that are not safe."""


@dataclass(eq=False)
class File:
    """A file: its content, and what of it is safe."""

    now: bytes = b""
    safe: bytes = b""


@dataclass(eq=False)
class Folder:
    """A folder: its names, and which of them are safe."""

    now: dict[str, "File | Folder"] = field(default_factory=dict)
    safe: dict[str, "File | Folder"] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """One thing that was done; paths start from the folder that is watched."""

    kind: str
    path: str
    to: str = ""
    content: bytes = b""


class Disk:
    """A folder on a disk that may lose what is not safe."""

    def __init__(self) -> None:
        self.root = Folder()

    def do(self, operation: Operation) -> None:
        """Do again what was recorded."""
        folder, name = self._place(operation.path)
        match operation.kind:
            case "mkdir":
                folder.now[name] = Folder()
            case "write":
                folder.now.setdefault(name, File()).now = operation.content
            case "rename":
                target, new_name = self._place(operation.to)
                target.now[new_name] = folder.now.pop(name)
            case "remove":
                del folder.now[name]
            case "fsync":
                item = folder.now[name] if name else folder
                item.safe = dict(item.now) if isinstance(item, Folder) else item.now

    def after(self, names: str, contents: str) -> dict[str, bytes | None]:
        """Paths and contents after a power loss; a folder has None."""
        found: dict[str, bytes | None] = {}

        def walk(folder: Folder, path: str) -> None:
            for name, item in NAMES[names](folder).items():
                if isinstance(item, Folder):
                    found[f"{path}{name}"] = None
                    walk(item, f"{path}{name}/")
                else:
                    is_safe = item.now == item.safe
                    found[f"{path}{name}"] = item.now if is_safe else CONTENTS[contents](item)

        walk(self.root, "")
        return found

    def _place(self, path: str) -> tuple[Folder, str]:
        *above, name = path.split("/")
        folder = self.root
        for part in above:
            folder = folder.now[part]
        return folder, name


def contents_of(root: Path) -> dict[str, bytes | None]:
    """Paths and contents of a real folder; a folder in it has None."""
    return {
        path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in root.rglob("*")
    }


@contextmanager
def recorded(root: Path) -> Iterator[list[Operation]]:
    """What is done in a folder inside the block, whoever does it."""
    recorder = Recorder(root)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "replace"):
            patch.setattr(os, name, recorder.sees("rename", getattr(os, name)))
        for name in ("unlink", "remove", "rmdir"):
            patch.setattr(os, name, recorder.sees("remove", getattr(os, name)))
        patch.setattr(os, "fsync", recorder.sees("fsync", os.fsync))
        yield recorder.operations
        recorder.look()


class Recorder:
    """Sees renaming, removing and fsync when Python asks the system for them.

    What was written before is found by looking, so writes of other languages are seen too.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.operations: list[Operation] = []
        self.disk = Disk()

    def sees(self, kind: str, original: Callable) -> Callable:
        """The original, recorded when it succeeds."""

        def call(path, *arguments, **options):
            inside = self._inside(path, options.get("dir_fd"))
            if inside is None:
                return original(path, *arguments, **options)
            self.look()
            result = original(path, *arguments, **options)
            to = self._inside(arguments[0]) if kind == "rename" else ""
            self._add(Operation(kind, inside, to))
            return result

        return call

    def look(self) -> None:
        """Record what was made or written since the last look."""
        seen = self.disk.after("kept", "kept")
        real = contents_of(self.root)
        assert seen.keys() <= real.keys(), "something was removed or renamed unseen"
        for path in sorted(real):
            if real[path] is None and path not in seen:
                self._add(Operation("mkdir", path))
            elif path not in seen or real[path] != seen[path]:
                self._add(Operation("write", path, content=real[path]))

    def _add(self, operation: Operation) -> None:
        self.operations.append(operation)
        self.disk.do(operation)

    def _inside(self, path: object, dir_fd: int | None = None) -> str | None:
        """A path, or an open file, from the root on; None if it is elsewhere."""
        handle = path if isinstance(path, int) else dir_fd
        start = Path.cwd() if handle is None else Path(f"/proc/self/fd/{handle}").readlink()
        whole = start if isinstance(path, int) else start / os.fspath(path)
        if not whole.is_relative_to(self.root):
            return None
        return "" if whole == self.root else whole.relative_to(self.root).as_posix()


def build(root: Path, contents: dict[str, bytes | None]) -> None:
    """Make a folder what a power loss left."""
    root.mkdir()
    for path, content in contents.items():
        if content is None:
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
