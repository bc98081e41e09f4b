"""Which hidden states a feature of a note is made of."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from notetune.errors import ConfigError

Pooling = Literal["first", "last", "mean"]
EveryLayers = Annotated[str, Field(pattern=r"^every [1-9][0-9]*$")]
Layers = Literal["last"] | tuple[NonNegativeInt, ...] | EveryLayers
"""Whose hidden states stand side by side in a feature; 0 is the embeddings."""


def chosen_layers(layers: Layers, count: int) -> tuple[int, ...]:
    """The layers that are read of a backbone with `count` of them, from below.

    `every N` counts down from the last one, without the embeddings.

    Raises:
        ConfigError: If the backbone has no such layer, or none is chosen.

    Example:
        >>> chosen_layers("every 6", 30), chosen_layers((0, 30), 30)
        ((6, 12, 18, 24, 30), (0, 30))
    """
    if layers == "last":
        return (count,)
    if isinstance(layers, str):
        return tuple(sorted(range(count, 0, -int(layers.removeprefix("every ")))))
    chosen = tuple(sorted(set(layers)))
    if not chosen or chosen[-1] > count:
        found = f"{chosen[-1]}" if chosen else "none"
        raise ConfigError(
            f"features.layers: {found} is no layer of the backbone; it has 0 (the embeddings) to "
            f"{count}."
        )
    return chosen
