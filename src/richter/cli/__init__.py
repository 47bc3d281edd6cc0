"""The command line. Only `main` is on the way to `--help`; it imports nothing heavy."""
