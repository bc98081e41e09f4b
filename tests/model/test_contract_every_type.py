"""Every type of decoder that transformers knows: packed exactly, a document a row, or refused."""

from collections import Counter

import pytest
from tiny_families import CAUSAL_TYPES, FATES, NOT_BUILT, adapted, tiny_model, tried

from notetune.errors import NotetuneError
from notetune.model.adapters.specs import AdaptationPrompt, LoRA, Prefix, Prompt

# Rounding of float32; one that goes over its layers many times has more of it.
LARGEST_ERROR = 1e-4


@pytest.mark.parametrize("model_type", FATES)
def test_documents_of_a_row_are_what_plain_transformers_makes_of_each_alone(model_type, tmp_path):
    tiny_model(model_type).save_pretrained(tmp_path)
    found = tried(tmp_path)
    assert (found.fate, found.error < 1e-5) == (FATES[model_type], True)
    assert bool(found.why) == (found.fate == "refused")


def outcome_of(model_type, folder):
    """The fate of a type, which takes each adapter or refuses it by name."""
    tiny_model(model_type).save_pretrained(folder)
    found = tried(folder)
    assert found.error < LARGEST_ERROR, model_type
    assert "\n" not in found.why
    for spec in (LoRA(), Prompt(), Prefix(), AdaptationPrompt(length=2)) if found.backbone else ():
        try:
            adapted(tried(folder).backbone, spec)
        except NotetuneError:
            continue
    return found.fate


@pytest.mark.slow
def test_every_type_is_packed_or_a_document_a_row_or_refused_in_one_line(tmp_path):
    types = [name for name in CAUSAL_TYPES if name not in NOT_BUILT]
    fates, raised = Counter(), {}
    for name in types:
        try:
            fates[outcome_of(name, tmp_path / name)] += 1
        except Exception as error:  # noqa: BLE001 (all are shown together)
            raised[name] = repr(error)
    assert raised == {}
    assert len(types) == 174
    assert fates == {"packed": 97, "one document": 70, "refused": 7}
