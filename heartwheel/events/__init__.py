"""What the records of a topic would become, and which table suits them."""
