"""What the commands ask of Kafka."""
