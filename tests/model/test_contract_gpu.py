"""What only a GPU can show: its kernels give what float32 on a CPU gives (`make test-gpu`)."""

import pytest
import torch
from builders import random_documents, random_llama
from torch._dynamo.utils import counters

from notetune.model.adapters.specs import AdaptationPrompt, LoRA, Prefix, Prompt
from notetune.model.backbone import load_backbone
from notetune.model.batch import packed_batch
from notetune.model.compiled import compile_layers
from notetune.model.stack import DOMAIN, Layer, stack
from notetune.train.step_cost import matrix_rate

pytestmark = pytest.mark.gpu

ROWS = [[9, 30, 1, 17], [40, 3], [25], [5, 5, 5, 60], [7] * 8]
SPECS = [LoRA(rank=4), Prefix(virtual_tokens=5), Prompt(virtual_tokens=5), AdaptationPrompt()]
LEAST_COSINE = {"bfloat16": 0.999, "nf4": 0.9}  # CPU, shipped backbone: 0.9999 and 0.93 to 0.96


def row(lengths, device="cuda"):
    return packed_batch(random_documents(lengths), range(len(lengths)), device)


def trained(name, spec, dtype="float32", device="cpu"):
    """A stack with an adapter that says something."""
    backbone = load_backbone(str(name), dtype, device)
    model = stack(backbone, [Layer(DOMAIN, spec, is_trained=True)], seed=1)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters_by_name().values():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 0.02 * noise.to(parameter.device)
    model.train_mode()
    return model


def step(model, lengths):
    """Loss per target and all gradients of a row, on the CPU."""
    batch = row(lengths, model.backbone.device)
    loss = model.summed_token_loss(batch)
    gradients = torch.autograd.grad(loss, list(model.parameters_by_name().values()))
    return loss.item() / batch.target_count, torch.cat([g.flatten().cpu() for g in gradients])


def agree(got, expected, dtype):
    (loss, gradients), (exact_loss, exact) = got, expected
    assert loss == pytest.approx(exact_loss, rel=1e-2)
    assert torch.cosine_similarity(gradients, exact, dim=0) > LEAST_COSINE[dtype]


@pytest.mark.parametrize("dtype", LEAST_COSINE)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_a_step_is_that_of_float32_on_a_cpu(spec, dtype):
    exact, model = trained("tiny", spec), trained("tiny", spec, dtype, "cuda")
    for lengths in ROWS[:2]:
        agree(step(model, lengths), step(exact, lengths), dtype)


@pytest.mark.parametrize("dtype", LEAST_COSINE)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_packed_documents_with_shared_keys_do_not_see_each_other(tmp_path, spec, dtype):
    model = trained(random_llama(tmp_path, kv_heads=2), spec, dtype, "cuda")
    documents = random_documents(ROWS[0])
    with torch.inference_mode():
        packed = model.hidden_states(row(ROWS[0])).float()
        alone = [model.hidden_states(packed_batch([ids], [0], "cuda")) for ids in documents]
    assert len(alone) == 4
    assert (packed - torch.cat(alone).float()).norm() < 0.05 * packed.norm()


def test_compiled_layers_agree_with_the_cpu_and_no_length_compiles_again():
    dtype = "bfloat16"
    torch._dynamo.reset()
    counters.clear()
    exact, model = trained("tiny", SPECS[0]), trained("tiny", SPECS[0], dtype, "cuda")
    compile_layers(model.backbone)
    counts = []
    for lengths in ROWS:
        agree(step(model, lengths), step(exact, lengths), dtype)
        counts.append(counters["stats"]["unique_graphs"])
    assert counts == counts[:1] * len(ROWS)
    assert counts[0] > 0


def test_products_in_bfloat16_run_faster_than_in_float32():
    rates = [matrix_rate(torch.device("cuda"), dtype) for dtype in ("float32", "bfloat16")]
    assert rates == sorted(rates)
    assert rates[0] > 1e12
