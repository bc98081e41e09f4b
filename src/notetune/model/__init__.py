"""Model: packed batches, backbone, attention, adapters, heads, losses and bundles (torch)."""

import logging

# peft imports bitsandbytes, which on a CPU asks for kernels that are not used here.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
