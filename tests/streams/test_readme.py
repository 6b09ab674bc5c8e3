"""The README's examples, read out of it and run."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from streams.contract.codecs import LabelDecoder, TransactionDecoder
from streams.contract.records import Label, Transaction
from streams.demo_tally import Tally, summary
from tests.streams.clients import new_topic, publish, read
from tests.streams.sources import Source

README = (Path(__file__).parents[2] / "README.md").read_text()
#: Between a record's time and the test's look at the clock, in milliseconds.
NOW = 60_000


def shell_records() -> list[tuple[bytes, bytes]]:
    """Key and value of the records that the shell examples publish, as the shell makes them."""
    commands = re.findall(r"^(echo '.*) \\$", README, re.MULTILINE)
    printed = [subprocess.check_output(["sh", "-c", command]) for command in commands]
    return [(key, value.rstrip(b"\n")) for key, _, value in (line.partition(b":") for line in printed)]


def accepted(decoder: TransactionDecoder | LabelDecoder, key: bytes, value: bytes) -> Transaction | Label:
    decoded = decoder.decode([Source(value, key)])
    assert not decoded.rejected
    assert not decoded.unknown_fields
    record: Transaction | Label = decoded.records[0]
    return record


def test_shell_examples_are_good_records_of_now() -> None:
    """The transaction and the label of the shell examples are accepted, and their times are the clock's."""
    transaction, label = shell_records()
    sent, reported = accepted(TransactionDecoder(), *transaction), accepted(LabelDecoder(), *label)
    assert isinstance(sent, Transaction)
    assert isinstance(reported, Label)
    assert abs(sent.event_time - time.time() * 1000) < NOW
    assert abs(reported.labelled_at - time.time() * 1000) < NOW


@pytest.mark.broker
def test_the_python_example_publishes_and_consumes(broker: str) -> None:
    """The program sends a good transaction of now and prints the scores that there are."""
    (program,) = (part.split("```")[0] for part in README.split("```python\n")[1:])
    topics = {name: asyncio.run(new_topic(broker, 1)) for name in ("transactions", "scores", "alerts")}
    for name, topic in topics.items():
        assert f"fraud.{name}.v1" in program
        program = program.replace(f"fraud.{name}.v1", topic)
    program = program.replace("localhost:9092", broker)
    asyncio.run(publish(broker, topics["scores"], {0: [b'{"score": 0.25}']}))
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.splitlines() == [f"{topics['scores']} {{'score': 0.25}}"]
    (value,) = asyncio.run(read(broker, topics["transactions"], 0, 1))
    key = msgspec.json.decode(value)["card_id"].encode()
    sent = accepted(TransactionDecoder(), key, value)
    assert isinstance(sent, Transaction)
    assert abs(sent.event_time - time.time() * 1000) < NOW


def test_the_fields_of_the_demo_s_summary_are_explained() -> None:
    """Every field that `demo --json` prints is named in the paragraph about it."""
    (paragraph,) = re.findall(r"^`--json` prints the summary.*?\n\n", README, re.MULTILINE | re.DOTALL)
    fields = summary(Tally(), set(), Counter(), 1.0, 1.0)
    assert [name for name in fields if f"`{name}`" not in paragraph] == []
