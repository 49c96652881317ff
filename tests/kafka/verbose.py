"""The heartwheel command with its log on standard error."""

import logging

from dataflows.cli import main

logging.basicConfig(level=logging.INFO, format="%(message)s")
main()
