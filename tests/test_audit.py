"""Counts of rows balance, or cannot exist."""

import pytest

from notetune.audit import FlowCount
from notetune.errors import DataError


def test_a_flow_that_does_not_balance_cannot_exist():
    with pytest.raises(DataError, match="5 rows read, but 3 kept and 1 rejected"):
        FlowCount("notes", 5, 3, {"empty text": 1})
