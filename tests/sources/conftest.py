"""The cases of the catalogue say what differs, as tests do."""

import pytest

pytest.register_assert_rewrite("catalogue", "catalogue_files", "catalogue_notes")
