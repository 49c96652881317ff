"""The wiring: session_logic between Kafka topics, run by Bytewax."""
