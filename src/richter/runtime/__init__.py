"""The wiring: what reads, computes and writes, joined into jobs."""
