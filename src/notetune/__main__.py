"""`python -m notetune`."""

from notetune.cli import main

main()
