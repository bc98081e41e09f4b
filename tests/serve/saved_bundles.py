"""Stacks with random adapters, and bundles of them on disk."""

import torch

from notetune import runs
from notetune.model.adapters.files import save_adapter
from notetune.model.backbone import load_backbone
from notetune.model.bundle import save_head
from notetune.model.cards import BundleCard, save_card
from notetune.model.heads import Head
from notetune.model.stack import DOMAIN, TASK, Layer, stack

TEXTS = ["one note", "another, somewhat longer note", "x"]


def trained(folder, *specs):
    """A stack with random adapters, all frozen now."""
    layers = [
        Layer(n, spec, is_trained=True) for n, spec in zip((DOMAIN, TASK), specs, strict=False)
    ]
    model = stack(load_backbone(str(folder)), layers)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters_by_name().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def saved_bundle(where, model, *, scores=None):
    weight_KH = torch.randn(
        2, model.backbone.hidden_size, generator=torch.Generator().manual_seed(1)
    )
    head = Head(0.02 * weight_KH, torch.tensor([0.3, -0.2]))
    card = BundleCard(
        task="stay",
        kind="multilabel",
        classes=("a", "b"),
        variant="domain-frozen+task-lora",
        seed=0,
        pooling="mean",
        max_tokens=32,
        backbone_name=str(model.backbone.folder),
        backbone_fingerprint=model.backbone.fingerprint,
        adapters=tuple(model.adapters),
    )
    with runs.new_folder(where, "test") as temporary:
        save_card(temporary, card)
        for name, adapter in model.adapters.items():
            save_adapter(temporary / name, adapter, model.backbone)
        save_head(temporary, head)
        if scores:
            (temporary / scores).write_bytes(b"scores")
    return where
