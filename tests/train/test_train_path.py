"""The path of penalties ends where the loss rises, and is extended once."""

from notetune.train import terms
from notetune.train.path import RISES, chosen


def test_a_path_that_ends_at_its_end_is_extended_once_and_says_so():
    weakest = chosen(lambda penalty: penalty, terms._PATH, terms._EXTENSION)
    assert weakest.value == terms._EXTENSION[-1]
    assert weakest.why == "lowest validation loss; the path was extended; at its weak end"
    assert len(weakest.path) == len(terms._PATH) + len(terms._EXTENSION)
    strongest = chosen(lambda penalty: -penalty, terms._PATH, terms._EXTENSION)
    assert strongest.why == "lowest validation loss; at its strong end"
    assert len(strongest.path) == 1 + RISES
