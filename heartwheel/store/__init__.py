"""The recovery store: its rows, its files, and tools for them."""
