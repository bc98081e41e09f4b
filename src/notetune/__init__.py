"""Adapt a language model to clinical notes, and measure honestly what that brings."""

import os
from typing import Any

__version__ = "0.2.0"

# Read by the libraries when they are imported, so they are set before anything imports them.
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "true",
}
for _name, _value in _OFFLINE.items():
    os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> Any:
    if name in ("fit", "plan"):  # loads all heavy libraries
        from notetune import dataframe

        return getattr(dataframe, name)
    raise AttributeError(f"notetune has no {name}")
