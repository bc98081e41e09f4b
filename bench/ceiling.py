"""The roof over every training: what large matrix products reach on this device, in TFLOP/s.

`python bench/ceiling.py --device cuda` on a GPU.
"""

import argparse
from pathlib import Path

import torch
from rows import Rows

from notetune.train.step_cost import matrix_rate

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Measure each type that the layers compute in, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results/ceiling.csv")
    given = parser.parse_args()
    device = torch.device(given.device)
    rows = Rows(given.output, torch.cuda.get_device_name() if device.type == "cuda" else "")
    for dtype in given.dtypes:
        rates = [matrix_rate(device, dtype) / 1e12 for _ in range(given.repeats)]
        rows.add("matrix product", dtype, "random matrices", rates, "TFLOP/s")


if __name__ == "__main__":
    main()
