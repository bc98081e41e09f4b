"""Strict recipes: YAML plus `key.sub=value` overrides <-> frozen pydantic models."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json

from notetune.errors import ConfigError

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""A name that becomes part of a path."""
MAX_SHOWN_CHARS: Final = 120
_MOST_COUNTED: Final = 10**15  # of anything; products of counts must fit into 64 bits
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # in JSON; no path may hold it


def as_name(words: str, otherwise: str, mark: str = "-", taken: Collection[str] = ()) -> str:
    """Words, such as the name of a file, as a `Name`, with a number where that is taken.

    The `mark` stands in place of characters that no name has; `otherwise` is the name of words
    without a character of one.
    """
    plain = words
    if not re.fullmatch(NAME_PATTERN, words):
        plain = re.sub(r"[^a-z0-9._-]+", mark, words.lower()).strip("._-")[:64] or otherwise
    numbered = (f"{plain[:60]}-{number}" for number in count(2))
    return next(name for name in chain([plain], numbered) if name not in taken)


def _fits_a_line(text: str) -> str:
    if not (0 < len(text) <= MAX_SHOWN_CHARS and text.isprintable()):
        raise ValueError(f"it should be one line of 1 to {MAX_SHOWN_CHARS} printable characters")
    return text


Shown = Annotated[str, AfterValidator(_fits_a_line)]
"""A name in the user's own words that is shown and looked up, and never part of a path: a column, a
class, a source of notes."""


class Config(BaseModel):
    """Base of every recipe section: frozen, an unknown key is an error, numbers are finite."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
        defer_build=True,
        serialize_by_alias=True,
    )

    @model_validator(mode="after")
    def _defaults_are_themselves(self) -> "Config":
        """Keep a default that is written down as it is when left out: 1, not 1.0."""
        for name, field in type(self).model_fields.items():
            if type(getattr(self, name)) is float and getattr(self, name) == field.default:
                self.__dict__[name] = field.default
        return self

    @model_serializer(mode="wrap")
    def _serialized(self, values_of: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
        """All values; for a fingerprint without those that do what was done before they came."""
        values: dict[str, Any] = values_of(self)
        if info.context and info.context.get("fingerprint"):
            for name, before in getattr(self, "AS_BEFORE", {}).items():
                if getattr(self, name) == before:
                    del values[name]
        return values


ConfigT = TypeVar("ConfigT", bound=Config)


def load(model: type[ConfigT], path: Path, overrides: Sequence[str] = ()) -> ConfigT:
    """Read a recipe file, apply the overrides from left to right, and validate the whole.

    Raises:
        ConfigError: If the file is missing, is not YAML, or holds an unknown or invalid key.
    """
    if not path.is_file():
        raise ConfigError(f"recipe {path} is not a file; the shipped ones are in recipes/.")
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise ConfigError(
            f"recipe {path} has {size:,} bytes, and at most {_MOST_BYTES:,} may be; name a recipe."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"recipe {path} is not UTF-8 text; save it as UTF-8.") from None
    data = _read_yaml(text, f"recipe {path}")
    if not isinstance(data, dict):
        raise ConfigError(f"recipe {path} holds no keys; see recipes/ for complete examples.")
    for override in overrides:
        _apply(data, override)
    return parse(model, data, str(path))


def parse(model: type[ConfigT], data: Mapping[str, Any], origin: str) -> ConfigT:
    """Validate a mapping as a recipe; `origin` names it in an error.

    Nothing is converted: `seed: 1.5`, `seed: "7"` and `seed: true` are refused for a whole number.
    A section that is given in part keeps the other defaults of its place, `kind` included.

    Raises:
        ConfigError: With the dotted key, the found value, the reason and the nearest known key.
    """
    try:
        text = to_json(_begun(model, data) if isinstance(data, Mapping) else data)
        if _NUL.search(text):
            raise ConfigError(f"{origin}: a key or a value holds a NUL character; remove it.")
        # Strict validation of JSON still reads a path from text and a tuple from a list, which
        # strict validation of Python values refuses.
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        items = error.errors(include_input=False)
        problems = [_explain(model, data, item) for item in items[:_MOST_PROBLEMS]]
        if more := len(items) - len(problems):
            problems.append(f"and {more} problems more")
        raise ConfigError(f"{origin}: " + "; ".join(problems)) from None
    except PydanticSerializationError:
        raise ConfigError(
            f"{origin}: a value is none of text, number, true, false, null, list or section."
        ) from None


def _begun(model: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a section, each of its own sections begun as the default of its place.

    Pydantic fills such a section with the defaults of its class, which may be others.
    """
    keys = dict(given)
    for key, field in fields_of(model).items():
        part, default = given.get(key), field.default
        if not isinstance(part, Mapping):
            continue
        if isinstance(default, Config):
            begun = default.model_dump(mode="json", include=default.model_fields_set | {"kind"})
            if part.get("kind", begun.get("kind")) == begun.get("kind"):
                keys[key] = {**begun, **_begun(type(default), part)}
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            keys[key] = _begun(field.annotation, part)
    return keys


def changed(config: ConfigT, changes: Mapping[str, Any], origin: str) -> ConfigT:
    """The same config with other values for some keys; `origin` names the changes in an error.

    A section changes key by key; it is replaced where `kind` changes, and emptied by `{}`. Errors
    are those of `parse`.
    """
    return parse(type(config), merged(config.model_dump(mode="json"), changes), origin)


def merged(old: Any, new: Any) -> Any:
    """The keys of two sections, as `changed` says."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping) and new):
        return new
    if "kind" in new and new["kind"] != old.get("kind"):
        return new
    return {**old, **{key: merged(old.get(key), new[key]) for key in new}}


class _RefusedError(yaml.MarkedYAMLError):
    """What YAML itself would take and say nothing, such as a key that is given twice."""


class _Loader(yaml.SafeLoader):
    """The scalars of YAML 1.2, as people mean them, and no repeated keys.

    YAML 1.1 reads `1e-4` as text, `010` as 8, `1:30` as 90 and `no` as false.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 (the name and the form are PyYAML's)
        first: [pair for pair in pairs if pair[0].rpartition(":")[2] in ("null", "merge")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
        if key.value in seen:
            problem = f"key {_shown_key(key.value)} is given twice; keep one"
            raise _RefusedError(problem=problem, problem_mark=key.start_mark)
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


def _countable(loader: _Loader, node: yaml.ScalarNode) -> int:
    number = loader.construct_yaml_int(node)
    if abs(number) > _MOST_COUNTED:
        problem = f"a whole number over {_MOST_COUNTED:,}; write a smaller one"
        raise _RefusedError(problem=problem, problem_mark=node.start_mark)
    return int(number)


class _Dumper(yaml.SafeDumper):
    """Puts quotes around a text that `_Loader`, too, would take for something else."""


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_repeats)
_Loader.add_constructor("tag:yaml.org,2002:int", _countable)
for _kind, _pattern in {
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][\d_]*)",
    "float": r"[-+]?(?!0\d)(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}.items():
    for _reads_or_writes in (_Loader, _Dumper):
        _reads_or_writes.add_implicit_resolver(
            f"tag:yaml.org,2002:{_kind}", re.compile(rf"({_pattern})\Z"), list("-+.0123456789tTfF")
        )


_MOST_NODES: Final = 100_000
_MOST_BYTES: Final = 1 << 18  # PyYAML takes seconds for so many
_MOST_PROBLEMS: Final = 10
_NOT_YAML = (
    "this, or the line before, is not valid YAML; put quotes around a value that holds any of "
    "# : ? , [ ] { }, and indent with spaces"
)


def as_yaml(keys: Any) -> str:
    """JSON-like values as YAML that is read back as they are."""

    def written(*, allow_unicode: bool) -> str:
        return yaml.dump(keys, Dumper=_Dumper, sort_keys=False, allow_unicode=allow_unicode)

    text = written(allow_unicode=True)
    # PyYAML writes these as they are, and reads them as a space.
    has_breaks = not {"\x85", "\u2028", "\u2029"}.isdisjoint(text)
    return written(allow_unicode=False) if has_breaks else text


def _read_yaml(text: str, origin: str) -> Any:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None and _size(node, {}) > _MOST_NODES:
            raise ConfigError(f"{origin}: its aliases stand for over {_MOST_NODES:,} values.")
        return None if node is None else loader.construct_document(node)
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):  # not of YAML
        raise ConfigError(
            f"{origin}: sections too deep, a number too long, or a value that does not fit its "
            "tag; write values plainly."
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{origin} line {mark.line + 1}" if mark else origin
        # Only our own message is repeated: PyYAML's quotes the file, which may not be a recipe.
        reason = error.problem if isinstance(error, _RefusedError) else _NOT_YAML
        raise ConfigError(f"{where}: {reason}.") from None


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Values in a node, those that aliases stand for included."""
    if id(node) not in known:
        known[id(node)] = 1  # of one that holds itself, which is refused later
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        pairs = (part if isinstance(part, tuple) else (part,) for part in parts)
        known[id(node)] += sum(_size(inner, known) for pair in pairs for inner in pair)
    return known[id(node)]


def _apply(data: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    *parents, last = dotted.split(".")
    if not equals or not all([*parents, last]):
        raise ConfigError(f"override {override} is not key.sub=value.")
    section = data
    for key in parents:
        inner = section.get(key)
        if not isinstance(inner, dict | None):
            raise ConfigError(f"override {dotted}: {key} is a value, not a section; give it whole.")
        # A copy, because a YAML alias lets two keys share one mapping.
        section[key] = dict(inner or {})
        section = section[key]
    section[last] = _read_yaml(text, f"override {dotted}")


def _explain(model: type[Config], data: Mapping[str, Any], item: Any) -> str:
    keys, found = _keys_and_value(data, item["loc"], item["type"])
    dotted = ".".join(keys)
    reason = item["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    match item["type"]:
        case "extra_forbidden":
            owners = _owners(model, item["loc"][:-1])
            return f"unknown key {dotted}; {_hint(model, keys, owners)}"
        case "missing" | "value_error" | "assertion_error":
            return f"{dotted}: {reason}" if dotted else reason
        case "union_tag_invalid" | "union_tag_not_found":
            kinds = [kind for owner in _owners(model, item["loc"]) for kind in _kinds(owner)]
            given = f"is {_shown_value(found['kind'])}" if "kind" in found else "is missing"
            return f"{dotted}.kind {given}: it should be one of {', '.join(kinds)}"
        case "model_type" | "dict_type":
            reason = "it should be a section with keys; to keep the defaults, leave it out"
    return f"{dotted} is {_shown_value(found)}: {reason}"


def _hint(model: type[Config], keys: Sequence[str], owners: Sequence[type[BaseModel]]) -> str:
    *parents, last = keys
    known = sorted({name for owner in owners for name in fields_of(owner)})
    if near := difflib.get_close_matches(last, known, n=1):
        return f"did you mean {'.'.join([*parents, *near])}?"
    deeper = (key for key in _dotted_keys(model) if key.endswith(f".{last}"))
    if not parents and (first := next(deeper, "")):
        return f"did you mean {first}?"
    return f"the keys there are {', '.join(known)}"


def _keys_and_value(data: Any, loc: Sequence[str | int], problem: str) -> tuple[list[str], Any]:
    """The keys that lead to the error, without pydantic's tags of union members, and the value."""
    keys: list[str] = []
    for index, key in enumerate(loc):
        is_index = isinstance(data, list | tuple) and key in range(len(data))
        if is_index or (isinstance(data, Mapping) and key in data):
            data = data[key]
        elif problem not in ("missing", "extra_forbidden") or index < len(loc) - 1:
            continue
        keys.append(_shown_key(key))
    return keys, data


def _owners(model: type[BaseModel], parents: Sequence[str | int]) -> list[type[BaseModel]]:
    """The models whose fields are allowed at this place of the recipe."""
    owners = [model]
    for part in parents:
        named = [found for owner in owners if (found := fields_of(owner).get(str(part)))]
        tagged = [owner for owner in owners if part in (owner.__name__, *_kinds(owner))]
        inner = [found for field in named for found in models_in(field.annotation)]
        owners = inner if named else tagged or owners
    return owners


def _kinds(model: type[BaseModel]) -> tuple[str, ...]:
    kind = model.model_fields.get("kind")
    return get_args(kind.annotation) if kind else ()


def _dotted_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in fields_of(model).items():
        yield prefix + name
        for inner in models_in(field.annotation):
            yield from _dotted_keys(inner, f"{prefix}{name}.")


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a section by their keys; one that is a word of Python has `_` in code."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a value can be, or can hold, by the annotation of its key."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def _shown_key(key: object) -> str:
    # A notes file given by mistake as a recipe parses as YAML whose keys are sentences.
    return text if re.fullmatch(r"[\w.-]{1,40}", text := str(key)) else "(not a name)"


def _shown_value(value: object) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str():
            return repr(value) if re.fullmatch(r"[\w.:/+-]{0,40}", value) else "a text"
        case _:
            return "a section" if isinstance(value, Mapping) else "a list"
