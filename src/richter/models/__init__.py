"""What predicts, what alerts and what came of it. No clock, no randomness, no I/O."""
