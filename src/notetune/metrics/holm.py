"""Holm's correction of p-values for a family of comparisons."""

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for all comparisons of a family, in the given order.

    None, a comparison that could not be tested, counts as 1 and stays None.

    Source:
        Holm (1979): the i-th smallest of m times m - i + 1, made monotone, at most 1.

    Example:
        >>> holm([0.01, None, 0.03])
        [0.03, None, 0.06]
    """
    filled = [1.0 if p_value is None else p_value for p_value in p_values]
    adjusted: list[float | None] = [None] * len(filled)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(filled)), key=lambda i: filled[i])):
        largest = max(largest, (len(filled) - rank) * filled[index])
        if p_values[index] is not None:
            adjusted[index] = min(1.0, largest)
    return adjusted
