"""Active sessions as they are shown, chosen and written, whether of a process or of a store."""
