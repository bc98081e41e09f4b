"""All latent conditions of the synthetic hospital."""

from typing import Any, TypeVar

from notetune.hospital.condition import Acute, Chronic, Condition, Effects
from notetune.hospital.texts import read_yaml

_Row = TypeVar("_Row", bound=Condition)


def _rows(name: str, kind: type[_Row]) -> dict[str, _Row]:
    return {key: kind(name=key, **_with_effects(row)) for key, row in read_yaml(name).items()}


def _with_effects(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "effects": Effects(**row.get("effects", {}))}


ACUTE = _rows("acute.yaml", Acute)
LASTING = _rows("chronic.yaml", Chronic)
