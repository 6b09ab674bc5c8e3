"""The commands, one file per family; `streams/cli.py` puts them together."""
