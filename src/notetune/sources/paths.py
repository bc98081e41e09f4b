"""The files that a source names, whatever its kind: found from the paths in its config."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from notetune.config import Config, ConfigT
from notetune.errors import DataError

_PATTERN_MARKS = frozenset("*?[")


def starting_from(source: ConfigT, folder: Path) -> ConfigT:
    """The same source with every relative path in it starting from `folder`."""
    fields = {name: _moved(getattr(source, name), folder) for name in type(source).model_fields}
    return source.model_copy(update=fields)


def files_of(source: Config) -> list[Path]:
    """Every file under a path of the source, sorted; a path that leads nowhere gives none."""
    found = {file for path in _paths_in(source) for file in _files_under(path)}
    return sorted(found)


def matching_files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files that one path stands for, in the order of their names.

    Args:
        path: A file; or a folder, for all its files with one of the suffixes, in folders inside it
            too; or a pattern with `*`, `?`, `**` or `[...]`.
        suffixes: Such as `(".parquet",)`.

    Returns:
        At least one file; a path that is neither a folder nor a pattern comes back as it is, for
        the reader to judge. Names that start with a dot or an underscore are left out.

    Raises:
        DataError: If a folder or a pattern has no such file.
    """
    if not path.is_dir() and (path.exists() or not _is_pattern(path)):
        return [path]
    candidates = path.rglob("*") if path.is_dir() else _matches(path)
    files = [file for file in candidates if file.is_file() and file.name[0] not in "._"]
    if path.is_dir():
        files = [file for file in files if file.name.lower().endswith(suffixes)]
    if not files:
        raise DataError(f"{path} leads to no {' or '.join(suffixes)} file; check the path.")
    return sorted(files)


def _moved(value: Any, folder: Path) -> Any:
    match value:
        case Path():
            return folder / value
        case Config():
            return starting_from(value, folder)
        case tuple():
            return tuple(_moved(item, folder) for item in value)
        case _:
            return value


def _paths_in(value: Any) -> Iterator[Path]:
    match value:
        case Path():
            yield value
        case Config():
            for name in type(value).model_fields:
                yield from _paths_in(getattr(value, name))
        case tuple():
            for item in value:
                yield from _paths_in(item)


def _files_under(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
    elif path.is_file():
        yield path
    elif _is_pattern(path):
        yield from (file for file in _matches(path) if file.is_file())


def _is_pattern(path: Path) -> bool:
    return not _PATTERN_MARKS.isdisjoint(str(path))


def _matches(pattern: Path) -> Iterator[Path]:
    """What a pattern matches; its leading parts without marks are the folder to look in."""
    parts = pattern.parts
    first = next(index for index, part in enumerate(parts) if not _PATTERN_MARKS.isdisjoint(part))
    return Path(*parts[:first]).glob("/".join(parts[first:]))
