"""Tokens: encoding, the memory-mapped store and the packing plan (numpy only)."""
