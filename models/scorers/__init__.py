"""Frozen scorers, one file each."""
