"""Make `python -m cgdet_core` the same program as `cgdet`."""

from cgdet_core.cli import main

main()
