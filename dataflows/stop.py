"""How a run is asked to stop: the sources end, and Bytewax drains, snapshots and returns."""

from threading import Event

Stop = Event
STOP: Stop = Event()
