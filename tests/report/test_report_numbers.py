import pytest

from notetune.metrics.bootstrap import Estimate
from notetune.report.numbers import count, duration, interval, number, p_text, share, signed

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8125, "0.812"),
        (1234.5678, "1,234.568"),
        (-0.25, f"{MINUS}0.250"),
        (-0.0001, "0.000"),
        (None, "n/a"),
    ],
)
def test_a_number_has_three_decimals_a_true_minus_and_no_negative_zero(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.03, "+0.030"), (-0.03, f"{MINUS}0.030"), (0.0, "0.000"), (-0.0001, "0.000")],
)
def test_a_difference_shows_its_sign(value, text):
    assert signed(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.34, "12.3 s"), (100, "2 min"), (3599, "1 h 00 min"), (45_230, "12 h 34 min")],
)
def test_a_duration_has_the_unit_that_reads_best(seconds, text):
    assert duration(seconds) == text


def test_other_forms():
    assert count(6_746_804_224) == "6,746,804,224"
    assert share(0.0123) == "1.2 %"
    assert interval(Estimate(0.5, 0.4, 0.61234, 9)) == "[0.400, 0.612]"
    assert [p_text(p) for p in (0.0009, 0.0456, 1.0, None)] == ["< 0.001", "0.046", "1.000", "n/a"]
