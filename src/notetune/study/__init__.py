"""Workflows: each turns a recipe into files in a run folder."""
