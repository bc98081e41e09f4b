"""Adapters: what they are (`specs`), how each acts, and their files."""
