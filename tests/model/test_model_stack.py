import warnings

import pytest
import torch
from builders import random_batch, random_llama
from tiny_families import tiny_model

from notetune.errors import BundleError, RunWarning
from notetune.model.adapters.files import SavedAdapter, read_adapter, save_adapter, tensors_hash
from notetune.model.adapters.specs import Full, LoRA
from notetune.model.backbone import load_backbone
from notetune.model.stack import DOMAIN, TASK, Layer, stack

SPEC = LoRA(rank=4, alpha=8, dropout=0.5)
LENGTHS = [9, 4, 17]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def domain(folder, tmp_path_factory):
    """A saved domain adapter whose weights are random, not zero."""
    model = stack(load_backbone(str(folder)), [Layer(DOMAIN, SPEC, is_trained=True)], seed=1)
    randomise(model)
    where = tmp_path_factory.mktemp("adapter") / DOMAIN
    save_adapter(where, model.adapters[DOMAIN], model.backbone)
    return where


def randomise(model):
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.backbone.model.named_parameters():
            if "lora_" in name and parameter.requires_grad:
                parameter.normal_(0, 0.3)


def two_adapters(folder, domain, *, train_domain):
    layers = [
        Layer(DOMAIN, read_adapter(domain), is_trained=train_domain),
        Layer(TASK, SPEC, is_trained=True),
    ]
    return stack(load_backbone(str(folder)), layers, seed=2)


def test_every_adapter_of_a_stack_changes_the_logits(folder, domain):
    model = two_adapters(folder, domain, train_domain=False)
    batch = random_batch(LENGTHS)
    assert model.effect(TASK, batch) == 0  # a new LoRA starts as the identity
    with pytest.raises(BundleError, match="task does not change the output"):
        model.check(batch)
    randomise(model)
    assert model.effect(DOMAIN, batch) > 1e-3
    assert model.effect(TASK, batch) > 1e-3
    model.check(batch)


def test_an_adapter_must_change_what_the_head_reads(folder):
    spec = LoRA(rank=2, alpha=4, targets=("q_proj",), dropout=0.0)
    model = stack(load_backbone(str(folder)), [Layer(TASK, spec, is_trained=True)])
    randomise(model)
    batch = random_batch(LENGTHS)
    model.check(batch)
    model.check(batch, lambda row: model.features(row, "last"))
    with pytest.raises(BundleError, match="task does not change the output"):
        # It sees itself alone, whatever the queries are.
        model.check(batch, lambda row: model.features(row, "first"))


def test_two_adapters_that_are_all_the_weights_are_refused(folder):
    layers = [Layer(name, Full(), is_trained=True) for name in (DOMAIN, TASK)]
    with pytest.raises(BundleError, match="two adapters of kind full are the same weights"):
        stack(load_backbone(str(folder)), layers)


def test_the_hash_of_a_frozen_adapter_survives_training_of_the_task_adapter(folder, domain):
    model = two_adapters(folder, domain, train_domain=False)
    before = {name: tensors_hash(model.tensors(name)) for name in (DOMAIN, TASK)}
    parameters = [p for p in model.backbone.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    model.train_mode()
    for seed in range(3):
        optimizer.zero_grad()
        model.features(random_batch(LENGTHS, seed), "mean").square().sum().backward()
        optimizer.step()
    after = {name: tensors_hash(model.tensors(name)) for name in (DOMAIN, TASK)}
    assert after[DOMAIN] == before[DOMAIN]
    assert after[TASK] != before[TASK]


def test_a_frozen_adapter_has_no_dropout_while_the_other_one_trains(folder, domain):
    frozen = stack(
        load_backbone(str(folder)), [Layer(DOMAIN, read_adapter(domain), is_trained=False)]
    )
    trained = stack(
        load_backbone(str(folder)), [Layer(DOMAIN, read_adapter(domain), is_trained=True)]
    )
    batch = random_batch(LENGTHS)
    differences = []
    for model in (frozen, trained):
        model.train_mode()
        with torch.no_grad():
            first, second = model.features(batch, "last"), model.features(batch, "last")
        differences.append(float((first - second).abs().max()))
    assert differences[0] == 0
    assert differences[1] > 1e-3


def test_an_adapter_of_another_backbone_is_refused(domain, tmp_path):
    other = load_backbone(str(random_llama(tmp_path / "other", seed=9)))
    with pytest.raises(BundleError, match="was trained on the backbone"):
        stack(other, [Layer(DOMAIN, read_adapter(domain), is_trained=False)])


def test_a_flipped_bit_in_an_adapter_is_found(domain, tmp_path):
    for path in domain.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = bytearray((tmp_path / "adapter_model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "adapter_model.safetensors").write_bytes(weights)
    with pytest.raises(BundleError, match="differs from what was saved"):
        read_adapter(tmp_path)


def test_missing_or_extra_tensors_are_refused(folder, domain):
    saved = read_adapter(domain)
    name, value = next(iter(saved.tensors.items()))
    short = {k: v for k, v in saved.tensors.items() if k != name}
    broken = [short, {**saved.tensors, "extra": value}, {**saved.tensors, name: value[:1]}]
    for tensors in broken:
        layer = Layer(DOMAIN, SavedAdapter(saved.spec, tensors, saved.backbone), is_trained=False)
        with pytest.raises(BundleError, match="does not fit the backbone: 1 tensors"):
            stack(load_backbone(str(folder)), [layer])


def test_targets_that_the_backbone_lacks_are_named(folder):
    spec = LoRA(targets=("no_such_layer",))
    with pytest.raises(BundleError, match="no layer named no_such_layer"):
        stack(load_backbone(str(folder)), [Layer(DOMAIN, spec, is_trained=True)])


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        (LoRA(targets=("q_proj", "v_prj")), "v_prj"),
        (LoRA(ranks={"v_prj": 2}), "v_prj"),
        (LoRA(alphas={"k_proj": 2}), "k_proj"),  # of the backbone, but not among the targets
    ],
)
def test_a_name_among_others_that_no_layer_bears_is_told(folder, spec, wrong):
    with pytest.warns(RunWarning, match=f"no layer named {wrong} that LoRA is put on"):
        stack(load_backbone(str(folder)), [Layer(DOMAIN, spec, is_trained=True)])


def test_layers_may_be_named_by_their_paths(folder):
    targets = ("layers.0.self_attn.q_proj", "v_proj")
    spec = LoRA(targets=targets, ranks={r"layers\.0\.self_attn\.q_proj": 2})
    model = stack(load_backbone(str(folder)), [Layer(DOMAIN, spec, is_trained=True)])
    assert sum("q_proj" in name for name in model.tensors(DOMAIN)) == 2


@pytest.mark.parametrize("tied", [False, True])
def test_an_outcome_trains_nothing_in_the_layer_that_predicts_tokens(tmp_path, tied):
    random_llama(tmp_path, tied=tied)
    layers = [
        Layer(DOMAIN, Full(), is_trained=True),
        Layer(TASK, LoRA(targets=("q_proj",) if tied else ("lm_head",)), is_trained=True),
    ]
    backbone = load_backbone(str(tmp_path))
    names = stack(backbone, layers, predicts_tokens=False).parameters_by_name()
    assert "domain.model.embed_tokens.weight" in names
    assert not any("lm_head" in name for name in names)
    backbone = load_backbone(str(tmp_path))
    heads = [name for name in stack(backbone, layers).parameters_by_name() if "lm_head" in name]
    assert len(heads) == (0 if tied else 3)


def test_lora_on_experts_is_told_as_peft_sees_it(tmp_path):
    tiny_model("qwen3_moe").save_pretrained(tmp_path)
    targets = ("q_proj", "gate_proj", "up_proj", "down_proj")
    spec = LoRA(rank=2, targets=targets, dropout=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RunWarning)
        model = stack(load_backbone(str(tmp_path)), [Layer(TASK, spec, is_trained=True)])
    assert any("experts" in name for name in model.tensors(TASK))
    wrong = LoRA(rank=2, targets=(*targets, "gate_prj"), dropout=0.0)
    with pytest.warns(RunWarning, match="no layer named gate_prj"):
        stack(load_backbone(str(tmp_path)), [Layer(TASK, wrong, is_trained=True)])
    dropping = LoRA(rank=2, targets=targets, dropout=0.1)
    with pytest.raises(BundleError, match=r"peft says: .* does not work with lora_dropout"):
        stack(load_backbone(str(tmp_path)), [Layer(TASK, dropping, is_trained=True)])
