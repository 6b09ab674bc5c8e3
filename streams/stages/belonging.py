"""Whether restored state fits the settings and the topic that it was made from."""

from __future__ import annotations

from collections.abc import Mapping

from streams.errors import StateMismatch
from streams.kafka.ends import log_ends
from streams.kafka.identity import Identity
from streams.stages.context import StageContext


def identity(context: StageContext, source: str) -> Identity:
    """Of the state of a stage whose offsets are those of the topic `source` of the catalogue."""
    return Identity(spec=context.spec.digest, partitions=context.partitions, source=context.name(source))


async def require_applied(context: StageContext, source: str, applied: Mapping[int, int]) -> None:
    """Refuse state that has applied more than there is: every new record would be taken for an old one.

    Args:
        source: topic of the catalogue.
        applied: offset up to which the state has seen each partition, the first one not seen.

    Raises:
        StateMismatch: a partition ends before that; its topic was deleted and created anew, or has lost data.
    """
    topic = context.name(source)
    ends = await log_ends(context.settings.broker, topic, {p: at for p, at in applied.items() if at > 0})
    for partition, end in sorted(ends.items()):
        if applied[partition] > end:
            raise StateMismatch(
                f"{topic}[{partition}] ends at offset {end}, its state has applied it up to "
                f"{applied[partition]}: the topic was created anew or has lost records. Start with fresh "
                "internal topics: set another topics.internal_prefix, then `fraudstream topics create`"
            )
