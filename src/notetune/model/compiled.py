"""Compiled layers: torch makes few kernels of norm, rotary positions, SwiGLU and residual."""

import warnings

import torch

from notetune.errors import BackboneError
from notetune.model.backbone import Backbone

_NOISE = (
    "The .grad attribute of a Tensor that is not a leaf",
    ".* should not be instantiated",
    "`torch.jit.* is deprecated",
)


def compile_layers(backbone: Backbone, backend: str = "inductor") -> None:
    """Have each layer compiled when it is first called, for rows of any length.

    All layers share what is compiled; what was compiled for other models is forgotten. Attention
    stays as it is: it reads the lengths of the documents, and a kernel of its own does its work.
    Adapters may be put on before or after. Torch must know the `backend`.

    Raises:
        BackboneError: If it is an encoder, or its documents cannot share rows.
    """
    layers = getattr(backbone.body, "layers", None)
    if backbone.is_encoder or not backbone.reach.packs_to or layers is None:
        kind = "an encoder" if backbone.is_encoder else "built in another way than LLaMA"
        raise BackboneError(f"{backbone.name} is {kind}; set compiled: false.")
    for message in _NOISE:  # torch's compiler warns of what it does itself
        warnings.filterwarnings("ignore", message)
    torch.compiler.reset()  # torch keeps few versions of a layer; those of other models are over
    for layer in layers:
        layer.compile(backend=backend, dynamic=True)
