"""Kafka and Faust: batches in, awaited outputs, state topics, the embedded broker."""
