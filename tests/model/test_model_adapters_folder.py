"""Adapters that plain peft wrote, in the forms that it has: brought exactly, or refused."""

import json

import peft
import pytest
import torch
from builders import in_float64, random_documents, random_llama
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM

from notetune.errors import BundleError
from notetune.model.adapters.files import read_adapter, save_adapter, tensors_hash
from notetune.model.adapters.folder import read_folder
from notetune.model.adapters.specs import LoRA
from notetune.model.backbone import load_backbone
from notetune.model.batch import packed_batch
from notetune.model.stack import DOMAIN, TASK, Layer, stack

LM = {"task_type": "CAUSAL_LM"}
TARGETS = ["q_proj", "v_proj"]


def lora(**settings):
    return peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": TARGETS, **settings})


FORMS = {
    "plain": lora(**LM),
    "of no task": lora(),
    "feature extraction": lora(task_type="FEATURE_EXTRACTION"),
    "rslora": lora(use_rslora=True, **LM),
    "dora": lora(use_dora=True, **LM),
    "patterns": lora(
        rank_pattern={"q_proj": 2, r"layers\.1\.self_attn\.v_proj": 3},
        alpha_pattern={"v_proj": 5},
        **LM,
    ),
    "patterns, rslora": lora(rank_pattern={"q_proj": 2}, use_rslora=True, **LM),
    "expression": lora(target_modules=r".*layers\.1\.mlp\.(up|down)_proj", **LM),
    "all linear": lora(target_modules="all-linear", **LM),
    "all linear but some": lora(target_modules="all-linear", exclude_modules=["k_proj"], **LM),
    "one layer": lora(layers_to_transform=[1], layers_pattern="layers", **LM),
    "of the head": lora(target_modules=["lm_head", "q_proj"], **LM),
    "fan in, fan out": lora(fan_in_fan_out=False, init_lora_weights="gaussian", **LM),
    "prompt": peft.PromptTuningConfig(num_virtual_tokens=3, **LM),
    "p-tuning": peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8, **LM),
    "prefix": peft.PrefixTuningConfig(num_virtual_tokens=3, **LM),
    "projected prefix": peft.PrefixTuningConfig(
        num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=8, **LM
    ),
    "adaption prompt": peft.AdaptionPromptConfig(adapter_len=3, adapter_layers=1, **LM),
}
each_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"), kv_heads=2)


def written(backbone, config, folder, kind=AutoModelForCausalLM, **options):
    """An adapter of random numbers that peft made and saved; the model that peft has of it."""
    torch.manual_seed(3)
    plain = kind.from_pretrained(backbone, dtype=torch.float64)
    model = peft.get_peft_model(plain, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.eval().save_pretrained(folder, **{"save_embedding_layers": False, **options})
    return model


def ours(backbone, folder, *more, is_trained=False):
    layers = [Layer(DOMAIN, read_adapter(folder), is_trained=is_trained), *more]
    return in_float64(stack(load_backbone(str(backbone)), layers))


def logits(model, batch):
    with torch.no_grad():
        return model.backbone.head(model.hidden_states(batch))


def theirs_of(model, documents):
    """peft's logits of each note alone, without those of virtual tokens."""
    with torch.no_grad():
        rows = [model(torch.from_numpy(ids)[None]).logits[0, -len(ids) :] for ids in documents]
    return torch.cat(rows)


def difference(model, twin):
    documents = random_documents([9, 4, 17, 4])
    batch = packed_batch(documents, range(len(documents)))
    found = logits(model, batch)
    if len(found) != sum(map(len, documents)):  # with virtual tokens
        found = found[-len(found) :]
    return float((found - theirs_of(twin, documents)).abs().max())


@each_form
def test_an_adapter_of_peft_says_what_it_says_in_peft(backbone, form, tmp_path):
    twin = written(backbone, FORMS[form], tmp_path / "theirs")
    with twin.disable_adapter():
        plain = theirs_of(twin, random_documents([9, 4, 17, 4]))
    acts = (theirs_of(twin, random_documents([9, 4, 17, 4])) - plain).abs().max()
    assert difference(ours(backbone, tmp_path / "theirs"), twin) < 1e-5 < acts


@each_form
def test_an_adapter_of_peft_trains_on_and_carries_a_task_adapter(backbone, form, tmp_path):
    written(backbone, FORMS[form], tmp_path / "theirs")
    task = Layer(TASK, LoRA(rank=2), is_trained=True)
    documents = random_documents([9, 4, 17, 4])
    batch = packed_batch(documents, range(len(documents)))
    for is_trained in (False, True):
        model = ours(backbone, tmp_path / "theirs", task, is_trained=is_trained)
        before = tensors_hash(model.tensors(DOMAIN))
        parameters = model.parameters_by_name()
        assert any(name.startswith(DOMAIN) for name in parameters) == is_trained
        optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
        for _ in range(2):  # the first step moves B, which starts at 0
            optimizer.zero_grad()
            model.summed_token_loss(batch).backward()
            assert all(parameter.grad is not None for parameter in parameters.values())
            optimizer.step()
        assert (tensors_hash(model.tensors(DOMAIN)) == before) == (not is_trained)
        assert model.effect(TASK, batch) > 0
        assert model.effect(DOMAIN, batch, lambda b, m=model: m.token_losses(b)) > 0


def test_an_adapter_that_was_made_on_the_model_without_its_token_head_is_the_same(
    backbone, tmp_path
):
    twin = written(backbone, FORMS["plain"], tmp_path / "whole")
    written(backbone, FORMS["feature extraction"], tmp_path / "bare", AutoModel)
    whole, without = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "bare")
    )
    assert set(without) == {name.replace(".model.model.", ".model.") for name in whole}
    save_file(
        {name.replace(".model.model.", ".model."): tensor for name, tensor in whole.items()},
        tmp_path / "bare/adapter_model.safetensors",
    )
    assert difference(ours(backbone, tmp_path / "bare"), twin) < 1e-5


@pytest.mark.filterwarnings("ignore:.*changes the base weights")
@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_start_from_the_weights_of_the_backbone_is_refused_until_it_is_converted(
    backbone, start, tmp_path
):
    plain = AutoModelForCausalLM.from_pretrained(backbone)
    twin = peft.get_peft_model(plain, lora(init_lora_weights=start, **LM))
    twin.peft_config["default"].init_lora_weights = True
    twin.save_pretrained(tmp_path / "start", safe_serialization=True)
    twin.peft_config["default"].init_lora_weights = start
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    twin.eval().save_pretrained(tmp_path / "raw")
    with pytest.raises(BundleError, match="sets init_lora_weights, which notetune cannot follow"):
        read_adapter(tmp_path / "raw")
    expected = theirs_of(twin, documents := random_documents([9, 4]))
    twin.save_pretrained(
        tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )
    model = stack(
        load_backbone(str(backbone)),
        [Layer(DOMAIN, read_adapter(tmp_path / "converted"), is_trained=False)],
    )
    found = logits(model, packed_batch(documents, range(len(documents))))
    assert float((found - expected).abs().max()) < 1e-4  # in float32, of weights taken apart


REFUSED = {
    "bias": (lora(bias="all", **LM), "sets bias, which"),
    "trained bias": (lora(bias="lora_only", **LM), "sets bias, which"),
    "saved modules": (lora(modules_to_save=["lm_head"], **LM), "sets modules_to_save, which"),
    "tokens": (lora(trainable_token_indices=[1, 2], **LM), "sets trainable_token_indices, which"),
    "anchored": (lora(rank_pattern={"^model.layers.0.self_attn.q_proj": 2}, **LM), "rank_pattern"),
    "another method": (peft.IA3Config(**LM), "peft type IA3 is not one of LORA"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_followed_exactly_is_refused_in_one_line(backbone, form, tmp_path):
    config, line = REFUSED[form]
    written(backbone, config, tmp_path)
    with pytest.raises(BundleError, match=line) as error:
        read_folder(tmp_path)
    assert "\n" not in str(error.value)


def test_a_setting_of_tomorrow_and_pickled_weights_are_refused(backbone, tmp_path):
    written(backbone, FORMS["plain"], tmp_path)
    path = tmp_path / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "a_setting_of_tomorrow": 1}))
    with pytest.raises(BundleError, match="sets a_setting_of_tomorrow, which notetune cannot"):
        read_adapter(tmp_path)
    path.write_text(json.dumps(settings))
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(BundleError, match="safetensors only, never from a pickle"):
        read_adapter(tmp_path)


def test_weights_of_the_backbone_beside_an_adapter_are_refused_with_the_way_out(backbone, tmp_path):
    form = next(name for name, config in FORMS.items() if config.peft_type == "LORA")
    written(backbone, FORMS[form], tmp_path, save_embedding_layers=True)
    with pytest.raises(
        BundleError, match=r"hold \S*(embed|lm_head)\S* .*save_embedding_layers=False"
    ):
        read_adapter(tmp_path)


def test_the_digest_is_of_what_an_adapter_does_and_not_of_where_it_lies(backbone, tmp_path):
    written(backbone, FORMS["patterns"], tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    digest = read_folder(tmp_path / "two").digest
    written(backbone, FORMS["patterns"], tmp_path / "one")
    assert read_folder(tmp_path / "one").digest == digest
    path = tmp_path / "two/adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "inference_mode": False, "revision": "x"}))
    assert read_folder(tmp_path / "two").digest == digest
    path.write_text(json.dumps({**settings, "alpha_pattern": {"v_proj": 6}}))
    assert read_folder(tmp_path / "two").digest != digest
    path.write_text(json.dumps(settings))
    weights = load_file(tmp_path / "two/adapter_model.safetensors")
    save_file(
        {name: tensor * 2 for name, tensor in weights.items()},
        tmp_path / "two/adapter_model.safetensors",
    )
    assert read_folder(tmp_path / "two").digest != digest


def test_what_is_saved_again_is_ours_and_keeps_the_tensors(backbone, tmp_path):
    written(backbone, FORMS["patterns"], tmp_path / "theirs")
    brought = read_adapter(tmp_path / "theirs")
    model = in_float64(stack(load_backbone(str(backbone)), [Layer(DOMAIN, brought, False)]))
    save_adapter(tmp_path / "ours", model.adapters[DOMAIN], model.backbone)
    again = read_adapter(tmp_path / "ours")
    assert again.spec == brought.spec
    assert tensors_hash(again.tensors) == read_folder(tmp_path / "ours").digest
    assert again.tensors.keys() == brought.tensors.keys()
    assert all(torch.equal(again.tensors[n].float(), t.float()) for n, t in brought.tensors.items())
