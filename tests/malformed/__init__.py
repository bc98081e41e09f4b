"""Malformed inputs by kind, and the process in which each is given to the command line."""
