"""The recording: append-only NDJSON segments, the source of truth, and the reader of lines."""
