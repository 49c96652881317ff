"""The heartwheel command with prometheus_client's own server, on the port METRICS_PORT."""

import os
import signal

from prometheus_client import start_http_server

from heartwheel.cli import main
from heartwheel.signals import STOP_SIGNALS

signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # they are not for the server's thread
start_http_server(int(os.environ["METRICS_PORT"]), "127.0.0.1")
main()
