"""What the learn stage keeps over a restart, in one piece.

All but the learners is plain MessagePack. Each learner is a pickle of its own, which is loaded only into the
libraries that wrote it and only if its slot still is what it was. Loading a pickle runs what it says, so the
whole is signed where a key is configured (`models.checkpoint_key_file`); without one, write access to the
learn-state topic must be restricted to the learn stage.
"""

from __future__ import annotations

import heapq
import json
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Self

import msgspec
import numpy as np

from models.learners import checkpoint
from models.scorers.base import FrozenScorer
from models.scorers.registry import SCORERS
from models.version_check import VersionCheck
from models.yardstick import Sample, Yardstick
from streams.errors import StateMismatch
from streams.sections import Models
from streams.stages.learn_core import MATURED, LearnState, Waiting

logger = logging.getLogger(__name__)

FORMAT = "fraudstream-learn-4"


def slot_terms(models: Models) -> dict[str, str]:
    """What a learner depends on besides the feature spec, by model name."""
    terms = {}
    for slot in (models.champion, *models.shadows):
        drift = [] if slot.drift is None else [slot.drift.model_dump()]
        terms[slot.name] = json.dumps([slot.kind, slot.options, slot.negative_rate, *drift], sort_keys=True)
    return terms


class _Scorer(msgspec.Struct, array_like=True):
    """A scorer of a version, as it is and not as it travels: compressed by nobody, checked by the whole."""

    version: int
    kind: str
    header: dict[str, int | float | str]
    arrays: dict[str, tuple[str, list[int], bytes]]

    @classmethod
    def of(cls, version: int, scorer: FrozenScorer) -> Self:
        header, arrays = scorer.to_arrays()
        packed = {
            name: (each.dtype.str, list(each.shape), np.ascontiguousarray(each).tobytes())
            for name, each in arrays.items()
        }
        return cls(version, scorer.kind, header, packed)

    def scorer(self) -> FrozenScorer:
        arrays = {
            name: np.frombuffer(data, np.dtype(code)).reshape(shape)
            for name, (code, shape, data) in self.arrays.items()
        }
        return SCORERS[self.kind].from_arrays(self.header, arrays)


class _Check(msgspec.Struct):
    """A `VersionCheck`."""

    days: dict[int, Sample] = {}
    best: dict[str, _Scorer] = {}
    taken: dict[str, int] = {}

    @classmethod
    def of(cls, check: VersionCheck) -> Self:
        best = {name: _Scorer.of(version, scorer) for name, (version, scorer) in check.best.items()}
        return cls(check.yardstick.days, best, check.taken)

    def check(self, kept: Collection[str]) -> VersionCheck:
        """A learner that starts anew is not measured by what another one had learned."""
        best = {name: (saved.version, saved.scorer()) for name, saved in self.best.items() if name in kept}
        return VersionCheck(Yardstick(self.days), best, self.taken)


class _Saved(msgspec.Struct):
    format: str
    slots: dict[str, str]
    next_offset: int
    versions: dict[str, int]
    parents: dict[str, int]
    learned: dict[str, int]
    refused: dict[str, int]
    watermarks: dict[int, int]
    clock: int
    published_at: int
    waiting: list[Waiting]
    arrived: int
    seen: dict[int, bool]
    judged: dict[int, bool]
    learners: dict[str, bytes]
    verdicts: dict[int, dict[str, int]] = {}
    remembered: tuple[list[int], list[int]] = ([], [])
    check: _Check = msgspec.field(default_factory=_Check)


class LearnCheckpoint:
    """A `PartitionState` around a `LearnState`.

    Args:
        fresh: makes the state of a stage that has seen nothing.
        slots: `slot_terms` of the settings.
        key: signs what is dumped and loaded; empty for unsigned.
    """

    buckets = 1

    def __init__(self, fresh: Callable[[], LearnState], slots: dict[str, str], key: bytes = b"") -> None:
        self._fresh = fresh
        self._slots = slots
        self._key = key
        self.state = fresh()
        self.next_offset = 0
        self._numbered: set[str] = set()

    def number_from(self, highest: Mapping[str, int]) -> bool:
        """Models that the checkpoint knows nothing of number their versions after those on the models topic.

        Scorers take higher versions only. Of a model that the checkpoint knows, versions above its own were
        published after it, and come again with the same numbers.

        Args:
            highest: version on the models topic, by model name.

        Returns:
            whether there are such models: their numbers must be saved before the next version is published.
        """
        new = self.state.versions.keys() - self._numbered
        self.state.versions |= {name: highest.get(name, 0) for name in new}
        return bool(new)

    def apply(self, delta: bytes) -> None:
        raise NotImplementedError("the learn stage writes no deltas")

    def dump(self, bucket: int) -> bytes:
        state = self.state
        document = msgspec.msgpack.encode(
            _Saved(
                format=FORMAT,
                slots=self._slots,
                next_offset=self.next_offset,
                versions=state.versions,
                parents=state.parents,
                learned=state.learned,
                refused=state.refused,
                watermarks=state.watermarks,
                clock=state.clock,
                published_at=state.published_at,
                waiting=state.waiting,
                arrived=state.arrived,
                seen=state.seen,
                judged=state.judged,
                learners={name: checkpoint.dump(learner) for name, learner in state.learners.items()},
                verdicts=state.floods.counts,
                remembered=state.floods.remembered,
                check=_Check.of(state.check),
            )
        )
        return checkpoint.seal(document, self._key)

    def load(self, bucket: int, data: bytes) -> None:
        """Take over what still fits the settings; version numbers go on rising in any case.

        Raises:
            StateMismatch: it is not signed as it has to be.
            ValueError: not a checkpoint of this format.
        """
        try:
            document = checkpoint.unseal(data, self._key)
        except checkpoint.CheckpointError as error:
            raise StateMismatch(
                f"the learn stage's state: {error}; set models.checkpoint_key_file to the key that it was "
                "written with, or start with fresh internal topics (topics.internal_prefix)"
            ) from None
        try:
            saved = msgspec.msgpack.decode(document, type=_Saved)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a checkpoint of learners: {error}") from error
        if saved.format != FORMAT:
            raise ValueError(f"a checkpoint of format {saved.format!r}, this version reads {FORMAT!r}")
        state = self._fresh()
        state.versions |= saved.versions
        state.watermarks |= saved.watermarks
        state.clock, state.published_at = saved.clock, saved.published_at
        state.arrived, state.seen, state.judged = saved.arrived, saved.seen, saved.judged
        state.floods.restore(saved.verdicts, saved.remembered)
        gone_on = []
        for name in self._kept(saved):
            try:
                state.learners[name] = checkpoint.load(saved.learners[name])
            except checkpoint.OtherVersions as error:
                logger.warning("model %s starts anew: %s", name, error)
                continue
            gone_on.append(name)
            state.learned[name] = saved.learned[name]
            if name in saved.parents:
                state.parents[name] = saved.parents[name]
            state.refused[name] = saved.refused[name]
        state.check = saved.check.check(gone_on)
        state.waiting = _waiting(state, saved.waiting)
        if not state.apart:
            state.judged = {}
        self.state, self.next_offset = state, saved.next_offset
        self._numbered = set(saved.versions)

    def _kept(self, saved: _Saved) -> list[str]:
        """The models whose learners go on; says in the log which of the others start anew, and why."""
        kept = [name for name, terms in self._slots.items() if saved.slots.get(name) == terms]
        for name in self._slots.keys() - set(kept):
            logger.warning("model %s starts anew: its slot is new or was changed", name)
        for name in saved.slots.keys() - self._slots.keys():
            logger.warning("model %s is no longer in the settings: its learner is dropped", name)
        return kept


def _waiting(state: LearnState, waiting: list[Waiting]) -> list[Waiting]:
    """The outcomes with the masks of the learners that there are now, as a heap.

    What no former learner wanted was not kept, and is missing for a new one that samples more.
    """
    wanted = state.wants(
        np.array([item.transaction for item in waiting], np.uint64),
        np.array([item.fraud for item in waiting], np.bool_),
    ).tolist()
    kept = []
    for item, mask in zip(waiting, wanted, strict=True):
        alert = item.feedback_weight > 0.0
        if state.apart if item.kind == MATURED else mask or (state.apart and alert):
            kept.append(item._replace(wanted=mask))
    heapq.heapify(kept)
    return kept
