"""What a search may change in a section of a recipe, and what a point of it changes there."""

import math
from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Annotated, Any, Literal, TypeAlias, assert_never

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    RootModel,
    Tag,
    field_validator,
    model_validator,
)

from notetune.config import Config
from notetune.errors import ConfigError
from notetune.model.adapters.specs import (
    AdaptationPrompt,
    AdapterSpec,
    Full,
    LoRA,
    Prefix,
    Prompt,
    PTuning,
)

Value: TypeAlias = str | int | float | bool
Point: TypeAlias = Mapping[str, Value]
"""A value for each key of a space."""

_NEAR = 0.01
ALPHA_PER_RANK = "adapter.alpha/rank"
"""The one key that is no recipe's: how strongly a LoRA adds, whatever its rank."""


class Interval(Config):
    """All numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False
    """Search on a logarithmic scale, as for a learning rate."""
    whole: bool = False
    """Whole numbers only."""

    @model_validator(mode="after")
    def _is_wide(self) -> "Interval":
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} must be above 0 on a logarithmic scale (log: true)")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"low {self.low:g} and high {self.high:g} must be whole (whole: true)")
        return self


class Values(RootModel[tuple[Value, ...]]):
    """A list of values; numbers in rising order, whatever the order in which they are listed."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, allow_inf_nan=False)

    @field_validator("root")
    @classmethod
    def _is_a_choice(cls, values: tuple[Value, ...]) -> tuple[Value, ...]:
        if len(values) < 2:
            raise ValueError(
                f"{len(values)} values leave nothing to search; set the key in the recipe instead"
            )
        if repeated := [value for value in values if values.count(value) > 1]:
            raise ValueError(f"{repeated[0]} is listed twice; keep one")
        return tuple(sorted(values)) if _are_numbers(values) else values

    @property
    def is_ordered(self) -> bool:
        """Whether all of them are numbers, so that neighbours are alike."""
        return _are_numbers(self.root)


def _are_numbers(values: tuple[Value, ...]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _shape(value: object) -> str:
    return "Values" if isinstance(value, list | tuple | Values) else "Interval"


def _is_space(space: dict[str, Interval | Values]) -> dict[str, Interval | Values]:
    if not space:
        raise ValueError("a search needs at least one key, such as optim.peak_lr")
    for one, other in permutations(space, 2):
        if f"{_recipe_key(other)}.".startswith(f"{_recipe_key(one)}."):
            raise ValueError(f"{one} and {other} set the same key; keep one")
    return space


Dimension: TypeAlias = Annotated[
    Annotated[Interval, Tag("Interval")] | Annotated[Values, Tag("Values")], Discriminator(_shape)
]
"""A list in a recipe is `Values`, a section with `low` and `high` is an `Interval`."""
Space: TypeAlias = Annotated[dict[str, Dimension], AfterValidator(_is_space)]
"""Recipe keys, dotted below their section, in the order in which they are shown."""
SpaceChoice: TypeAlias = Annotated[
    Annotated[Literal["default", "paper"], Tag("str")] | Annotated[Space, Tag("dict")],
    Discriminator(lambda given: "str" if isinstance(given, str) else "dict"),
]


def point_count(space: Space) -> int | None:
    """How many points a space has; None if they cannot be counted."""
    sizes: list[int] = []
    for dimension in space.values():
        match dimension:
            case Values():
                sizes.append(len(dimension.root))
            case Interval(whole=True):
                sizes.append(int(dimension.high - dimension.low) + 1)
            case Interval():
                return None
            case _:
                assert_never(dimension)
    return math.prod(sizes)


def keys_at_ends(space: Space, point: Point) -> tuple[str, ...]:
    """The keys that have an end of their dimension, where a wider one would go on; 0 is no end."""
    return tuple(key for key, dimension in space.items() if _is_at_end(dimension, point[key]))


def _is_at_end(dimension: Interval | Values, value: Value) -> bool:
    match dimension:
        case Interval():
            ends = [end for end in (dimension.low, dimension.high) if end]
            return any(math.isclose(float(value), end, rel_tol=_NEAR) for end in ends)
        case Values():
            first, *_, last = dimension.root
            is_line = dimension.is_ordered and len(dimension.root) > 2  # of two, both are ends
            return is_line and value in (first, last) and value != 0
        case _:
            assert_never(dimension)


def points_to_check(space: Space) -> Iterator[Point]:
    """Of each key every value or both ends, beside the first of the others."""
    tried = {key: _values_to_check(dimension) for key, dimension in space.items()}
    first = {key: values[0] for key, values in tried.items()}
    return ({**first, key: value} for key, values in tried.items() for value in values)


def _values_to_check(dimension: Dimension) -> tuple[Value, ...]:
    if isinstance(dimension, Values):
        return dimension.root
    kind = int if dimension.whole else float
    return kind(dimension.low), kind(dimension.high)


def changes(point: Point, adapter: AdapterSpec | None) -> dict[str, Any]:
    """What a point changes in its section, nested as `config.changed` takes it.

    The rank of the section's adapter counts where the point has none.

    Raises:
        ConfigError: If the point scales a LoRA where there is none.

    Example:
        >>> changes({"adapter.rank": 4, "adapter.alpha/rank": 2, "optim.peak_lr": 0.001}, LoRA())
        {'adapter': {'rank': 4, 'alpha': 8}, 'optim': {'peak_lr': 0.001}}
    """
    nested: dict[str, Any] = {}
    for key, value in point.items():
        *parents, last = _recipe_key(key).split(".")
        section = nested
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = _alpha(value, point, adapter) if key == ALPHA_PER_RANK else value
    return nested


def _recipe_key(key: str) -> str:
    return "adapter.alpha" if key == ALPHA_PER_RANK else key


def _alpha(ratio: Value, point: Point, adapter: AdapterSpec | None) -> float:
    if not isinstance(adapter, LoRA) or isinstance(ratio, str):
        found = adapter.kind if adapter else "missing"
        raise ConfigError(
            f"search key {ALPHA_PER_RANK} is {ratio} and the adapter {found}; it takes a number "
            "and scales an adapter of kind lora. Leave it out of the space."
        )
    return ratio * int(point.get("adapter.rank", adapter.rank))


def paper_space(adapter: AdapterSpec | None) -> Space:
    """What the paper searched for a method, in 20 trials; its learning rate was fixed.

    Empty for full fine-tuning, of which it searched nothing, and where no adapter is made. Of an
    adaptation prompt in all layers, which may be fewer than 30, the layers are not searched.

    Source:
        Gema et al. (arXiv 2307.03042), A.2 and B.2. P-tuning is two spaces here, since layers and
        dropout are those of an LSTM.
    """
    tokens = {"adapter.virtual_tokens": Values((1, 5, 10, 15, 20))}
    match adapter:
        case LoRA():
            return {
                "adapter.rank": Values((2, 4, 8, 16)),
                "adapter.alpha": Values((4, 8, 16, 32)),
                "adapter.dropout": Values((0.0, 0.1, 0.2)),
            }
        case Prefix():
            return {**tokens, "adapter.projection": Values((True, False))}
        case Prompt():
            return {**tokens, "adapter.init": Values(("text", "random"))}
        case PTuning():
            network = {"adapter.hidden": Values((64, 128, 256, 768))}
            if adapter.reparameterisation == "lstm":
                network["adapter.layers"] = Values((1, 2, 4, 8, 12))
                network["adapter.dropout"] = Values((0.0, 0.1, 0.2))
            return {**tokens, **network}
        case AdaptationPrompt():
            layers = {"adapter.layers": Values((10, 20, 30))} if adapter.layers else {}
            return {"adapter.length": Values((5, 10)), **layers}
        case Full() | None:
            return {}
        case _:
            assert_never(adapter)


def default_space(
    adapter: AdapterSpec | None, *, has_head: bool, domain: AdapterSpec | None = None
) -> Space:
    """The learning rate of each adapter that trains, the size of the new one, and the epochs.

    The section makes `adapter`, if any; step 2, which has a head, may train `domain` on. The rate
    of the head follows its width.
    """
    space: dict[str, Interval | Values] = {}
    if adapter:
        space["optim.peak_lr"] = _rates(*_RATES[adapter.kind])
    if domain:
        lowest, highest = _RATES[domain.kind]
        space["domain_lr"] = _rates(lowest / 10, highest)  # it may be past its first steps
    match adapter:
        case LoRA():
            space["adapter.rank"] = Values((2, 4, 8, 16, 32))
            space[ALPHA_PER_RANK] = Values((0.5, 1, 2, 4))
            space["adapter.dropout"] = Values((0.0, 0.05, 0.1, 0.2))
        case Prefix() | Prompt() | PTuning():
            space["adapter.virtual_tokens"] = Values((1, 5, 10, 20, 40))
        case AdaptationPrompt():
            space["adapter.length"] = Values((5, 10, 20))
        case Full() | None:
            pass
        case _:
            assert_never(adapter)
    return {**space, "epochs": Values((1, 2, 3, 5) if has_head else (1, 2, 3))}


def space_of(
    choice: SpaceChoice,
    adapter: AdapterSpec | None,
    *,
    epochs: float = 1,
    has_head: bool = False,
    domain: AdapterSpec | None = None,
) -> Space:
    """The space that a recipe chooses; what is not the choice is as for `default_space`.

    That keeps the `epochs` of a recipe that reads but a part of the notes, since it has no time for
    more.
    """
    if choice == "paper":
        return paper_space(adapter)
    if choice == "default":
        space = default_space(adapter, has_head=has_head, domain=domain)
        return space if epochs >= 1 else {k: d for k, d in space.items() if k != "epochs"}
    return choice


def settings_of(space: Space, *adapters: AdapterSpec | None) -> Space:
    """A space without the settings of an adapter that none of these has."""
    known = {f"adapter.{name}" for one in adapters if one for name in type(one).model_fields}
    known |= {ALPHA_PER_RANK} if any(isinstance(one, LoRA) for one in adapters) else set()
    return {k: d for k, d in space.items() if k in known or not k.startswith("adapter.")}


def widest(adapter: AdapterSpec, choice: SpaceChoice | None) -> AdapterSpec:
    """The adapter with as many virtual tokens as a search may give it."""
    if isinstance(adapter, Prefix | Prompt | PTuning) and choice is not None:
        tried = space_of(choice, adapter).get("adapter.virtual_tokens")
        highest = max(tried.root) if isinstance(tried, Values) else tried.high if tried else 0
        most = max(adapter.virtual_tokens, int(highest))
        return adapter.model_copy(update={"virtual_tokens": most})
    return adapter


_RATES = {
    "lora": (3e-5, 1e-2),
    "prefix": (3e-4, 1e-1),
    "prompt": (3e-4, 1e-1),
    "p-tuning": (1e-4, 3e-2),
    "adaptation-prompt": (3e-4, 1e-1),
    "full": (3e-6, 3e-3),
}
"""A decade or so to either side of the rates of the recipes, by method."""


def _rates(low: float, high: float) -> Interval:
    return Interval(low=low, high=high, log=True)
