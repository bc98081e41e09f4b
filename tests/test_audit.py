"""Counts of rows balance, or cannot exist."""

import pytest

from notetune.audit import IN_ALL, FlowCount
from notetune.errors import DataError


def test_a_flow_that_does_not_balance_cannot_exist():
    with pytest.raises(DataError, match="5 rows read, but 3 kept and 1 rejected"):
        FlowCount("notes", 5, 3, {"empty text": 1})


def test_changes_of_characters_are_told_in_words_where_there_are_some():
    assert FlowCount("notes", 1_200, 1_200).changes == ""
    changed = {IN_ALL: 1_002, "controls replaced": 1_000, "digits narrowed": 3}
    assert FlowCount("corpus: notes", 1_200, 1_200, changed=changed).changes == (
        "corpus: notes: characters changed in 1,002 of 1,200 "
        "(controls replaced: 1,000; digits narrowed: 3)"
    )
