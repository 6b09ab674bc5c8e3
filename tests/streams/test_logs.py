"""What of the log reaches a person: a few lines of a kind, none of routine, tracebacks where they help."""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging

from aiokafka import client
from aiokafka.consumer import fetcher, group_coordinator
from aiokafka.producer import sender
from mode import threads

from streams.errors import FraudstreamError
from streams.logs import AWAY_ERRORS, AWAY_WARNINGS, HEALING, Throttle, readable, soften


def record(name: str, template: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, None)
    return logging.LogRecord(name, logging.WARNING, __file__, 1, template, args, info)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_of_a_library_is_a_line_with_a_count() -> None:
    """One message of a template passes in a period; the next period's first tells how many were left out."""
    clock = Clock()
    throttle = Throttle(seconds=10, clock=clock)
    passed = [throttle.filter(record("aiokafka", "no connection to %s", node)) for node in range(261)]
    assert passed == [True, *[False] * 260]
    clock.now = 9.9
    assert not throttle.filter(record("aiokafka", "no connection to %s", 1))
    clock.now = 10.0
    later = record("aiokafka", "no connection to %s", 7)
    assert throttle.filter(later)
    assert later.getMessage() == "no connection to 7 (261 more like it left out before)"
    clock.now = 20.0
    last = record("aiokafka", "no connection to %s", 8)
    assert throttle.filter(last)
    assert last.getMessage() == "no connection to 8"


def test_other_messages_pass_beside_a_flood() -> None:
    """Another logger, level or template is another kind; of our own lines several pass."""
    throttle = Throttle(clock=Clock())
    assert throttle.filter(record("aiokafka", "a"))
    assert not throttle.filter(record("aiokafka", "a"))
    assert throttle.filter(record("aiokafka", "b"))
    assert throttle.filter(record("aiokafka.consumer", "a"))
    ours = [throttle.filter(record("streams.stages.learn", "model %s starts anew", n)) for n in range(6)]
    assert ours == [True] * 4 + [False] * 2


def test_what_a_broker_that_is_away_causes_is_of_one_kind() -> None:
    """Every client says of each of its tries what has failed: one line stands for all of it."""
    throttle = Throttle(clock=Clock())
    names = ("aiokafka", "aiokafka.consumer.fetcher", "aiokafka.producer.sender")
    said = [record(name, template) for template in AWAY_ERRORS + AWAY_WARNINGS for name in names]
    said += [record("aiokafka", AWAY_ERRORS[0])]
    assert [throttle.filter(each) for each in said] == [True, *[False] * (len(said) - 1)]
    assert throttle.filter(record("aiokafka", "Heartbeat failed: %r"))


def test_templates_with_values_in_them_do_not_pile_up() -> None:
    """Of messages that are all different a bounded number is remembered."""
    throttle = Throttle(clock=Clock())
    for number in range(3_000):
        assert throttle.filter(record("mode", f"task {number}"))
    assert len(throttle._kinds) == 1_000


def test_a_rebalance_that_goes_as_it_should_says_nothing() -> None:
    """aiokafka's warning at every join and leave is dropped, that a worker was thrown out is not."""
    name = "aiokafka.consumer.group_coordinator"
    assert not readable(record(name, "Heartbeat failed for group %s because it is rebalancing", "card"))
    assert readable(record(name, "Heartbeat failed for group %s: generation id is not  current.", "card"))


def test_errors_raised_on_purpose_are_said_at_the_end_only() -> None:
    """On their way up they say nothing, the command says them in a line; others keep their traceback."""
    error = FraudstreamError("start it")
    assert not readable(record("streams.x", "preparing %d partitions failed", 3, error=error))
    assert not readable(record("faust.app.base", "Crashed reason=%r", error, error=error))
    bug = record("streams.x", "fetching failed", error=KeyError("x"))
    assert readable(bug)
    assert bug.exc_info is not None


def test_cancelled_tasks_of_libraries_say_nothing() -> None:
    """That Faust's agent was cancelled at the end is no news; a task of ours that was is."""
    assert not readable(record("faust.agents.actor", "Crashed", error=asyncio.CancelledError()))
    assert readable(record("streams.worker", "Crashed", error=asyncio.CancelledError()))


def test_what_heals_by_itself_is_a_warning() -> None:
    """A connection that is made again; an error that is none of those stays one, and everything is logged."""
    name = "aiokafka.consumer.group_coordinator"
    for template, level in ((HEALING[1], logging.WARNING), ("Heartbeat failed: %r", logging.ERROR)):
        said = record(name, template, "x")
        said.levelno, said.levelname = logging.ERROR, "ERROR"
        assert soften(said)
        assert (said.levelno, said.levelname) == (level, logging.getLevelName(level))


def test_what_heals_is_what_libraries_say() -> None:
    """In the versions that are installed: one that is worded anew would be an error again."""
    modules = (client, fetcher, group_coordinator, sender, threads)
    said = {
        node.value
        for module in modules
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert {*HEALING, *AWAY_WARNINGS} <= said
