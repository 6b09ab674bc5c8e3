"""Metrics, quality and drift mathematics; plain numbers in, plain numbers out."""
