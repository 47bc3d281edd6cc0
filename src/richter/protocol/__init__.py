"""What is on the wire and in the recordings, and what it means. Bytes in, facts out: no clock, no I/O."""
