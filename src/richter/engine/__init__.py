"""The deterministic feature engine: ticks in, features and labels out, to the same bits every time."""
