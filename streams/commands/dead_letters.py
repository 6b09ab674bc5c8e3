"""`fraudstream dead-letters list` and `dead-letters redrive`."""

from __future__ import annotations

import json
from collections import Counter, deque
from contextlib import aclosing
from typing import TYPE_CHECKING

import click
import msgspec

from streams.commands.options import DATE, examples, moment, run_async, with_settings
from streams.commands.tables import printable, row, show, table
from streams.contract.rejections import CODES
from streams.settings import Settings
from streams.times import rfc3339

if TYPE_CHECKING:
    from streams.contract.redrive import DeadLetter, Redriven

_SLICE = 500
_REASONS = {
    "filtered": "not asked for (--code, --before)",
    "repeated": "the same as another dead letter, the last attempt of which counts",
    "redacted": "redacted: the original bytes are gone, ask the producer",
    "truncated": "cut: the original bytes are gone, ask the producer",
    "attempts": "given up: failed --max-attempts times",
    "source": "not from an input topic of these settings",
}


@click.group("dead-letters")
def dead_letters() -> None:
    """Records that could not be used, and why."""


@dead_letters.command(
    "list",
    short_help="Print the dead letters, the latest last, and counts by code.",
    epilog=examples("dead-letters list --limit 5", "dead-letters list --json | jq .by_code"),
)
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="Show the latest so many."
)
@with_settings(data=True)
def list_(settings: Settings, limit: int, as_json: bool) -> None:
    """Print the dead letters that are on the topic, the latest last, and how many there are of each code.

    A line has the time, the code, what was wrong, where the record was read (topic[partition]@offset) and how
    often it has failed. Payloads are not shown. docs/records.md says what to do about each code.
    """
    letters, by_code = run_async(_read(settings, limit))
    if as_json:
        document = {
            "total": by_code.total(),
            "by_code": dict(by_code.most_common()),
            "dead_letters": [msgspec.structs.asdict(letter) for letter in letters],
        }
        click.echo(json.dumps(document))
        return
    listed = table("time", "code", "attempt", "source", "message")
    for each in letters:
        source = f"{each.source_topic}[{each.source_partition}]@{each.source_offset}"
        gone = " (redacted)" if each.redacted else " (cut)" if each.truncated or each.headers_dropped else ""
        row(listed, rfc3339(each.time)[:19] + "Z", each.code, each.attempt, source, each.message + gone)
    if letters:
        show(listed)
    click.echo(f"{by_code.total()} dead letters on {settings.topics.dead_letters}, {len(letters)} shown")
    for code, count in by_code.most_common():
        click.echo(f"{count:>8}  {printable(code)}: {CODES.get(code, 'unknown here')}")


def _known_codes(_ctx: click.Context, _param: click.Parameter, codes: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [code for code in codes if code not in CODES]:
        raise click.BadParameter(f"unknown: {', '.join(unknown)}; known are {', '.join(CODES)}")
    return codes


async def _read(settings: Settings, limit: int) -> tuple[list[DeadLetter], Counter[str]]:
    from streams.contract.redrive import describe
    from streams.kafka.clients import read_all

    # By partition: the latest of all are among the latest of each.
    latest: dict[int, deque[DeadLetter]] = {}
    by_code: Counter[str] = Counter()
    async with aclosing(read_all(settings.broker, settings.topics.dead_letters)) as records:
        async for record in records:
            letter = describe(record)
            latest.setdefault(letter.partition, deque(maxlen=limit)).append(letter)
            by_code[letter.code] += 1
    letters = [letter for partition in latest.values() for letter in partition]
    return sorted(letters, key=lambda each: (each.time, each.partition, each.offset))[-limit:], by_code


@dead_letters.command(
    short_help="Publish the original records again, where they came from.",
    epilog=examples(
        "dead-letters redrive --dry-run",
        "dead-letters redrive --code attribute_missing --before 2026-03-01T12:00:00",
        "dead-letters redrive --limit 10 --json",
    ),
)
@click.option(
    "--code",
    "codes",
    multiple=True,
    metavar="CODE",
    callback=_known_codes,
    help="Only dead letters with this code (docs/records.md); may be repeated.",
)
@click.option("--limit", type=click.IntRange(1), help="Publish at most so many.")
@click.option(
    "--max-attempts",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Give up what failed so often.",
)
@click.option(
    "--before", type=DATE, callback=moment, help="Only what was dead-lettered before this time (UTC)."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, publish nothing.")
@with_settings(data=True)
def redrive(
    settings: Settings,
    codes: tuple[str, ...],
    limit: int | None,
    max_attempts: int,
    before: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish the original records again, where they came from, after the cause has been removed.

    What was redacted or cut cannot be published again; it is skipped and counted. A record that fails again
    comes back as a dead letter with one more attempt, and is given up after --max-attempts. Dead letters stay
    on their topic, so a second run publishes again what the first one did; a transaction scored by then
    counts as a duplicate.
    """
    done = run_async(_redrive(settings, codes, limit, max_attempts, before, dry_run))
    if as_json:
        document = {"dry_run": dry_run, "published": done.published.total()}
        by_topic = {"published_by_topic": dict(done.published), "skipped": dict(done.skipped)}
        click.echo(json.dumps(document | by_topic))
        return
    verb = "would publish" if dry_run else "published"
    count = done.published.total()
    click.echo(f"{verb} {count} {'record' if count == 1 else 'records'} again")
    for topic, each in sorted(done.published.items()):
        click.echo(f"{each:>8}  to {topic}")
    for reason, each in done.skipped.most_common():
        click.echo(f"{each:>8}  skipped, {_REASONS[reason]}")


async def _redrive(
    settings: Settings,
    codes: tuple[str, ...],
    limit: int | None,
    max_attempts: int,
    before: int | None,
    dry_run: bool,
) -> Redriven:
    from streams.contract.redrive import Plan, Redriven, Selection, output
    from streams.kafka.clients import admin_client, connect, read_all
    from streams.kafka.connection import security_options
    from streams.kafka.outputs import Output, Outputs

    broker, topic = settings.broker, settings.topics.dead_letters
    inputs = (settings.topics.transactions, settings.topics.labels, settings.topics.feedback)
    async with admin_client(broker) as admin:
        found = {each["topic"]: len(each["partitions"]) for each in await admin.describe_topics()}
    selection = Selection({name: found.get(name, 0) for name in inputs}, codes, before, max_attempts)
    plan = Plan(selection)
    async with aclosing(read_all(broker, topic)) as records:
        async for record in records:
            plan.add(record)
    done = Redriven()
    waiting: list[Output] = []
    outputs = Outputs(broker.bootstrap, security=security_options(broker))
    await connect(outputs, outputs.stop, broker)
    try:
        async with aclosing(read_all(broker, topic, plan.ends)) as records:
            async for record in records:
                reason = plan.skipped(record)
                if reason is not None:
                    done.skipped[reason] += 1
                    continue
                again = output(record)
                done.published[again.topic] += 1
                if not dry_run:
                    waiting.append(again)
                if len(waiting) == _SLICE:
                    await outputs.send(waiting)
                    waiting = []
                if done.published.total() == limit:
                    break
        await outputs.send(waiting)
    finally:
        await outputs.stop()
    return done
