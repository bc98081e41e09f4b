import shutil

import numpy as np
import pytest
import torch
from builders import random_batch, random_documents, random_encoder, random_llama
from safetensors.torch import load_file, save_file
from saved_bundles import TEXTS, saved_bundle, trained
from transformers import AutoModelForCausalLM

from notetune import manifest, runs
from notetune.errors import BundleError, RunError, RunWarning
from notetune.model.adapters.files import read_adapter, save_adapter
from notetune.model.adapters.lora import merge_together
from notetune.model.adapters.specs import AdaptationPrompt, Full, LoRA, Prefix, Prompt, PTuning
from notetune.model.backbone import load_backbone
from notetune.model.backbone_folder import licence_of, model_card
from notetune.model.batch import packed_batch
from notetune.model.cards import read_card, save_card
from notetune.model.merge import merge_adapters
from notetune.model.stack import DOMAIN, TASK, stack
from notetune.serve.merge import merge
from notetune.serve.predictor import load_predictor

EMBEDDED = LoRA(rank=4, targets=("embed_tokens", "q_proj"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize(
    "spec", [LoRA(rank=4), LoRA(rslora=True), LoRA(dora=True), EMBEDDED, Full()]
)
def test_plain_transformers_loads_a_merged_adapter_with_the_same_logits(folder, tmp_path, spec):
    model = trained(folder, spec)
    save_adapter(tmp_path / "adapter", model.adapters[DOMAIN], model.backbone)
    merged = merge(tmp_path / "adapter", tmp_path / "out", str(folder))
    assert merged.difference < 1e-5
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    before = AutoModelForCausalLM.from_pretrained(folder).eval()
    for ids in random_documents([9, 4, 17]):
        tokens = torch.from_numpy(ids)[None]
        with torch.inference_mode():
            hidden = model.hidden_states(packed_batch([ids], [0]))
            logits = plain(tokens).logits[0]
            assert (model.backbone.head(hidden) - logits).abs().max() < 1e-5
            assert (before(tokens).logits[0] - logits).abs().max() > 1e-2


def test_the_licence_of_the_backbone_comes_along(tmp_path):
    folder = random_llama(tmp_path / "llama")
    (folder / "README.md").write_text(model_card({"license": "apache-2.0"}, "# Llama"))
    (folder / "LICENSE").write_text("Do as you like.")
    model = trained(folder, LoRA(rank=4))
    save_adapter(tmp_path / "adapter", model.adapters[DOMAIN], model.backbone)
    merge(tmp_path / "adapter", tmp_path / "out", str(folder))
    assert licence_of(tmp_path / "out") == ("apache-2.0", "Do as you like.")
    assert "base_model: llama\n" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("spec", [LoRA(rank=4), LoRA(rank=4, dora=True), EMBEDDED])
def test_a_merged_bundle_is_its_own_backbone_and_predicts_the_same(folder, tmp_path, spec):
    model = trained(folder, spec, spec.model_copy(update={"rank": 2}))
    bundle = saved_bundle(tmp_path / "cell", model)
    expected = load_predictor(bundle).predict(TEXTS).scores_NK
    merge(bundle, tmp_path / "out")
    predictor = load_predictor(tmp_path / "out")
    assert predictor.bundle.card.adapters == ()
    assert np.abs(predictor.predict(TEXTS).scores_NK - expected).max() < 1e-5


@pytest.mark.parametrize(
    "spec",
    [
        Prefix(virtual_tokens=2),
        Prompt(virtual_tokens=2),
        PTuning(virtual_tokens=2, hidden=4),
        AdaptationPrompt(length=2),
    ],
    ids=lambda spec: spec.kind,
)
def test_what_adds_virtual_tokens_cannot_be_merged_and_nothing_is_written(folder, tmp_path, spec):
    bundle = saved_bundle(tmp_path / "cell", trained(folder, spec, LoRA(rank=2)))
    with pytest.raises(BundleError, match=f"domain is of kind {spec.kind}, which adds virtual"):
        merge(bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_merged_weights_that_compute_something_else_are_refused(folder, tmp_path, monkeypatch):
    def half(adapters):
        merge_together(adapters)
        adapters[0].wrapper.get_base_model().model.norm.weight.mul_(0.5)

    monkeypatch.setattr("notetune.model.merge.merge_together", half)
    bundle = saved_bundle(tmp_path / "cell", trained(folder, LoRA(rank=2)))
    with pytest.raises(BundleError, match=r"change a hidden state by .* so nothing is written"):
        merge(bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_on_a_fully_fine_tuned_backbone_merges_with_it(folder, tmp_path):
    model = trained(folder, Full(), LoRA(rank=2))
    merge(saved_bundle(tmp_path / "cell", model), tmp_path / "out")
    again = stack(load_backbone(str(tmp_path / "out")))
    batch = random_batch([7, 3])
    with torch.inference_mode():
        difference = again.hidden_states(batch) - model.hidden_states(batch)
    assert difference.abs().max() < 1e-5


def test_that_a_bundle_was_trained_in_another_type_is_said(folder, tmp_path):
    bundle = saved_bundle(tmp_path / "cell", trained(folder, LoRA(rank=2)))
    card = read_card(bundle).model_copy(update={"dtype": "bfloat16"})
    with runs.new_folder(tmp_path / "other", "test") as temporary:
        left_out = shutil.ignore_patterns(manifest.MANIFEST)
        shutil.copytree(bundle, temporary, ignore=left_out, dirs_exist_ok=True)
        save_card(temporary, card)
    with pytest.warns(RunWarning, match="was trained in bfloat16 and is merged in float32: scores"):
        merge(tmp_path / "other", tmp_path / "out")
    assert read_card(tmp_path / "out").dtype == "float32"


def test_what_is_missing_is_named(folder, tmp_path):
    model = trained(folder, LoRA())
    save_adapter(tmp_path / "adapter", model.adapters[DOMAIN], model.backbone)
    assert read_adapter(tmp_path / "adapter").spec == LoRA()
    with pytest.raises(BundleError, match="name its backbone with --backbone"):
        merge(tmp_path / "adapter", tmp_path / "out")
    with pytest.raises(BundleError, match="neither a bundle nor an adapter"):
        merge(folder, tmp_path / "out")
    with pytest.raises(RunError, match="exists already"):
        merge(tmp_path / "adapter", folder, str(folder))


@pytest.mark.parametrize("adapter", [LoRA(rank=4, targets=("query", "value")), Full()])
@pytest.mark.parametrize("has_types", [False, True])
def test_a_merged_encoder_predicts_the_same(tmp_path, adapter, has_types):
    folder = random_encoder(tmp_path / "bert")
    if has_types:
        path = folder / "model.safetensors"
        types = {"bert.embeddings.tui_type_embeddings.weight": torch.ones(2, 32)}
        save_file({**load_file(path), **types}, path, metadata={"format": "pt"})
        (folder / "vocab_updated.txt").write_text("fever|C0015967|T184\n")
    bundle = saved_bundle(tmp_path / "cell", trained(folder, adapter))
    expected = load_predictor(bundle).predict(TEXTS).scores_NK
    merge(bundle, tmp_path / "out")
    assert np.abs(load_predictor(tmp_path / "out").predict(TEXTS).scores_NK - expected).max() < 1e-5


def without_effect(folder):
    """A stack whose second adapter does nothing, as one that was never trained."""
    model = trained(folder, LoRA(rank=4), LoRA(rank=2))
    with torch.no_grad():
        for name, tensor in model.tensors(TASK).items():
            if "lora_B" in name:
                tensor.zero_()
    return model


def test_an_adapter_that_does_nothing_is_neither_loaded_nor_merged(folder, tmp_path):
    model = without_effect(folder)
    bundle = saved_bundle(tmp_path / "cell", model)
    save_adapter(tmp_path / "adapter", model.adapters[TASK], model.backbone)
    with pytest.raises(BundleError, match="adapter task does not change the output"):
        load_predictor(bundle)
    for idle in (bundle, tmp_path / "adapter"):
        with pytest.raises(BundleError, match="does not change the output"):
            merge(idle, tmp_path / "out", str(folder))


def test_lora_on_embeddings_that_are_the_last_layer_too_predicts_but_does_not_merge(tmp_path):
    model = trained(random_llama(tmp_path / "tied", tied=True), EMBEDDED)
    bundle = saved_bundle(tmp_path / "cell", model)
    assert load_predictor(bundle).predict(TEXTS).scores_NK.shape == (3, 2)
    with pytest.raises(BundleError, match="one matrix for embeddings and next tokens"):
        merge(bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_lora_on_a_last_layer_that_embeds_too_does_not_merge(tmp_path):
    spec = LoRA(rank=4, targets=("lm_head", "q_proj"))
    model = trained(random_llama(tmp_path / "tied", tied=True), spec)
    with pytest.raises(BundleError, match="one matrix for embeddings and next tokens"):
        merge_adapters(model)
