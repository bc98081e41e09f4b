"""Columns of tables that recipes are drafted for."""

LONG = "Admitted with chest pain radiating to the left arm since the morning."
DAYS = [f"2150-01-{1 + row % 28:02}" for row in range(40)]


def alternating(first, second):
    return [first if row % 4 == 0 else second for row in range(40)]
