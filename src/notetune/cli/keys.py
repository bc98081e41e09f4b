"""The keys of a recipe in words: what stands where, by default what, and what it is for."""

import ast
import difflib
import functools
import inspect
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, RootModel
from pydantic.fields import FieldInfo

from notetune.config import Config, fields_of, models_in
from notetune.errors import ConfigError

_MOST_SUGGESTED: Final = 5


@dataclass(frozen=True)
class Key:
    """A key of a recipe.

    Attributes:
        name: With those of the sections around it; `NAME` and `[]` stand for any entry.
        kind: The `kind` that its section must have; "" where that does not matter.
        default: Its value when left out.
    """

    name: str
    kind: str
    default: str
    about: str


_Places = dict[tuple[type[BaseModel], ...], tuple[str, str]]


def keys(model: type[BaseModel]) -> list[Key]:
    """Every key of a recipe; a section that comes again is described at its first place."""
    return list(_keys(model, "", "", {}))


def within(known: Sequence[Key], section: str) -> list[Key]:
    """A key and those below it; the `[]` of lists may be left out.

    Raises:
        ConfigError: If there is none; it suggests the keys that end so, hold that kind, or are
            spelt alike.
    """
    asked = _bare(section)
    found = [key for key in known if not asked or f"{_bare(key.name)}.".startswith(f"{asked}.")]
    if found:
        return found
    names = [_bare(key.name) for key in known]
    ending = [name for name in names if name.endswith(f".{asked}")]
    of_kind = [name.rpartition(".")[0] for name, key in zip(names, known, strict=True)
               if key.kind == asked]  # fmt: skip
    alike = difflib.get_close_matches(asked, names, _MOST_SUGGESTED)
    nearest = sorted(dict.fromkeys(filter(None, ending or of_kind or alike)), key=len)
    suggested = f" Perhaps {', '.join(nearest[:_MOST_SUGGESTED])}." if nearest else ""
    raise ConfigError(f"no key {section} in a recipe; `notetune keys` lists them all.{suggested}")


def _bare(name: str) -> str:
    return name.replace("[]", "")


def _keys(model: type[BaseModel], lead: str, kind: str, first_at: _Places) -> Iterator[Key]:
    fields = {n: field for n, field in fields_of(model).items() if not _is_kind(n, field)}
    for name, field in fields.items():
        first_at.setdefault(_sections(field.annotation), (lead + name, kind))
    for name, field in fields.items():
        sections = _sections(field.annotation)
        place = (lead + name, kind)
        is_first = first_at[sections] == place
        about = [_meaning(model, name), _choices(sections, field.annotation)]
        if sections and not is_first:
            first, of_kind = first_at[sections]
            about.append(f"As {first}{f' of kind {of_kind}' if of_kind else ''}.")
        yield Key(*place, _default(field), " ".join(" ".join(about).split()))
        for section in sections if is_first else ():
            inside = lead + name + _entry(field.annotation)
            yield from _keys(section, inside, _kind(section), first_at)


def _meaning(model: type[BaseModel], name: str) -> str:
    """The docstring below a key; pydantic would read those of all sections for every command."""
    owner = next(
        cls for cls in model.__mro__ if {name, f"{name}_"} & {*inspect.get_annotations(cls)}
    )
    return _docstrings(owner.__module__).get((owner.__name__, name), "")


@functools.cache
def _docstrings(module: str) -> dict[tuple[str, str], str]:
    """Those below the keys of a module's sections, by section and key."""
    found, body = {}, ast.parse(inspect.getsource(sys.modules[module])).body
    for section in (part for part in body if isinstance(part, ast.ClassDef)):
        for above, line in itertools.pairwise(section.body):
            match above, line:
                case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(ast.Constant(str(text))):
                    found[section.name, key.removesuffix("_")] = text
    return found


def _sections(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The sections that a key may hold; none where these are but forms of one value."""
    found = tuple(models_in(annotation))
    return () if any(issubclass(model, RootModel) for model in found) else found


def _entry(annotation: Any) -> str:
    """What stands between a key and those of its section, or of each of its sections."""
    if get_origin(annotation) is dict:
        return ".NAME."
    return "[]." if get_origin(annotation) is tuple else "."


def _is_kind(name: str, field: FieldInfo) -> bool:
    """Whether a key tells its section from the others that may stand in its place."""
    return name == "kind" and len(get_args(field.annotation)) == 1


def _kind(section: type[BaseModel]) -> str:
    fields = section.model_fields.items()
    return next((get_args(f.annotation)[0] for n, f in fields if _is_kind(n, f)), "")


def _choices(sections: tuple[type[BaseModel], ...], annotation: Any) -> str:
    """The kinds of a section, or the values of a choice; nothing for a number or a text."""
    kinds = [kind for section in sections if (kind := _kind(section))]
    if kinds:
        return f"Its kind is one of {', '.join(kinds)}."
    values = [] if sections else list(_literals(annotation))
    return f"One of {', '.join(values)}." if values else ""


def _literals(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    else:
        for part in get_args(annotation):
            yield from _literals(part)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return _shown(field.get_default(call_default_factory=True))


def _shown(value: Any) -> str:
    if isinstance(value, Config):
        kind = {"kind": value.kind} if hasattr(value, "kind") else {}
        value = {**kind, **value.model_dump(mode="json", exclude_defaults=True)}
        if not value:
            return ""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return str(value)
