"""A step counted without data costs what the same step costs with data."""

import os
import subprocess
import sys

import pytest
import torch
from builders import random_llama

from notetune.model.adapters.specs import LoRA
from notetune.model.backbone import outline_backbone
from notetune.model.stack import DOMAIN, Layer, stack
from notetune.train import step_cost as cost
from notetune.train.step_cost import matrix_rate, step_cost

WITHIN = 1.15
"""The estimate of memory is this near to what the operating system says, or nearer."""
RETURNED = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""Makes glibc give back what is freed; its heap keeps up to twice as much as is alive."""

MEASURE = """
import numpy as np, torch
from notetune.model.adapters.specs import LoRA
from notetune.model.backbone import load_backbone
from notetune.model.batch import packed_batch
from notetune.model.stack import DOMAIN, Layer, stack
from notetune.train.optim import adamw
from notetune.train.schedule import OptimConfig
from notetune.train.training import peak_memory_mib, restart_peak_memory

def step(model, lengths):
    batch = packed_batch([np.full(n, 5) for n in lengths], range(len(lengths)))
    optimizer = adamw(OptimConfig(), (model.parameters_by_name().values(), 1e-3))
    for _ in range(2):
        model.summed_token_loss(batch).backward()
        optimizer.step()
        optimizer.zero_grad()

model = stack(load_backbone("tiny"), [Layer(DOMAIN, LoRA(rank=16), is_trained=True)])
step(model, [8])
restart_peak_memory()
before = peak_memory_mib()
step(model, [512] * 8)
print(peak_memory_mib() - before)
"""


def outlined(name, spec, dtype="float32"):
    return stack(outline_backbone(name, dtype), [Layer(DOMAIN, spec, is_trained=True)])


def test_memory_is_near_to_the_measured_peak_of_the_shipped_backbone():
    if sys.platform != "linux":
        pytest.skip("the peak of a part of a process is only known on Linux")
    model = outlined("tiny", LoRA(rank=16))
    small, large = (
        step_cost(model, model.summed_token_loss, lengths).peak_bytes / 2**20
        for lengths in ((8,), (512,) * 8)
    )
    command = [sys.executable, "-c", MEASURE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=RETURNED)
    measured = float(done.stdout)
    assert measured > 100
    assert measured / WITHIN < large - small < measured * WITHIN


def test_operations_are_those_of_every_matrix_and_of_attention(tmp_path):
    folder = str(random_llama(tmp_path))
    model = outlined(folder, LoRA(rank=2))
    hidden, feed_forward, kv, vocabulary, layers, length = 32, 48, 16, 260, 2, 40
    whole = step_cost(model, model.summed_token_loss, (length,) * 3)
    tokens, targets = 3 * length, 3 * (length - 1)
    matrices = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * feed_forward
    adapters = 2 * (2 * hidden + hidden + kv)  # both factors on queries and values
    scores = length * hidden  # halved for causality, doubled for scores and values
    forward = tokens * layers * (matrices + adapters + scores) + targets * hidden * vocabulary
    assert whole.tokens == tokens
    scored = step_cost(model, model.summed_token_loss, (length,) * 3, trains=False)
    assert scored.flops == 2 * forward
    # Backward, every frozen matrix takes one product, but for the lowest queries, keys and values,
    # below which nothing trains; adapters take two, less those inputs; attention takes 2.5 times.
    lowest = hidden * hidden + 2 * hidden * kv + 2 * 2 * hidden
    backward = tokens * layers * (matrices + 2 * adapters + 2.5 * scores)
    backward += targets * hidden * vocabulary - tokens * lowest
    assert whole.flops == 2 * (forward + backward)


def test_more_tokens_and_a_larger_type_take_more_memory(tmp_path):
    folder = str(random_llama(tmp_path))

    def peak(lengths, dtype):
        model = outlined(folder, LoRA(rank=2), dtype)
        return step_cost(model, model.summed_token_loss, lengths).peak_bytes

    assert peak((64, 64), "bfloat16") < peak((64, 64), "float32") < peak((64,) * 6, "float32")


def test_nf4_takes_the_same_operations_and_the_packed_weights_in_memory(tmp_path):
    folder = str(random_llama(tmp_path))
    costs = {}
    for dtype in ("float32", "nf4"):
        model = outlined(folder, LoRA(rank=2), dtype)
        costs[dtype] = step_cost(model, model.summed_token_loss, (40,) * 3)
    assert costs["nf4"].flops == costs["float32"].flops
    hidden, feed_forward, kv, layers = 32, 48, 16, 2
    weights = layers * (2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * feed_forward)
    # Half a byte and a byte for 64 of them, and two numbers of each matrix; no matrix is unpacked
    # at the worst moment, which is that of the logits.
    saved = 4 * weights - (0.5 + 1 / 64) * weights - layers * 7 * 2 * 4
    assert costs["float32"].peak_bytes - costs["nf4"].peak_bytes == saved


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "nf4"])
def test_the_matrix_rate_is_measured_for_every_type(dtype, monkeypatch):
    monkeypatch.setattr(cost, "_MATRIX_SIZE", {"cpu": 64})
    assert matrix_rate(torch.device("cpu"), dtype) > 1e6


def test_attention_keeps_no_scores(tmp_path):
    folder = str(random_llama(tmp_path))
    model = outlined(folder, LoRA(rank=2))
    short = step_cost(model, model.summed_token_loss, (8,) * 16).peak_bytes
    long = step_cost(model, model.summed_token_loss, (128,)).peak_bytes
    assert long == pytest.approx(short, rel=0.1)  # scores would add half as much again
