"""A real Apache Kafka on this machine without Docker: its jars, its settings, its processes."""
