"""Measured load, latency and correctness of the whole job on a real Kafka."""
