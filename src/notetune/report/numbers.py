"""How the report writes numbers."""

from collections.abc import Callable

from notetune.metrics.bootstrap import Estimate

NOT_AVAILABLE = "n/a"
_MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int = 3) -> str:
    """A rounded number with thousands separators, a true minus sign, or n/a."""
    if value is None:
        return NOT_AVAILABLE
    text = f"{value:,.{digits}f}"
    is_zero = not text.strip("-0.,")
    return text.lstrip("-") if is_zero else text.replace("-", _MINUS)


def signed(value: float) -> str:
    """A difference with its sign."""
    text = number(value)
    return text if value < 0 or not text.strip("0.") else f"+{text}"


def count(value: int) -> str:
    """A whole number with thousands separators."""
    return f"{value:,}"


def share(value: float) -> str:
    """A share as percent."""
    return f"{100 * value:.1f} %"


def duration(seconds: float) -> str:
    """Seconds, or minutes and hours where those are easier to read."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def interval(estimate: Estimate, form: Callable[[float], str] = number) -> str:
    """The interval in square brackets."""
    return f"[{form(estimate.low)}, {form(estimate.high)}]"


def with_interval(estimate: Estimate, form: Callable[[float], str] = number) -> str:
    """A value and its interval."""
    return f"{form(estimate.value)} {interval(estimate, form)}"


def p_text(p_value: float | None) -> str:
    """A p-value with three decimals."""
    if p_value is None:
        return NOT_AVAILABLE
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
