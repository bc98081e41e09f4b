import pytest
from builders import put, random_llama

from notetune.errors import BundleError, TrainingError
from notetune.model.adapters.files import read_adapter, save_adapter
from notetune.model.adapters.specs import AdaptationPrompt, Full, LoRA, Prefix, Prompt, PTuning
from notetune.model.stack import DOMAIN


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"))


def test_a_folder_without_a_card_is_no_adapter(tmp_path):
    with pytest.raises(BundleError, match="is not an adapter folder: it needs"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    "spec", [LoRA(), Prefix(), Prompt(), PTuning(), AdaptationPrompt(), Full()]
)
def test_a_saved_adapter_holds_no_path_and_no_pickle(folder, tmp_path, spec):
    if spec.kind in ("prefix", "prompt", "p-tuning"):
        spec = spec.model_copy(update={"virtual_tokens": 2})
    model = put(folder, spec)
    save_adapter(tmp_path / "saved", model.adapters[DOMAIN], model.backbone)
    files = sorted(path.name for path in (tmp_path / "saved").iterdir())
    usual = ["adapter.json", "adapter_config.json", "adapter_model.safetensors"]
    whole = "README.md adapter.json config.json generation_config.json model.safetensors"
    assert files == ([*whole.split(), "tokenizer.json"] if spec.kind == "full" else usual)
    for name in files:
        if name.endswith(("config.json", ".md")) or name == "adapter.json":
            text = (tmp_path / "saved" / name).read_text()
            assert str(folder) not in text
            assert "/" not in text or spec.kind == "full"
    assert read_adapter(tmp_path / "saved").spec == spec


@pytest.mark.parametrize("spec", [LoRA(), Full()])
def test_weights_that_are_not_finite_are_not_saved(folder, tmp_path, spec):
    model = put(folder, spec)
    *_, last = model.adapters[DOMAIN].tensors().values()
    last.data.view(-1)[-1] = float("nan")
    with pytest.raises(TrainingError, match=r"is not finite after the last update; lower optim"):
        save_adapter(tmp_path / "saved", model.adapters[DOMAIN], model.backbone)
