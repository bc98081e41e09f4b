"""The command line: parse, call one workflow, print one result."""

from notetune.cli.app import main

__all__ = ["main"]
