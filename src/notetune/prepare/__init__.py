"""Notes to a prepared folder: splits, labels, leak checks, and tokens."""
