"""Model: packed batches, backbone, attention, adapters, heads, losses and bundles (torch)."""
