"""Encoders: packed rows are exact, whole or adapted."""

from dataclasses import dataclass
from pathlib import Path

import peft
import pytest
import torch
from builders import ENCODERS, random_documents, random_encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_families import tiny_config
from torch import nn
from transformers import AutoModel

from notetune.errors import BackboneError, BundleError
from notetune.model.adapters.files import save_adapter
from notetune.model.adapters.specs import LoRA
from notetune.model.backbone import Backbone, load_backbone, outline_backbone
from notetune.model.batch import packed_batch
from notetune.model.stack import TASK, Layer, stack

LENGTHS = [7, 30, 2, 19, 7, 1]
LORA = LoRA(rank=4, alpha=8, targets=("query", "value", "Wqkv"))


@dataclass(frozen=True)
class Loaded:
    folder: Path
    backbone: Backbone
    plain: nn.Module


# Their first position is not 0, or their attention is their own.
OTHERS = {kind: tiny_config(kind) for kind in ("roberta", "xlm-roberta", "camembert")}
OTHERS |= {"megatron-bert": tiny_config("megatron-bert")}


@pytest.fixture(scope="module", params=[*ENCODERS, *OTHERS])
def encoder(request, tmp_path_factory):
    config = (ENCODERS | OTHERS)[request.param]
    folder = random_encoder(tmp_path_factory.mktemp("encoder"), config)
    return Loaded(folder, load_backbone(str(folder)), AutoModel.from_pretrained(folder).eval())


def one_by_one(plain, documents):
    """What transformers gives for each document alone, without padding."""
    with torch.inference_mode():
        return [plain(torch.from_numpy(ids)[None]).last_hidden_state[0] for ids in documents]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_packed_states_equal_those_of_plain_transformers_one_by_one(encoder, lengths, seed):
    documents = random_documents(lengths, seed)
    with torch.inference_mode():
        packed = encoder.backbone.hidden_states(packed_batch(documents, range(len(lengths))))
    expected = torch.cat(one_by_one(encoder.plain, documents))
    assert packed.shape == (sum(lengths), encoder.backbone.hidden_size)
    assert (packed - expected).abs().max() < 1e-5


def test_a_token_sees_what_follows_it_but_only_in_its_document(encoder):
    documents = random_documents([6, 5])
    changed = [documents[0].copy(), documents[1]]
    changed[0][-1] = (changed[0][-1] + 1) % 200 + 2
    with torch.inference_mode():
        before, after = (
            encoder.backbone.hidden_states(packed_batch(d, range(2))) for d in (documents, changed)
        )
    moved_T = (before - after).abs().amax(1)
    assert (moved_T[:6] > 1e-4).all()
    assert (moved_T[6:] == 0).all()


def test_lora_on_a_packed_row_equals_plain_peft_one_by_one(encoder):
    model = stack(load_backbone(str(encoder.folder)), [Layer(TASK, LORA, is_trained=True)], seed=3)
    torch.manual_seed(4)
    parameters = model.parameters_by_name()
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.normal_(0, 0.3)
    plain = peft.PeftModel(
        AutoModel.from_pretrained(encoder.folder),
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=list(LORA.targets)),
        adapter_name=TASK,
    )
    peft.set_peft_model_state_dict(plain, model.tensors(TASK), adapter_name=TASK)
    documents = random_documents(LENGTHS)
    states = model.hidden_states(packed_batch(documents, range(6)))
    expected = torch.cat(one_by_one(plain.eval(), documents))
    assert (states - expected).abs().max() < 1e-5
    states.square().sum().backward()
    assert len(parameters) >= 8
    assert all(parameter.grad is not None for parameter in parameters.values())
    assert all("lora_" in name for name in parameters)


def test_plain_peft_loads_a_saved_adapter_of_an_encoder(encoder, tmp_path):
    model = stack(load_backbone(str(encoder.folder)), [Layer(TASK, LORA, is_trained=True)], seed=3)
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters_by_name().values():
            parameter.normal_(0, 0.3)
    save_adapter(tmp_path, model.adapters[TASK], model.backbone)
    plain = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(encoder.folder), tmp_path)
    documents = random_documents(LENGTHS)
    with torch.inference_mode():
        packed = model.hidden_states(packed_batch(documents, range(6)))
    assert (packed - torch.cat(one_by_one(plain.eval(), documents))).abs().max() < 1e-5


def test_shapes_come_from_the_configuration_alone(encoder):
    outline = outline_backbone(str(encoder.folder))
    sizes = {name: p.shape for name, p in encoder.backbone.model.named_parameters()}
    assert {name: p.shape for name, p in outline.model.named_parameters()} == sizes
    assert outline.is_encoder
    assert not any("pooler" in name for name in sizes)


def test_an_encoder_predicts_no_next_token(encoder):
    with pytest.raises(BackboneError, match="is an encoder, which predicts no next token"):
        stack(encoder.backbone).summed_token_loss(packed_batch(random_documents([5]), [0]))


def test_an_encoder_without_all_its_weights_is_refused(tmp_path):
    folder = random_encoder(tmp_path / "half")
    path = folder / "model.safetensors"
    weights = {name: t for name, t in load_file(path).items() if "layer.1.output" not in name}
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(BackboneError, match="lacks or misshapes 4 weights"):
        load_backbone(str(folder))


def test_positions_begin_after_that_of_padding_where_it_has_one(tmp_path):
    for kind, first in (("bert", 0), ("roberta", 2)):
        loaded = load_backbone(str(random_encoder(tmp_path / kind, tiny_config(kind))))
        assert (loaded.first_position, loaded.max_positions) == (first, 128 - first)


def test_an_encoder_with_embeddings_of_its_own_class_is_read_and_takes_no_lora(tmp_path):
    folder = random_encoder(tmp_path, tiny_config("ibert"))
    backbone, documents = load_backbone(str(folder)), random_documents([5, 9])
    with torch.inference_mode():
        packed = backbone.hidden_states(packed_batch(documents, range(2)))
    expected = torch.cat(one_by_one(AutoModel.from_pretrained(folder).eval(), documents))
    assert (packed - expected).abs().max() < 1e-5
    with pytest.raises(BundleError, match=r"QuantLinear.* is not supported"):
        stack(backbone, [Layer(TASK, LORA, is_trained=True)])
