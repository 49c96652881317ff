"""The rules of device sessions, pure: no clock, no I/O, no Bytewax; time is an argument."""
