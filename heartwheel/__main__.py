"""`python -m heartwheel` is the heartwheel command."""

from heartwheel.cli import main

main()
