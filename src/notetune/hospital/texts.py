"""The files of `data/`: conditions, codes and phrases as values."""

from importlib.resources import files
from typing import Any

import yaml

_DATA = files("notetune.hospital") / "data"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(name: str) -> dict[str, Any]:
    """A file of values; its lists become tuples."""
    # Both loaders build plain values only.
    loaded = yaml.load((_DATA / name).read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506
    return dict(_fixed(loaded))


def _fixed(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_fixed, value))
    if isinstance(value, dict):
        return {key: _fixed(one) for key, one in value.items()}
    return value


PHRASES = read_yaml("phrases.yaml")
"""What authors write, by the module that writes it."""
