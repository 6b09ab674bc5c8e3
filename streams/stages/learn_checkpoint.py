"""What the learn stage keeps over a restart, in one piece.

All but the learners is plain MessagePack. Each learner is a pickle of its own, which is loaded only into the
libraries that wrote it and only if its slot still is what it was. Loading a pickle runs what it says: write
access to the learn-state topic must be restricted to the learn stage.
"""

from __future__ import annotations

import heapq
import json
import logging
import pickle
import platform
from collections.abc import Callable

import msgspec
import numpy as np
import river

from models.learners.base import Learner
from streams.sections import Models
from streams.stages.learn_core import LearnState

logger = logging.getLogger(__name__)

FORMAT = "fraudstream-learn-1"


def libraries() -> dict[str, str]:
    """Versions of what the pickled learners are made of."""
    return {
        "river": river.__version__,
        "numpy": np.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def slot_terms(models: Models) -> dict[str, str]:
    """What a learner depends on besides the feature spec, by model name."""
    return {
        slot.name: json.dumps([slot.kind, slot.options, slot.negative_rate], sort_keys=True)
        for slot in (models.champion, *models.shadows)
    }


class _Saved(msgspec.Struct):
    format: str
    libraries: dict[str, str]
    spec_digest: str
    slots: dict[str, str]
    next_offset: int
    versions: dict[str, int]
    learned: dict[str, int]
    refused: dict[str, int]
    watermarks: dict[int, int]
    clock: int
    published_at: int
    waiting: list[tuple[int, int, bool, int, bytes]]
    seen: dict[int, bool]
    learners: dict[str, bytes]


class LearnCheckpoint:
    """A `PartitionState` around a `LearnState`.

    Args:
        fresh: makes the state of a stage that has seen nothing.
        spec_digest: of the feature spec whose columns the learners learn.
        slots: `slot_terms` of the settings.
    """

    buckets = 1

    def __init__(self, fresh: Callable[[], LearnState], spec_digest: str, slots: dict[str, str]) -> None:
        self._fresh = fresh
        self._spec_digest = spec_digest
        self._slots = slots
        self.state = fresh()
        self.next_offset = 0

    def apply(self, delta: bytes) -> None:
        raise NotImplementedError("the learn stage writes no deltas")

    def dump(self, bucket: int) -> bytes:
        state = self.state
        return msgspec.msgpack.encode(
            _Saved(
                format=FORMAT,
                libraries=libraries(),
                spec_digest=self._spec_digest,
                slots=self._slots,
                next_offset=self.next_offset,
                versions=state.versions,
                learned=state.learned,
                refused=state.refused,
                watermarks=state.watermarks,
                clock=state.clock,
                published_at=state.published_at,
                waiting=state.waiting,
                seen=state.seen,
                learners={
                    name: pickle.dumps(learner, protocol=pickle.HIGHEST_PROTOCOL)
                    for name, learner in state.learners.items()
                },
            )
        )

    def load(self, bucket: int, data: bytes) -> None:
        """Take over what still fits the settings; version numbers go on rising in any case.

        Raises:
            ValueError: not a checkpoint of this format.
        """
        try:
            saved = msgspec.msgpack.decode(data, type=_Saved)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a checkpoint of learners: {error}") from error
        if saved.format != FORMAT:
            raise ValueError(f"a checkpoint of format {saved.format!r}, this version reads {FORMAT!r}")
        state = self._fresh()
        state.versions |= saved.versions
        state.watermarks |= saved.watermarks
        state.clock, state.published_at, state.seen = saved.clock, saved.published_at, saved.seen
        for name in self._kept(saved):
            state.learners[name] = self._unpickle(name, saved.learners[name])
            state.learned[name] = saved.learned[name]
            state.refused[name] = saved.refused[name]
        if saved.spec_digest == self._spec_digest:
            state.waiting = _waiting(state, saved.waiting)
        self.state, self.next_offset = state, saved.next_offset

    def _kept(self, saved: _Saved) -> list[str]:
        """The models whose learners go on; says in the log which of the others start anew, and why."""
        if saved.spec_digest != self._spec_digest:
            logger.warning(
                "all learners start anew: the feature spec was %s and is %s",
                saved.spec_digest,
                self._spec_digest,
            )
            return []
        if saved.libraries != libraries():
            logger.warning(
                "all learners start anew: the checkpoint is of %s, this is %s", saved.libraries, libraries()
            )
            return []
        kept = [name for name, terms in self._slots.items() if saved.slots.get(name) == terms]
        for name in self._slots.keys() - set(kept):
            logger.warning("model %s starts anew: its slot is new or was changed", name)
        for name in saved.slots.keys() - self._slots.keys():
            logger.warning("model %s is no longer in the settings: its learner is dropped", name)
        return kept

    @staticmethod
    def _unpickle(name: str, data: bytes) -> Learner:
        learner = pickle.loads(data)  # noqa: S301 -- the topic is the stage's own, see above
        if not isinstance(learner, Learner):
            raise ValueError(f"model {name}: holds a {type(learner).__name__}, not a learner")
        return learner


def _waiting(
    state: LearnState, waiting: list[tuple[int, int, bool, int, bytes]]
) -> list[tuple[int, int, bool, int, bytes]]:
    """The outcomes with the masks of the learners that there are now, as a heap.

    What no former learner wanted was not kept, and is missing for a new one that samples more.
    """
    wanted = state.wants(
        np.array([item[1] for item in waiting], np.uint64), np.array([item[2] for item in waiting], np.bool_)
    ).tolist()
    kept = [
        (known_at, transaction, fraud, mask, features)
        for (known_at, transaction, fraud, _, features), mask in zip(waiting, wanted, strict=True)
        if mask
    ]
    heapq.heapify(kept)
    return kept
