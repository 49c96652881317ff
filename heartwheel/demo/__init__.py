"""The demonstration: the whole job without a Kafka of one's own."""
