"""Errors that end a command or a worker, named by what the caller has to do."""

from __future__ import annotations


class FraudstreamError(Exception):
    """Base of every error raised on purpose; its message is for people and holds no payload."""


class SettingsError(FraudstreamError):
    """Correct the settings: the message names the key, where it was set and the cure."""


class TopicMismatch(FraudstreamError):
    """Correct the topics or the settings: a topic exists with another number of partitions."""


class TooManyDeadLetters(FraudstreamError):
    """Look at the producer before restarting: most of the records read lately could not be used."""


class TopicRefused(FraudstreamError):
    """Look at the broker: it would not create a topic, for instance for want of rights or replicas."""


class BrokerUnreachable(FraudstreamError):
    """Start a broker or correct broker.bootstrap: nothing answers there."""


class TopicMissing(FraudstreamError):
    """Create the topics or correct their names in the settings."""


class StateMismatch(FraudstreamError):
    """Correct the settings, or start with fresh internal topics: the state belongs to something else."""


class NoSuchModel(FraudstreamError):
    """Look at `models list`: the topic holds no such model or version."""
