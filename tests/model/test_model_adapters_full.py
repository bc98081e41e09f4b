"""All weights as an adapter: a backbone of its own, trained in float32."""

import pytest
import torch
from builders import put, random_llama
from tiny_families import tiny_model
from transformers import AutoModelForCausalLM

from notetune.model.adapters.files import save_adapter
from notetune.model.adapters.specs import Full, LoRA
from notetune.model.backbone import load_backbone
from notetune.model.stack import DOMAIN, TASK, Layer, stack


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"))


def test_a_fully_fine_tuned_backbone_is_a_backbone_folder(folder, tmp_path):
    model = put(folder, Full())
    with torch.no_grad():
        model.backbone.model.model.norm.weight.add_(0.5)
    save_adapter(tmp_path / "tuned", model.adapters[DOMAIN], model.backbone)
    again = load_backbone(str(tmp_path / "tuned"))
    assert again.fingerprint != model.backbone.fingerprint
    theirs, ours = again.model.state_dict(), model.backbone.model.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_full_fine_tuning_of_a_bfloat16_backbone_trains_in_float32(folder):
    backbone = load_backbone(str(folder), "bfloat16")
    model = stack(backbone, [Layer(DOMAIN, Full(), is_trained=True)])
    assert {p.dtype for p in model.parameters_by_name().values()} == {torch.float32}
    lora = stack(load_backbone(str(folder), "bfloat16"), [Layer(TASK, LoRA(), is_trained=True)])
    assert {p.dtype for p in lora.parameters_by_name().values()} == {torch.float32}
    assert lora.backbone.dtype == "bfloat16"


@pytest.mark.parametrize("kind", ["apertus", "deepseek_v3", "gemma4_text"])
def test_what_a_model_has_learned_in_buffers_is_saved_with_its_weights(tmp_path, kind):
    plain = tiny_model(kind)
    buffers = plain.state_dict().keys() - dict(plain.named_parameters()).keys()
    learned = [buffer for name, buffer in plain.named_buffers() if name in buffers]
    assert learned
    with torch.no_grad():
        for buffer in learned:
            buffer.uniform_(0.3, 0.7)
    plain.save_pretrained(tmp_path / "plain")
    model = put(tmp_path / "plain", Full())
    save_adapter(tmp_path / "tuned", model.adapters[DOMAIN], model.backbone)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned").eval()
    ids = torch.arange(4, 20)[None]
    with torch.inference_mode():
        assert torch.equal(again(ids).logits, plain(ids).logits)
