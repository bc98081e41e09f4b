"""Serving: a bundle applied to new notes."""
