"""`python -m trivox`."""

from trivox.cli import main

main()
