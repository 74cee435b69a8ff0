"""The command, as `python -m`."""

from brainseg.cli import main

main()
