"""Strict recipes: YAML plus `key.sub=value` overrides <-> frozen pydantic models."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from notetune.errors import ConfigError


class Config(BaseModel):
    """Base of every recipe section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


ConfigT = TypeVar("ConfigT", bound=Config)


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-4` is a number (YAML 1.1 reads it as text) and a repeated key fails."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf)$|^\.nan$"),
    list("-+0123456789."),
)


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]  # type: ignore[no-untyped-call]
    repeated = sorted({str(key) for key in keys if keys.count(key) > 1})
    if repeated:
        line = node.start_mark.line + 1
        raise ConfigError(f"line {line}: key {repeated[0]} is given twice; keep one of them.")
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_repeats)


def load(model: type[ConfigT], path: Path, overrides: Sequence[str] = ()) -> ConfigT:
    """Read a recipe file, apply the overrides from left to right, and validate the whole.

    Raises:
        ConfigError: If the file is missing, is not YAML, or holds an unknown or invalid key.
    """
    if not path.is_file():
        raise ConfigError(f"recipe {path} is not a file; the shipped ones are in recipes/.")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (safe subclass)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"recipe {path} is not valid YAML{where}; mend it there.") from None
    if not isinstance(data, dict):
        raise ConfigError(f"recipe {path} holds no keys; see recipes/ for complete examples.")
    for override in overrides:
        _apply(data, override)
    return parse(model, data, str(path))


def parse(model: type[ConfigT], data: Mapping[str, Any], origin: str) -> ConfigT:
    """Validate a mapping as a recipe; `origin` names it in an error.

    Raises:
        ConfigError: With the dotted key, the reason and the nearest known key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_explain(model, data, item) for item in error.errors(include_input=False)]
        raise ConfigError(f"{origin}: " + "; ".join(problems)) from None


def _apply(data: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"override {override} is not key.sub=value.")
    *parents, last = dotted.split(".")
    section = data
    for key in parents:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise ConfigError(f"override {dotted}: {key} is a value, not a section.")
    try:
        section[last] = yaml.load(text, Loader=_Loader)  # noqa: S506 (safe subclass)
    except yaml.YAMLError:
        raise ConfigError(f"override {dotted}: its value is not valid YAML; quote it.") from None


def _explain(model: type[Config], data: Mapping[str, Any], item: Any) -> str:
    dotted = ".".join(_loc_without_union_tags(data, item["loc"]))
    if item["type"] != "extra_forbidden":
        return f"{dotted or 'recipe'}: {item['msg']}"
    known = sorted(set(_dotted_keys(model)))
    near = difflib.get_close_matches(dotted, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown key {dotted}{hint}"


def _loc_without_union_tags(data: Any, loc: Sequence[str | int]) -> Iterator[str]:
    for index, key in enumerate(loc):
        is_last = index == len(loc) - 1
        if isinstance(data, Mapping) and key not in data and not is_last:
            continue  # pydantic adds the tag of the chosen union member
        yield str(key)
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            data = None


def _dotted_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for inner in _models_in(field.annotation):
            yield from _dotted_keys(inner, f"{prefix}{name}.")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
