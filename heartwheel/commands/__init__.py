"""The commands of an operator: topics, config, dead-letters and load."""
