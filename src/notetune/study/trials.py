"""The trials of a search, as its ledger has them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from notetune import storage
from notetune.search.ledger import Ledger, Trial
from notetune.study.jobs import Job
from notetune.study.specs import SearchSpec


def identity(search: Job) -> str:
    """Of all that makes scores comparable; more trials go on with those that were made."""
    spec = search.spec_as(SearchSpec)
    return storage.fingerprint({**search.inputs, "spec": replace(spec, trials=0)})


def place_of(search: Job) -> Path:
    """The folder of its ledger and of what its trials make."""
    return search.folder.parent / identity(search)


def ledger_of(search: Job) -> Ledger:
    """Its ledger."""
    return Ledger(place_of(search) / "ledger.jsonl", identity(search))


def trials_of(search: Job) -> Sequence[Trial]:
    """Those that count, where the recipe wants fewer than the ledger has."""
    return ledger_of(search).trials()[: search.spec_as(SearchSpec).trials]
