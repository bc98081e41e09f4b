"""How long does the whole penalty path of a head take, and in how much memory?

    python bench/heads.py                                        # the paper's size on this machine
    python bench/heads.py --notes 2000 --features 512 --labels 100

Features have the spectrum of a language model's (a few strong directions, a long tail), labels are
as rare as ICD codes and depend on them. scikit-learn solves a few of the labels at the chosen
penalty beside it, one by one as its users would: the row extrapolates to all of them.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from rows import Rows
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from notetune.train.logistic import HeadProblem, LabelledNotes, Solution
from notetune.train.training import peak_memory_mib, restart_peak_memory

RESULTS = Path(__file__).parent / "results" / "heads.csv"
VALIDATION = 4918
COMPARED_LABELS = 4


def notes(count: int, features: int, labels: int, seed: int) -> LabelledNotes:
    """Notes whose labels have a frequency between 0.1 and 30 %, and are half told by features."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(0)
    scale_H = 1 / np.sqrt(1 + np.arange(features, dtype=np.float32))
    hidden_NH = rng.standard_normal((count, features), np.float32) * scale_H
    weight_HK = shared.standard_normal((features, labels), np.float32)
    frequency_K = np.exp(shared.uniform(np.log(1e-3), np.log(0.3), labels))
    logits_NK = hidden_NH @ weight_HK + np.log(frequency_K / (1 - frequency_K)).astype(np.float32)
    targets_NK = rng.random(logits_NK.shape, np.float32) < 1 / (1 + np.exp(-logits_NK))
    mixed_NH = hidden_NH @ shared.standard_normal((features, features), np.float32)
    return LabelledNotes(torch.from_numpy(mixed_NH), targets_NK.astype(np.int8))


def seconds_of_scikit_learn(train: LabelledNotes, found: Solution) -> tuple[float, float]:
    """Seconds per label at the penalty that was found, and the largest difference of weights."""
    scaler = StandardScaler()
    scaled_NH = scaler.fit_transform(train.features_NH.numpy())
    rare = np.argsort(train.targets_NK.sum(0))
    chosen = rare[np.linspace(0, len(rare) - 1, COMPARED_LABELS).astype(int)]
    started, difference = time.perf_counter(), 0.0
    for label in chosen:
        strength = found.penalty.value * len(scaled_NH)
        penalty = LogisticRegression(C=1 / strength, tol=1e-6, max_iter=999)
        fitted = penalty.fit(scaled_NH, train.targets_NK[:, label])
        weights_H = found.weight_KH[label].double().numpy() * scaler.scale_
        difference = max(difference, float(np.abs(weights_H - fitted.coef_[0]).max()))
    return (time.perf_counter() - started) / len(chosen), difference


def main() -> None:
    """Measure and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notes", type=int, default=26_124)
    parser.add_argument("--features", type=int, default=4096)
    parser.add_argument("--labels", type=int, default=1266)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    held_out = max(100, VALIDATION * given.notes // 26_124)
    train = notes(given.notes, given.features, given.labels, seed=1)
    validation = notes(held_out, given.features, given.labels, seed=2)
    on_device = [
        LabelledNotes(each.features_NH.to(given.device), each.targets_NK)
        for each in (train, validation)
    ]
    restart_peak_memory()
    started = time.perf_counter()
    found = HeadProblem(on_device[0], "multilabel").along_path(on_device[1])
    seconds, memory_mib = time.perf_counter() - started, peak_memory_mib()
    per_label, difference = seconds_of_scikit_learn(train, found)
    about = f"{given.notes} notes x {given.features} features x {given.labels} labels"
    rows = Rows(given.output, "" if given.device == "cpu" else torch.cuda.get_device_name())
    for variant, value, unit in (
        ("penalty path", seconds, "s"),
        ("penalties on the path", len(found.penalty.path), ""),
        ("peak memory of the path", memory_mib, "MiB"),
        ("scikit-learn at one penalty, all labels", per_label * given.labels, "s, extrapolated"),
        ("largest difference of standardised weights", difference, ""),
    ):
        rows.add("head", variant, f"{about}, {given.threads} threads", [value], unit)


if __name__ == "__main__":
    main()
