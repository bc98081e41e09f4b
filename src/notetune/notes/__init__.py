"""Notes: sources, cleaning, outcomes, patient splits and leak checks."""
