"""Recorded topics: to a file, through the dataflow, back to a broker, compared."""
