"""The field's nouns: ticks, decimals, times. No clock, no randomness, no I/O."""
