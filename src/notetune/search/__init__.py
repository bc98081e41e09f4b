"""Search: spaces of recipe keys, the ledger of trials, and what to try next (no torch)."""
