"""Every cohort is checked, and the cases of the catalogue say what differs, as tests do."""

import pytest
from checked_cohort import checked_cohort

from notetune import sources

pytest.register_assert_rewrite("catalogue", "catalogue_files", "catalogue_notes")


@pytest.fixture(autouse=True)
def _cohorts_are_checked(monkeypatch):
    monkeypatch.setattr(sources, "Cohort", checked_cohort)
