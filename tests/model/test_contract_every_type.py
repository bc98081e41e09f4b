"""Every type of decoder that transformers knows: packed exactly, a document a row, or refused."""

from collections import Counter

import pytest
from tiny_families import CAUSAL_TYPES, adapted, tiny_model, tried

from notetune.errors import NotetuneError
from notetune.model.adapters.specs import AdaptationPrompt, LoRA, Prefix, Prompt

# Rounding of float32; one that goes over its layers many times has more of it.
LARGEST_ERROR = 1e-4
SOME = {
    "deepseek_v3": "packed",
    "gemma3_text": "packed",
    "gpt2": "packed",
    "granite": "packed",
    "mixtral": "packed",
    "opt": "packed",
    "qwen3": "packed",
    "roberta": "packed",
    "falcon": "one document",
    "gemma2": "one document",
    "gpt_oss": "one document",
    "jamba": "one document",
    "mamba": "one document",
    "megatron-bert": "one document",
    "qwen3_5_text": "one document",
    "modernbert-decoder": "refused",
}
# What this version of transformers makes no small model of, without files or libraries of others.
NOT_BUILT = {
    "bailing_hybrid", "blt", "cohere_compass_text", "dots3_note", "gemma3n", "gemma3n_text",
    "gemma4_assistant", "gemma4_unified_assistant", "glm4_moe_lite", "musicgen",
    "musicgen_melody", "qwen4_exp", "qwen4_exp_text", "zamba", "zamba2",
}  # fmt: skip


@pytest.mark.parametrize("model_type", SOME)
def test_documents_of_a_row_are_what_plain_transformers_makes_of_each_alone(model_type, tmp_path):
    tiny_model(model_type).save_pretrained(tmp_path)
    found = tried(tmp_path)
    assert (found.fate, found.error < 1e-5) == (SOME[model_type], True)
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
    assert fates == {"packed": 98, "one document": 69, "refused": 7}
