"""A version before it may score: loaded as a worker would load it, and put through the gates.

Apart from `candidates.py`: it takes the libraries that score, which load slowly.
"""

from __future__ import annotations

from models.gates import Judgement, Limits
from models.registry import Pin
from models.snapshot import Snapshot, decode
from models.snapshot_document import SnapshotError
from streams.commands.candidates import meant, not_usable
from streams.commands.tables import figure
from streams.errors import FraudstreamError
from streams.feature_settings import catalogue_of, feature_spec
from streams.kafka.clients import read_tail
from streams.keys import signing_key
from streams.settings import Settings
from streams.stages import columns
from streams.stages.validation import validate

#: Messages of outcomes, each of many rows, that a version is judged on.
OUTCOME_MESSAGES = 500


class NotFit(FraudstreamError):
    """Look at the figures: the version fails a gate on stored outcomes."""


def usable(settings: Settings, pin: Pin, documents: dict[int, bytes]) -> Snapshot:
    """The version that a pin stands for now, as a worker would load it.

    Raises:
        NoSuchModel: there is none.
        NotUsable: workers would refuse it.
    """
    number = meant(settings, pin, documents)
    try:
        return decode(documents[number], feature_spec(settings).digest, signing_key(settings.models))
    except SnapshotError as error:
        raise not_usable(pin, number, error) from None


async def judged(settings: Settings, snapshot: Snapshot) -> Judgement:
    """What the gates say of a version on the outcomes stored last."""
    topic = catalogue_of(settings, feature_spec(settings)).name("outcomes")
    records = await read_tail(settings.broker, topic, OUTCOME_MESSAGES)
    return validate(
        snapshot,
        (columns.decode(record.value or b"") for record in records),
        threshold=settings.policy.threshold,
        limits=Limits(frauds=settings.gates.min_frauds, days=0.0),
    )


def failures(judgement: Judgement) -> str:
    """The gates that a version has failed, for people."""
    figures = (
        f"{each.gate} {figure(each.candidate)}, champion {figure(each.champion)}" for each in judgement.failed
    )
    return f"fails on stored outcomes: {'; '.join(figures)}"
