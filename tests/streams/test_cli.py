"""The commands against a broker: what they print, what they publish, how they end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from click.testing import CliRunner, Result

from models.scorers.rules import RulesScorer
from models.snapshot import encode as encode_snapshot
from models.snapshot import make
from models.spec import FeatureSpec
from streams.cli import main
from streams.commands import admin
from streams.contract.dead_letters import ATTEMPT, dead_letter
from streams.contract.model_records import model_key
from streams.contract.records import Alert, ModelRef, Reason, Rejection
from streams.errors import BrokerUnreachable
from streams.kafka.clients import admin_client
from streams.kafka.outputs import Output, Outputs, partition_for
from streams.sections import TOPIC_KEYS, Broker
from streams.settings import load
from streams.times import rfc3339
from tests.streams.clients import read, unique

TIME = 1_735_689_600_000
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.broker


class Source(msgspec.Struct):
    """A consumed record as `dead_letter` reads it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Cli:
    """Runs commands on topics of its own."""

    def __init__(self, broker: str, prefix: str) -> None:
        self.broker, self.prefix = broker, prefix
        self.environment = {
            **{f"FRAUD_TOPICS__{key.upper()}": f"{prefix}.{key}" for key in TOPIC_KEYS},
            "FRAUD_TOPICS__INTERNAL_PREFIX": f"{prefix}.internal",
            "FRAUD_TOPICS__PARTITIONS": "2",
            "FRAUD_BROKER__BOOTSTRAP": broker,
        }

    def __call__(self, *arguments: str, **more: str) -> Result:
        return CliRunner().invoke(main, arguments, env={**self.environment, **more}, catch_exceptions=False)

    def document(self, *arguments: str) -> dict[str, object]:
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.output
        document: dict[str, object] = json.loads(result.stdout)
        return document

    def topic(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    def publish(self, *records: Output) -> None:
        async def send() -> None:
            async with Outputs(self.broker) as outputs:
                await outputs.send(records)

        asyncio.run(send())


@pytest.fixture
def cli(broker: str) -> Cli:
    made = Cli(broker, unique("cli"))
    assert made("topics", "create").exit_code == 0
    return made


def alert(number: int) -> Alert:
    return Alert(
        alert_id=f"a{number}", transaction_id=f"t{number}", card_id="c\x1b[31m", terminal_id="s",
        event_time=TIME, scored_at=TIME, amount_minor=1234, currency="EUR", score=0.9, threshold=0.5,
        alert=True, arm="champion", model=ModelRef("binned", 3),
        shadows=[], spec="", config="", control_group=False, propensity=1.0,
        reasons=[Reason("amount", 12.34, 1.5)],
    )  # fmt: skip


def letter(
    cli: Cli, number: int, *, code: str = "bad_json", attempts: int = 0, value: bytes = b"{", topic: str = ""
) -> Output:
    topic = topic or cli.topic("transactions")
    headers = [("trace", b"abc"), *([(ATTEMPT, b"%d" % attempts)] if attempts else [])]
    source = Source(topic, 1, number, TIME, b"k%d" % number, value, headers)
    return dead_letter(source, Rejection(code, "not one JSON value"), cli.topic("dead_letters"), stage="card")


def test_topics_are_listed_whole_in_a_pipe(cli: Cli) -> None:
    """Names are printed in full where there is no terminal, and creating twice creates nothing."""
    listed = cli("topics", "list")
    for key in TOPIC_KEYS:
        assert cli.topic(key) in listed.stdout
    assert f"{cli.prefix}.internal.known-frauds.v1" in listed.stdout
    assert cli.document("topics", "create") == {"created": []}


def test_alerts_are_printed_with_reasons(cli: Cli) -> None:
    """`alerts tail` prints one line an alert, harmless to a terminal, and stops at the limit."""
    cli.publish(*(Output(cli.topic("alerts"), 0, b"c", msgspec.json.encode(alert(n))) for n in range(3)))
    shown = cli("alerts", "tail", "--from-beginning", "--limit", "2")
    assert shown.exit_code == 0
    first, second = shown.stdout.splitlines()
    assert "score 0.900" in first
    assert "12.34 EUR" in first
    assert "amount=12.34 (+1.50)" in first
    assert "\x1b" not in first
    assert "alert a1 " in second
    as_json = cli("alerts", "tail", "--from-beginning", "--limit", "3", "--json")
    assert [json.loads(line)["alert_id"] for line in as_json.stdout.splitlines()] == ["a0", "a1", "a2"]


def test_dead_letters_are_listed_without_payload(cli: Cli) -> None:
    """`dead-letters list` reads to the end, shows the latest, counts all, and shows no payload."""
    cli.publish(*(letter(cli, n, value=b"secret%d" % n) for n in range(5)), letter(cli, 5, code="field_type"))
    document = cli.document("dead-letters", "list", "--limit", "2")
    assert document["total"] == 6
    assert document["by_code"] == {"bad_json": 5, "field_type": 1}
    latest = document["dead_letters"]
    assert isinstance(latest, list)
    assert [(each["source_offset"], each["attempt"]) for each in latest] == [(4, 1), (5, 1)]
    text = cli("dead-letters", "list").stdout
    assert f"{cli.topic('transactions')}[1]@3" in text
    assert "secret" not in text


def test_redrive_publishes_the_original_bytes(cli: Cli, broker: str) -> None:
    """What can go back goes back once, to where it came from; the rest is counted by reason."""
    cli.publish(
        letter(cli, 0, value=b"first"),
        letter(cli, 1, value=b"again"),
        letter(cli, 1, value=b"again", attempts=1),
        letter(cli, 2, value=b"hopeless", attempts=2),
        letter(cli, 3, value=b'{"card_id":"4111111111111111"}', code="card_number"),
        letter(cli, 4, value=b"other", code="field_type"),
        letter(cli, 5, value=b"strange", topic="somebody-elses"),
    )
    options = ("dead-letters", "redrive", "--code", "bad_json", "--code", "card_number")
    planned = cli.document(*options, "--dry-run")
    done = cli.document(*options)
    assert (planned["published"], done["published"]) == (2, 2)
    assert done["skipped"] == {"repeated": 1, "attempts": 1, "redacted": 1, "filtered": 1, "source": 1}
    assert asyncio.run(read(broker, cli.topic("transactions"), 1, 2)) == [b"first", b"again"]
    assert cli("dead-letters", "redrive", "--before", "2001-01-01").stdout.startswith("published 0")
    refused = cli("dead-letters", "redrive", "--code", "UNKNOWN")
    assert refused.exit_code == 2
    assert "unknown: UNKNOWN; known are value_empty, " in refused.stderr


def history(directory: Path, n: int) -> Path:
    """A JSONL history of `n` transactions, the first of them a fraud."""
    file = directory / "history.jsonl"
    rows = [
        {"transaction_id": f"t{n}", "card_id": f"c{n}", "terminal_id": "s", "event_time": TIME + n,
         "amount_minor": 100, "currency": "EUR", "fraud": n == 0}
        for n in range(n)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_replay_publishes_transactions_and_labels(cli: Cli, tmp_path: Path) -> None:
    """`replay` publishes a file and says how much; two paces at once are wrong usage."""
    file = history(tmp_path, 20)
    first = cli("replay", str(file), "--label-delay", "1d", "--json")
    assert first.stderr == ""
    summary = json.loads(first.stdout)
    assert (summary["transactions"], summary["labels"], summary["first_event_time"]) == (20, 1, TIME)
    again = cli("replay", str(file), "--label-delay", "30d", "--json")
    assert json.loads(again.stdout)["transactions"] == 20
    late, repeated = again.stderr.splitlines()
    assert "--label-delay 30d is longer than labels.maturity (7d)" in late
    assert f"{cli.topic('transactions')} already holds 20 records" in repeated
    assert cli("replay", str(file), "--rate", "1", "--speed", "1").exit_code == 2
    assert cli("replay", str(file), "--label-delay", "soon").exit_code == 2
    missing = cli("replay", str(file), FRAUD_TOPICS__LABELS="nowhere")
    assert missing.exit_code == 1
    assert "topics create" in missing.stderr


def test_a_backtest_of_nothing_says_so(cli: Cli, tmp_path: Path) -> None:
    """Dates that leave nothing to evaluate are warned of with what there is; reversed ones are refused."""
    file = str(history(tmp_path, 20))
    empty = cli("backtest", file, "--from", "2030-01-01", "--json")
    assert json.loads(empty.stdout)["evaluated"] == 0
    assert "nothing to evaluate" in empty.stderr
    assert rfc3339(TIME) in empty.stderr
    assert cli("backtest", file, "--from", "2025-01-02", "--to", "2025-01-01").exit_code == 2


def test_models_are_read_from_their_topic(cli: Cli) -> None:
    """`models` shows the latest version by role, all of one model, one version, and damaged ones as such."""
    spec = FeatureSpec.default()
    for version in (9, 10):
        document = encode_snapshot(
            make(RulesScorer.build(spec.names), name="binned", version=version, spec_digest=spec.digest)
        )
        cli.publish(Output(cli.topic("models"), 0, model_key("binned", version), document))
    assert cli.document("doctor")["ok"] is True
    cli.publish(Output(cli.topic("models"), 0, model_key("forest", 1), b"{}"))
    binned, forest = json.loads(cli("models", "list", "--json").stdout)
    assert (binned["version"], binned["role"], binned["problem"]) == (10, "champion", "")
    assert (forest["role"], forest["problem"] != "") == ("shadow", True)
    assert (binned["learner"], binned["scorer"]) == ("binned_logistic", "rules")
    heading, _, line = cli("models", "list").stdout.strip().splitlines()[:3]
    assert heading.split()[3:5] == ["learner", "scorer"]
    assert line.split()[3:5] == ["binned_logistic", "rules"]
    versions = json.loads(cli("models", "list", "binned", "--json").stdout)
    assert [each["version"] for each in versions] == [9, 10]
    assert cli.document("models", "show", "binned/9")["spec"] == spec.digest
    assert "`models list binned`" in cli("models", "show", "binned/11").stderr
    assert "`models list`" in cli("models", "show", "nothing").stderr
    assert cli("models", "show", "binned/x").exit_code == 2
    doctor = cli("doctor")
    assert doctor.exit_code == 1
    assert "forest v1" in doctor.stdout


def test_doctor_names_the_cure(cli: Cli) -> None:
    """`doctor` fails on missing or other topics, wrong settings and an absent broker, with a cure."""
    missing = cli("doctor", FRAUD_TOPICS__ALERTS=unique("absent"))
    assert missing.exit_code == 1
    assert "fraudstream topics create" in missing.stdout
    assert "set topics.partitions" in cli("doctor", FRAUD_TOPICS__PARTITIONS="3").stdout
    wrong = json.loads(cli("doctor", "--json", FRAUD_POLICY__THRESHOLD="7").stdout)
    assert [each["name"] for each in wrong["checks"] if each["status"] == "failed"] == ["settings"]
    absent = cli("doctor", "--broker", "127.0.0.1:1")
    assert absent.exit_code == 1
    assert "fraudstream broker" in absent.stdout


@pytest.mark.parametrize(
    "command",
    ["topics list", "alerts tail", "dead-letters list", "dead-letters redrive", "models list", "worker"],
)
def test_an_absent_broker_is_one_line(command: str) -> None:
    """Without a broker a command ends with exit code 1 and one line that says what to do."""
    result = CliRunner().invoke(main, [*command.split(), "--broker", "127.0.0.1:1"], catch_exceptions=False)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "127.0.0.1:1" in result.stderr


def test_every_command_has_help() -> None:
    """Each command says what it does; a group's help has a line for each of its own, none cut short."""

    def visit(path: list[str], group: object) -> None:
        for name, command in getattr(group, "commands", {}).items():
            result = CliRunner().invoke(main, [*path, name, "--help"])
            assert result.exit_code == 0
            assert command.help, [*path, name]
            assert not re.search(r"\.\.\.$", result.stdout.partition("Commands:")[2], re.MULTILINE)
            visit([*path, name], command)

    assert "..." not in CliRunner().invoke(main, ["--help"]).stdout.partition("Commands:")[2]
    visit([], main)


def test_topics_create_waits_for_a_broker_that_is_starting(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first command after `fraudstream broker &` does not lose the race; without patience it fails."""
    attempts = []

    @asynccontextmanager
    async def late(section: Broker) -> AsyncIterator[AIOKafkaAdminClient]:
        attempts.append(section)
        if len(attempts) == 1:
            raise BrokerUnreachable("not yet")
        async with admin_client(section) as client:
            yield client

    monkeypatch.setattr(admin, "admin_client", late)
    cli = Cli(broker, unique("starting"))
    assert cli("topics", "create").exit_code == 0
    assert len(attempts) == 2
    attempts.clear()
    with pytest.raises(BrokerUnreachable):
        asyncio.run(admin.create_topics(load(environ=cli.environment), patience=-1.0))


@contextmanager
def running(cli: Cli, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a process of its own, killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", *arguments],
        env={**os.environ, **cli.environment}, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes], number: signal.Signals) -> tuple[int, str]:
    """Exit code and what was on stderr until the end, after a signal."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    return process.returncode, errors.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_tail_ends_on_a_signal(cli: Cli, number: signal.Signals, code: int) -> None:
    """An interrupted `alerts tail` has printed what came until then; it has no end of its own."""
    cli.publish(Output(cli.topic("alerts"), 0, b"c", msgspec.json.encode(alert(0))))
    with running(cli, "alerts", "tail", "--from-beginning", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["alert_id"] == "a0"
        assert ended(process, number) == (code, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_replay_that_is_stopped_was_not_done(
    cli: Cli, broker: str, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """A replay ended by a signal says so by its exit code, without a traceback."""
    file = history(tmp_path, 500)
    with running(cli, "replay", str(file), "--rate", "5") as process:
        first = json.loads(file.read_text().splitlines()[0])["card_id"].encode()
        assert asyncio.run(read(broker, cli.topic("transactions"), partition_for(first, 2), 1))
        assert ended(process, number) == (code, "")


def test_a_worker_says_what_it_does(cli: Cli) -> None:
    """A worker tells where its metrics are, when it is ready and for what, and how it ended; no more."""
    with running(cli, "worker", "--stages", "card,observe", "--metrics-port", "0") as process:
        assert process.stderr is not None
        metrics, ready = process.stderr.readline().decode(), process.stderr.readline().decode()
        found = re.search(r"metrics and health on (http://127\.0\.0\.1:\d+) ", metrics)
        assert found is not None, metrics
        assert ready.endswith(": ready: card 2, observe 6 partitions\n")
        with urllib.request.urlopen(f"{found[1]}/readyz", timeout=5) as answer:
            assert answer.status == 200
        exit_code, rest = ended(process, signal.SIGINT)
    assert exit_code == 130
    (last,) = rest.splitlines()
    assert last.endswith(": stopped by SIGINT; what was under way is finished and committed")


def test_a_taken_port_is_named_with_the_cure(cli: Cli) -> None:
    """Worker and broker name the setting, or the flag, with which another port is chosen."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        worker = cli("worker", "--stages", "observe", "--metrics-port", port)
        broker = cli("broker", "--port", port)
    assert (worker.exit_code, broker.exit_code) == (1, 1)
    (line,) = worker.stderr.splitlines()
    assert f"127.0.0.1:{port}" in line
    assert "worker.metrics_port" in line
    assert "`--metrics-port 0`" in line
    assert "`fraudstream broker --port 0`" in broker.stderr
