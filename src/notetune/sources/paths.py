"""The files that a source names, whatever its kind: found from the paths in its config."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from notetune.config import Config, ConfigT
from notetune.errors import DataError

_PATTERN_MARKS = frozenset("*?[")


def starting_from(config: ConfigT, folder: Path) -> ConfigT:
    """The same config with every relative path in it starting from `folder`."""
    fields = {name: _moved(getattr(config, name), folder) for name in type(config).model_fields}
    return config.model_copy(update=fields)


def files_of(config: Config) -> list[Path]:
    """Every file under a path of a source, sorted; a path that leads nowhere gives none.

    Those in the `folder_beside` of a source, if it has one, are among them.

    Raises:
        DataError: If a path is a pattern that cannot be.
    """
    candidates = {file for path in paths_in(config) for file in _candidates(path)}
    files = {file for file in candidates if file.is_file()}
    if beside := getattr(config, "folder_beside", None):
        folders = {file.parent / beside for file in files}
        files |= {file for folder in folders for file in folder.rglob("*") if file.is_file()}
    return sorted(files)


def paths_in(value: Any) -> Iterator[Path]:
    """Every path in a config, in the order of its keys."""
    match value:
        case Path():
            yield value
        case Config():
            for name in type(value).model_fields:
                yield from paths_in(getattr(value, name))
        case tuple():
            for item in value:
                yield from paths_in(item)


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
        DataError: If a folder or a pattern has no such file, or a pattern cannot be.
    """
    if (candidates := _candidates(path)) == [path]:
        return candidates
    files = [file for file in candidates if file.is_file() and file.name[0] not in "._"]
    if path.is_dir():
        files = [file for file in files if file.name.lower().endswith(suffixes)]
    if not files:
        kind = f"{' or '.join(suffixes)} file" if path.is_dir() else "file"
        raise DataError(f"{path} leads to no {kind}; check the path.")
    return sorted(files)


def _candidates(path: Path) -> list[Path]:
    """All in a folder, or what a pattern matches; else the path itself."""
    if path.is_dir():
        return list(path.rglob("*"))
    if path.exists() or _PATTERN_MARKS.isdisjoint(str(path)):
        return [path]
    # The folder to look in is as much of the path as there is: its name may hold a mark too.
    start = next(folder for folder in path.parents if folder.exists() or not folder.name)
    try:
        return list(start.glob(str(path.relative_to(start))))
    except ValueError:
        raise DataError(f"{path}: `**` stands alone between slashes; mend the pattern.") from None


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
