"""The jobs of a study, and what makes each of them."""
