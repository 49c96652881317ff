"""The program: one process, its command line and its tools."""
