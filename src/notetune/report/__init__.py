"""Report: tables, figures and the page (no torch)."""
