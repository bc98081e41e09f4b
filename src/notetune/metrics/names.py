"""Names that a recipe may use for what only its scores decide."""

BEST_VALIDATED = "best-validated"
"""For each run, the language model with the highest validation AUROC of the other runs."""
