"""MIMIC-III and MIMIC-IV: admission notes, outcomes, and what is published of them."""
