"""Kafka: the source, the sink, and what makes each record come once."""
