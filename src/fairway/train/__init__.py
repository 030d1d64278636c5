"""Training: the loop, its clock, ranks, compile warm-up and resumable state."""
