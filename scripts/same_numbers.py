"""Do two versions of the code give the same numbers, to the last digit?

    python scripts/same_numbers.py measure before.json --data FOLDER     # in the one version
    python scripts/same_numbers.py measure after.json --data FOLDER      # in the other
    python scripts/same_numbers.py compare before.json after.json

It runs the demo and two studies of open data, small and with one run, through the command line, and
keeps every perplexity, every estimate and a digest of every score. Floating-point sums differ
between processors, so both files must come from one machine.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

RECIPES = Path(__file__).parents[1] / "recipes"
SMALL = (
    "seeds=1",
    "pretrain.epochs=0.05",
    "pretrain.perplexity_documents=20",
    "downstream.epochs=0.05",
    "prepare.max_tokens=96",
    "downstream.max_pieces=2",
    "evaluate.draws=100",
)


def measured(data: Path) -> dict[str, Any]:
    """What each study leaves in its report and in its files of scores."""
    found = {}
    with tempfile.TemporaryDirectory() as place:
        run("demo", "--folder", f"{place}/demo", "--patients", "150")
        found["demo"] = numbers(Path(place, "demo"))
        for name in ("mtsamples", "eicu"):
            recipe = str(RECIPES / f"{name}.yaml")
            changes = (f"runs={place}", f"data={data}", "encoders.models={}", *SMALL)
            run("study", "run", recipe, "--only", "tiny", *changes)
            found[name] = numbers(Path(place, name, "backbones", "tiny"))
    return found


def run(*command: str) -> None:
    """Run notetune on one thread, so that sums have one order."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "notetune", *command], check=True, env=environment)


def numbers(root: Path) -> dict[str, Any]:
    """Perplexities and estimates of the report, and a digest of every model's scores."""
    report = json.loads((root / "report/report.json").read_text())
    scores = {
        str(path.relative_to(root / "cells")): digest(path)
        for path in sorted((root / "cells").rglob("*.parquet"))
    }
    return {
        "perplexity": sorted(
            [row["split"], row["source"], row["perplexity"]] for row in report["perplexity"]
        ),
        "auroc": [
            [task["task"], row["model"], row["auroc_per_run"]]
            for task in report["tasks"]
            for row in task["rows"]
        ],
        "scores": scores,
    }


def digest(path: Path) -> str:
    """Of the scores in a file, bit for bit."""
    return hashlib.sha256(pl.read_parquet(path)["score"].to_numpy().tobytes()).hexdigest()[:16]


def main() -> None:
    """Measure one version, or compare two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["measure", "compare"])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    if given.what == "measure":
        given.files[0].write_text(json.dumps(measured(given.data), indent=1))
        return
    before, after = (json.loads(path.read_text()) for path in given.files)
    for study, values in before.items():
        for kind, expected in values.items():
            is_same = after[study][kind] == expected
            print(f"{study} {kind}: {len(expected)} {'the same' if is_same else 'DIFFERENT'}")
    sys.exit(before != after)


if __name__ == "__main__":
    main()
