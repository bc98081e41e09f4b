"""Training: batches, optimizer schedule and the one loop."""
