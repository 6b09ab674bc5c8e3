"""Kafka edge, stages and command line of fraudstream."""
