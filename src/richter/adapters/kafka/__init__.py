"""Apache Kafka: connections, topics, an idempotent producer, records of features, and parts named by offsets."""
