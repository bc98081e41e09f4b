"""The promises that every adapter method keeps, against peft's own forward on one plain note."""

import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from builders import in_float64, random_batch, random_documents, random_llama
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from notetune.model.adapters.files import adapter_tensors, read_adapter, save_adapter, tensors_hash
from notetune.model.adapters.specs import AdaptationPrompt, Full, LoRA, Prefix, Prompt, PTuning
from notetune.model.backbone import load_backbone
from notetune.model.batch import packed_batch
from notetune.model.stack import DOMAIN, TASK, Layer, stack

LENGTHS = [9, 4, 17, 4, 1]
LM = {"task_type": "CAUSAL_LM"}
TARGETS = ["q_proj", "v_proj"]
LSTM = {"encoder_reparameterization_type": "LSTM", "encoder_num_layers": 2}

# Each method here, and as someone who knows peft alone would write it; None is plain transformers.
METHODS = {
    "lora": (
        LoRA(rank=4, alpha=8),
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, **LM),
    ),
    "lora on embeddings": (
        LoRA(rank=4, alpha=8, targets=("embed_tokens", "q_proj")),
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=["embed_tokens", "q_proj"], **LM),
    ),
    "rslora": (
        LoRA(rank=4, alpha=8, rslora=True),
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, use_rslora=True, **LM),
    ),
    "dora": (
        LoRA(rank=4, alpha=8, dora=True),
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, use_dora=True, **LM),
    ),
    "prefix": (Prefix(virtual_tokens=3), peft.PrefixTuningConfig(num_virtual_tokens=3, **LM)),
    "projected prefix": (
        Prefix(virtual_tokens=3, projection=True, hidden=8),
        peft.PrefixTuningConfig(
            num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=8, **LM
        ),
    ),
    "prompt": (Prompt(virtual_tokens=3), peft.PromptTuningConfig(num_virtual_tokens=3, **LM)),
    "p-tuning, mlp": (
        PTuning(virtual_tokens=3, hidden=8),
        peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8, **LM),
    ),
    "p-tuning, lstm": (
        PTuning(virtual_tokens=3, hidden=8, reparameterisation="lstm"),
        peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8, **LSTM, **LM),
    ),
    "adaptation prompt": (
        AdaptationPrompt(length=3, layers=1),
        peft.AdaptionPromptConfig(adapter_len=3, adapter_layers=1, **LM),
    ),
    "full": (Full(), None),
}
each_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"), kv_heads=2)


@pytest.fixture(scope="module")
def saved(folder, tmp_path_factory):
    """Every method trained for nothing but random numbers, and saved."""
    root = tmp_path_factory.mktemp("adapters")
    for method in METHODS:
        model = new_stack(folder, method)
        save_adapter(root / method, model.adapters[DOMAIN], model.backbone)
    return root


def new_stack(folder, method, is_trained=True):
    spec, _ = METHODS[method]
    model = stack(load_backbone(str(folder)), [Layer(DOMAIN, spec, is_trained=is_trained)], seed=1)
    randomise(model)
    return model


def randomise(model):
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters_by_name().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)


def saved_stack(folder, saved, method, *, is_trained=False):
    layer = Layer(DOMAIN, read_adapter(saved / method), is_trained=is_trained)
    return stack(load_backbone(str(folder)), [layer])


def peft_twin(folder, method, model):
    """Plain peft with the weights of `model`, and its parameter for each of ours."""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=model.backbone.model.dtype)
    _, config = METHODS[method]
    twin = peft.get_peft_model(plain, config).eval() if config else plain.eval()
    theirs = {
        name.replace(".default", "").replace("base_model.model.", "").replace("prompt_encoder.", "")
        : parameter for name, parameter in twin.named_parameters()
    }  # fmt: skip
    pairs = {}
    for name, parameter in model.adapters[DOMAIN].named_parameters():
        pairs[name] = theirs[name]
        theirs[name].data = parameter.data.clone()
    return twin, pairs


def loss_of_text(twin, ids):
    """Logits of one note alone and their loss, in float64; transformers' own rounds to float32."""
    tokens = torch.from_numpy(ids)
    logits = twin(tokens[None]).logits[0, -len(ids) :]
    return logits, torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="sum")


@pytest.fixture
def softmax_in_float64(monkeypatch):
    """peft's adaptation prompt asks for a softmax in float32, whatever its scores are in."""
    monkeypatch.setattr(
        torch.nn.functional, "softmax", lambda scores, dim, dtype=None: scores.softmax(dim)
    )


@each_method
@pytest.mark.usefixtures("softmax_in_float64")
def test_packed_loss_logits_and_gradients_equal_peft_on_one_note_at_a_time(folder, method):
    model = in_float64(new_stack(folder, method))
    twin, pairs = peft_twin(folder, method, model)
    documents = random_documents(LENGTHS)
    batch = packed_batch(documents, range(len(documents)))
    loss = model.summed_token_loss(batch)
    loss.backward()
    with torch.no_grad():
        packed = model.backbone.head(model.hidden_states(batch))
    logits, losses = zip(*[loss_of_text(twin, ids) for ids in documents], strict=True)
    sum(losses).backward()
    assert loss.dtype == packed.dtype == torch.float64
    assert (packed - torch.cat(logits)).abs().max() < 1e-6
    assert loss.item() == pytest.approx(sum(losses).item(), rel=1e-7)
    assert len(pairs) == len(model.parameters_by_name()) > 0
    for name, parameter in model.parameters_by_name().items():
        expected = pairs[name.removeprefix(f"{DOMAIN}.")].grad
        assert expected.abs().max() > 0, name
        assert (parameter.grad - expected).abs().max() < 1e-6 * expected.abs().max(), name


@each_method
def test_packed_hidden_states_equal_those_one_by_one(folder, method):
    model = in_float64(new_stack(folder, method))
    documents = random_documents(LENGTHS)
    with torch.inference_mode():
        packed = model.hidden_states(packed_batch(documents, range(len(documents))))
        alone = [model.hidden_states(packed_batch([ids], [0])) for ids in documents]
    assert packed.shape == (sum(LENGTHS), model.backbone.hidden_size)
    assert (packed - torch.cat(alone)).abs().max() < 1e-6


@each_method
def test_every_asked_tensor_trains_and_nothing_else_changes(folder, method):
    model = new_stack(folder, method)
    trained = model.parameters_by_name()
    before = all_tensors(model)
    model.train_mode()
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    model.summed_token_loss(random_batch(LENGTHS)).backward()
    optimizer.step()
    after = all_tensors(model)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {id(parameter) for parameter in trained.values()}
    assert len(changed) == len(trained) > 0


def parameters(model):
    """Of the backbone and of all adapters, each once, by identity."""
    own = [p for adapter in model.adapters.values() for _, p in adapter.named_parameters()]
    return {id(parameter): parameter for parameter in [*model.backbone.model.parameters(), *own]}


def all_tensors(model):
    return {key: parameter.detach().clone() for key, parameter in parameters(model).items()}


@pytest.fixture(scope="module")
def logits_of_a_fresh_process(folder, saved, tmp_path_factory):
    out = tmp_path_factory.mktemp("fresh") / "logits.safetensors"
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import pathlib, torch
from builders import random_batch
from safetensors.torch import save_file
from notetune.model.adapters.files import read_adapter
from notetune.model.backbone import load_backbone
from notetune.model.stack import Layer, stack
logits = {{}}
for path in pathlib.Path({str(saved)!r}).iterdir():
    layer = Layer("domain", read_adapter(path), is_trained=False)
    model = stack(load_backbone({str(folder)!r}), [layer])
    with torch.inference_mode():
        logits[path.name] = model.backbone.head(model.hidden_states(random_batch({LENGTHS})))
save_file(logits, {str(out)!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    return load_file(out)


@each_method
def test_a_fresh_process_computes_the_same_logits_from_the_saved_adapter(
    folder, method, logits_of_a_fresh_process
):
    model = new_stack(folder, method)
    with torch.inference_mode():
        here = model.backbone.head(model.hidden_states(random_batch(LENGTHS)))
    assert len(logits_of_a_fresh_process) == len(METHODS)
    assert torch.equal(here, logits_of_a_fresh_process[method]) or (
        "p-tuning" in method or "projected" in method  # its network is gone: equal up to rounding
    )
    difference = (here - logits_of_a_fresh_process[method]).abs().max()
    assert difference < 1e-5 * max(1, here.abs().max())


@each_method
def test_plain_peft_and_transformers_load_a_saved_adapter(folder, saved, method):
    model = saved_stack(folder, saved, method)
    if METHODS[method][1] is None:
        plain = AutoModelForCausalLM.from_pretrained(saved / method).eval()
    else:
        plain = AutoModelForCausalLM.from_pretrained(folder)
        plain = peft.PeftModelForCausalLM.from_pretrained(plain, saved / method).eval()
    assert_equal_on_each_note(model, plain)


def assert_equal_on_each_note(model, plain):
    in_float64(model)
    plain.double()
    documents = random_documents(LENGTHS)
    with torch.inference_mode():
        batch = packed_batch(documents, range(len(documents)))
        packed = model.backbone.head(model.hidden_states(batch)).split(LENGTHS)
        for ids, ours in zip(documents, packed, strict=True):
            theirs = plain(torch.from_numpy(ids)[None]).logits[0, -len(ids) :]
            assert (ours - theirs).abs().max() < 1e-5 * max(1, theirs.abs().max())


@pytest.mark.parametrize("method", [name for name, (_, config) in METHODS.items() if config])
def test_an_adapter_that_plain_peft_saved_is_read_here(folder, method, tmp_path):
    model = new_stack(folder, method)
    twin, _ = peft_twin(folder, method, model)
    twin.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    adapter = read_adapter(tmp_path / "theirs")
    assert adapter.spec == METHODS[method][0]
    assert adapter.backbone is None
    again = stack(load_backbone(str(folder)), [Layer(DOMAIN, adapter, is_trained=False)])
    assert_equal_on_each_note(again, twin)


@each_method
def test_a_lora_task_adapter_stands_on_every_domain_adapter(folder, saved, method, tmp_path):
    layers = [
        Layer(DOMAIN, read_adapter(saved / method), is_trained=False),
        Layer(TASK, LoRA(rank=2, targets=("q_proj", "v_proj", "down_proj")), is_trained=True),
    ]
    model = stack(load_backbone(str(folder)), layers)
    randomise(model)
    save_adapter(tmp_path / TASK, model.adapters[TASK], model.backbone)
    is_full = METHODS[method][1] is None
    plain = AutoModelForCausalLM.from_pretrained(saved / method if is_full else folder)
    if METHODS[method][0].kind == "lora":
        plain = peft.PeftModel.from_pretrained(plain, saved / method)
        plain.load_adapter(tmp_path / TASK, TASK)
        plain.base_model.set_adapter(["default", TASK])
    else:  # plain peft puts nothing on other methods, so the task adapter is merged first
        plain = peft.PeftModel.from_pretrained(plain, tmp_path / TASK).merge_and_unload()
        plain = plain if is_full else peft.PeftModel.from_pretrained(plain, saved / method)
    assert_equal_on_each_note(model, plain.eval())


@each_method
@pytest.mark.parametrize("domain", ["none", "frozen", "trained"])
@pytest.mark.parametrize("task", [False, True])
def test_gradients_go_exactly_where_a_variant_trains(folder, saved, method, domain, task):
    layers = []
    if domain != "none":
        is_trained = domain == "trained"
        layers.append(Layer(DOMAIN, read_adapter(saved / method), is_trained=is_trained))
    if task:
        layers.append(Layer(TASK, LoRA(rank=2), is_trained=True))
    model = stack(load_backbone(str(folder)), layers, predicts_tokens=False)
    randomise(model)
    batch = random_batch(LENGTHS)
    features = model.features(batch, "mean")
    trained = model.parameters_by_name()
    if trained:
        features.square().sum().backward()
    else:
        assert not features.requires_grad
    reached = {key for key, p in parameters(model).items() if p.grad is not None}
    silent = {name for name, p in trained.items() if p.grad is None or not p.grad.any()}
    assert silent == set()
    assert reached == {id(p) for p in trained.values()}
    wanted = [
        path
        for layer in layers
        if layer.is_trained
        for path, _ in model.adapters[layer.name].named_parameters()
        if path != "lm_head.weight"  # features do not pass it
    ]
    assert len(trained) == len(wanted)
    model.check(batch)


@each_method
def test_a_frozen_adapter_is_deterministic_and_a_change_of_it_is_noticed(folder, saved, method):
    model = saved_stack(folder, saved, method)
    batch = random_batch(LENGTHS)
    model.train_mode()
    with torch.no_grad():
        first, second = model.hidden_states(batch), model.hidden_states(batch)
    assert torch.equal(first, second)
    model.check(batch)
    with torch.no_grad():
        next(iter(model.adapters[DOMAIN].tensors().values())).view(-1)[0].add_(1e-3)
    with pytest.raises(Exception, match="frozen adapter domain has changed"):
        model.check(batch)


@each_method
def test_taking_an_adapter_away_leaves_the_plain_backbone_for_a_while(folder, saved, method):
    model = saved_stack(folder, saved, method)
    batch = random_batch(LENGTHS)
    plain = stack(load_backbone(str(folder)))
    with torch.inference_mode():
        before = model.hidden_states(batch)
        with model.adapters[DOMAIN].off():
            assert torch.equal(model.hidden_states(batch), plain.hidden_states(batch))
        assert torch.equal(model.hidden_states(batch), before)
    assert not torch.equal(before, plain.hidden_states(batch))


@each_method
def test_a_saved_adapter_that_trains_goes_on_from_its_flat_weights(folder, saved, method, tmp_path):
    model = saved_stack(folder, saved, method, is_trained=True)
    before = tensors_hash(adapter_tensors(model.adapters[DOMAIN]))
    assert before == tensors_hash(read_adapter(saved / method).tensors)
    names = [name.removeprefix(f"{DOMAIN}.") for name in model.parameters_by_name()]
    if METHODS[method][0].kind in ("prefix", "prompt", "p-tuning"):
        assert names == ["embedding.weight"]
    optimizer = torch.optim.AdamW(model.parameters_by_name().values(), lr=1e-2)
    model.summed_token_loss(random_batch(LENGTHS)).backward()
    optimizer.step()
    save_adapter(tmp_path / "on", model.adapters[DOMAIN], model.backbone)
    again = saved_stack(folder, tmp_path, "on")
    batch = random_batch(LENGTHS)
    with torch.inference_mode():
        assert torch.equal(again.hidden_states(batch), model.hidden_states(batch))
    assert tensors_hash(adapter_tensors(again.adapters[DOMAIN])) != before


@each_method
def test_on_bfloat16_weights_a_saved_adapter_goes_on_from_what_was_saved(folder, saved, method):
    backbone = load_backbone(str(folder), "bfloat16")
    found = read_adapter(saved / method)
    model = stack(backbone, [Layer(DOMAIN, found, is_trained=True)])
    assert tensors_hash(model.tensors(DOMAIN)) == tensors_hash(found.tensors)
