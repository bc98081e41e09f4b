"""UmlsBERT gets the semantic types of its words."""

import json
from pathlib import Path

import pytest
import torch
from builders import random_documents, random_encoder
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertModel

from notetune.errors import BackboneError
from notetune.model.backbone import load_backbone
from notetune.model.backbone_folder import backbone_fingerprint
from notetune.model.batch import packed_batch

LENGTHS = [7, 30, 2, 19, 7, 1]


def one_by_one(plain, documents):
    """What transformers gives for each document alone, without padding."""
    with torch.inference_mode():
        return [plain(torch.from_numpy(ids)[None]).last_hidden_state[0] for ids in documents]


def umlsbert(folder: Path, vocabulary: str) -> Path:
    """A folder like that of UmlsBERT: a BERT with a table of semantic types and their words."""
    random_encoder(folder)
    path = folder / "model.safetensors"
    types = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    weights = {**load_file(path), "bert.embeddings.tui_type_embeddings.weight": types}
    save_file(weights, path, metadata={"format": "pt"})
    (folder / "vocab_updated.txt").write_text(vocabulary)
    return folder


VOCABULARY_WITH_TYPES = (
    "fever|C0015967|T184\nthe\npain|C0030193|T033\ncough|C0010200|T184\na|C1|T1\n"
)


class UmlsBert(nn.Module):
    """The published computation: a table of types beside those of tokens and positions."""

    def __init__(self, folder: Path, type_of: dict[int, int]) -> None:
        super().__init__()
        self.bert = BertModel.from_pretrained(folder).eval()
        name = "bert.embeddings.tui_type_embeddings.weight"
        self.types = load_file(folder / "model.safetensors")[name]
        self.type_of = type_of

    def forward(self, ids):
        embedded = self.bert.embeddings.word_embeddings(ids)
        numbers = torch.tensor([[self.type_of.get(int(n), 0) for n in ids[0]]])
        embedded = embedded + self.types[numbers] * (numbers > 0).unsqueeze(-1)
        return self.bert(inputs_embeds=embedded)


def test_umlsbert_adds_the_embedding_of_each_tokens_semantic_type(tmp_path):
    folder = umlsbert(tmp_path / "umlsbert", VOCABULARY_WITH_TYPES)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    type_of = {vocabulary["fever"]: 1, vocabulary["pain"]: 2, vocabulary["cough"]: 1}
    documents = random_documents(LENGTHS)
    for document in documents:
        document[::3] = vocabulary["pain"]
    documents[1][:3] = [vocabulary[word] for word in ("fever", "a", "cough")]
    with torch.inference_mode():
        batch = packed_batch(documents, range(6))
        packed = load_backbone(str(folder)).hidden_states(batch)
    expected = torch.cat(one_by_one(UmlsBert(folder, type_of), documents))
    without = torch.cat(one_by_one(BertModel.from_pretrained(folder).eval(), documents))
    assert (packed - expected).abs().max() < 1e-5
    assert (packed - without).abs().max() > 1e-2


def test_umlsbert_without_its_vocabulary_is_a_plain_bert_with_another_fingerprint(tmp_path):
    folder = umlsbert(tmp_path / "umlsbert", VOCABULARY_WITH_TYPES)
    with_types = backbone_fingerprint(folder)
    (folder / "vocab_updated.txt").unlink()
    documents = random_documents(LENGTHS)
    with torch.inference_mode():
        packed = load_backbone(str(folder)).hidden_states(packed_batch(documents, range(6)))
    plain = torch.cat(one_by_one(BertModel.from_pretrained(folder).eval(), documents))
    assert (packed - plain).abs().max() < 1e-5
    assert backbone_fingerprint(folder) != with_types


@pytest.mark.parametrize("vocabulary", ["fever\npain\n", "unheard|C1|T1\n"])
def test_a_vocabulary_without_types_of_its_tokens_adds_nothing(tmp_path, vocabulary):
    folder = umlsbert(tmp_path / "umlsbert", vocabulary)
    embeddings = load_backbone(str(folder)).model.get_input_embeddings().weight
    plain = BertModel.from_pretrained(folder).get_input_embeddings().weight
    assert embeddings.equal(plain)


def test_a_folder_that_lost_its_semantic_types_is_refused(tmp_path):
    folder = umlsbert(tmp_path / "umlsbert", VOCABULARY_WITH_TYPES)
    BertModel.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(BackboneError, match="weights have no tui_type_embeddings"):
        load_backbone(str(folder))


def test_more_semantic_types_than_the_backbone_embeds_are_refused(tmp_path):
    vocabulary = "".join(f"word{n}|C000|T{n}\n" for n in range(3))
    folder = umlsbert(tmp_path / "umlsbert", vocabulary)
    with pytest.raises(BackboneError, match="names 3 semantic types, but the backbone embeds 2"):
        load_backbone(str(folder))
