"""Histories and simulations: reading them, replaying them to Kafka, scoring them without a broker."""
