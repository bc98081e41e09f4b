"""The demo: a synthetic hospital and the recipe that runs on it."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from notetune.errors import ConfigError

if TYPE_CHECKING:
    from notetune.recipe.recipe import Recipe

_MINUTES = 5


def introduction(patients: int) -> str:
    """What the demo will do and how long that takes."""
    return (
        f"This demo takes about {_MINUTES} minutes on 2 cores. It\n"
        f"  1. writes a synthetic hospital of {patients} patients (no real person is in it),\n"
        "  2. splits its notes by patient and turns them into tokens,\n"
        "  3. adapts a small LLaMA to the notes (step 1: the domain adapter),\n"
        "  4. trains three variants of step 2 on three outcomes, beside TF-IDF and a hybrid,\n"
        "  5. writes a report with intervals and paired differences.\n"
        "Stop it at any time: the same command goes on where it stopped."
    )


def demo_recipe(folder: Path, patients: int) -> "Recipe":
    """The demo's recipe; its hospital is written first where it is not there yet."""
    from notetune import config, manifest
    from notetune.hospital.hospital import SyntheticConfig, write_hospital
    from notetune.recipe.recipe import Recipe

    hospital = folder / f"hospital-{patients}"
    path = Path(str(files("notetune.cli") / "demo.yaml"))
    if not re.fullmatch(config.NAME_PATTERN, folder.name):
        raise ConfigError(
            f"--folder {folder}: its last part names the study, in up to 64 of a-z, 0-9, dots, "
            "hyphens and underscores, a letter or digit first; give another folder."
        )
    keys = {"runs": folder.parent, "name": folder.name, "data": hospital}
    overrides = [f"{k}={json.dumps(str(v), ensure_ascii=False)}" for k, v in keys.items()]
    recipe = config.load(Recipe, path, overrides)
    if not (hospital / manifest.MANIFEST).is_file():
        write_hospital(hospital, SyntheticConfig(patients=patients))
    return recipe
