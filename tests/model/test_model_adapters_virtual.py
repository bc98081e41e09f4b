"""Virtual tokens start from a text, or need none."""

import shutil
from itertools import cycle, islice

import pytest
import torch
from builders import put, random_llama
from tokenizers import Tokenizer

from notetune.errors import BackboneError
from notetune.model.adapters.specs import Prompt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"))


def test_a_text_prompt_starts_from_the_embeddings_of_its_text_repeated_to_fit(folder):
    model = put(folder, Prompt(virtual_tokens=40, init="text"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode("Finish this clinical note:").ids
    assert 20 < len(ids) < 40
    repeated = torch.tensor(list(islice(cycle(ids), 40)))
    (prompt,) = model.parameters_by_name().values()
    assert torch.equal(prompt, model.backbone.model.get_input_embeddings()(repeated))


def test_a_text_prompt_needs_a_tokenizer_and_other_prompts_do_not(folder, tmp_path):
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    put(bare, Prompt(virtual_tokens=2))
    with pytest.raises(BackboneError, match=r"bare has no tokenizer\.json"):
        put(bare, Prompt(virtual_tokens=2, init="text"))
