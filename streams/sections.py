"""The sections of the settings: every key with its type, limits, default and meaning."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from streams.times import DAY, HOUR, MINUTE, SECOND, duration_ms


def _read_duration(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError('a duration is text with units, for instance "90s" or "1h30m"')
    return duration_ms(value)


DURATION = BeforeValidator(_read_duration)
Duration = Annotated[int, DURATION]
"""Milliseconds, written as text with units such as `7d`, `1h30m`, `250ms`."""

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


def _written(pattern: str, sentence: str) -> AfterValidator:
    """Refuses text of another form with a sentence in place of the expression."""
    form = re.compile(pattern)

    def check(text: str) -> str:
        if form.fullmatch(text) is None:
            raise ValueError(f"{text!r} is not {sentence}")
        return text

    return AfterValidator(check)


Name = Annotated[
    str, _written(r"[a-z0-9][a-z0-9-]{0,39}", "a name of at most 40 lower-case letters, digits and hyphens")
]
TopicName = Annotated[
    str,
    _written(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,200}", "a topic name of 1 to 200 letters, digits, dots, _ and -"),
]


def _real_ports(text: str) -> str:
    """Refuses what a client takes modulo 65,536: it would ask somebody else."""
    for address in text.split(","):
        if not 1 <= int(address.rpartition(":")[2]) <= 65_535:
            raise ValueError(f"{address!r} has no port from 1 to 65535")
    return text


Addresses = Annotated[
    str,
    _written(r"[^,\s:]+:[0-9]{1,5}(,[^,\s:]+:[0-9]{1,5})*", "host:port, several separated by commas"),
    AfterValidator(_real_ports),
]


class Section(BaseModel):
    """A part of the settings; its keys are fixed and its values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Broker(Section):
    """The Kafka cluster and how to enter it."""

    bootstrap: Addresses = "localhost:9092"
    """Host and port of one or more brokers, separated by commas."""
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Security protocol of the listener."""
    ca_file: str = ""
    """PEM file with the certificate authority of the brokers; empty for the system's."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """SASL mechanism of the listener."""
    username: str = ""
    """SASL user."""
    password: SecretStr = SecretStr("")
    """SASL password; better given as FRAUD_BROKER__PASSWORD than in a file."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.security.startswith("SASL") and not (self.username and self.password.get_secret_value()):
            raise ValueError("SASL needs username and password")
        return self


class Topics(Section):
    """Names and shape of the topics."""

    transactions: TopicName = "fraud.transactions.v1"
    """Transactions to score, keyed by card."""
    labels: TopicName = "fraud.labels.v1"
    """What became known about transactions, keyed by card."""
    feedback: TopicName = "fraud.feedback.v1"
    """What analysts did with alerts, keyed by card."""
    scores: TopicName = "fraud.scores.v1"
    """One score for every accepted transaction."""
    alerts: TopicName = "fraud.alerts.v1"
    """Suspicious transactions."""
    dead_letters: TopicName = "fraud.dead-letters.v1"
    """Records that could not be used."""
    models: TopicName = "fraud.models.v1"
    """Published model versions, compacted."""
    control: TopicName = "fraud.control.v1"
    """Events that move models."""
    metrics: TopicName = "fraud.metrics.v1"
    """Statistical metrics."""
    internal_prefix: TopicName = "fraud.internal"
    """Start of the names of internal topics and of consumer groups; another one starts afresh."""
    partitions: Annotated[int, Field(ge=1, le=1024)] = 4
    """Partitions of every topic of the flow; cannot be changed once there is state."""
    replication: Annotated[int, Field(ge=1, le=9)] = 1
    """Replicas of every topic; 3 in production."""
    retention: Duration = 14 * DAY
    """How long records stay; longer than labels.maturity, because scored features are read that late."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [str(getattr(self, name)) for name in TOPIC_KEYS]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"the same topic name is used twice: {min(twice)}")
        return self


TOPIC_KEYS = (
    "transactions",
    "labels",
    "feedback",
    "scores",
    "alerts",
    "dead_letters",
    "models",
    "control",
    "metrics",
)
"""The keys of `Topics` that name a public topic."""


class Input(Section):
    """Limits on what is read."""

    max_value_bytes: Annotated[int, Field(ge=1_024, le=16_777_216)] = 65_536
    """Largest value of a record that is decoded."""
    dead_letter_ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """A worker stops when more than this share of the last records were dead-lettered."""
    dead_letter_window: Annotated[int, Field(ge=100)] = 10_000
    """Over how many records of a partition the share is taken; fewer never stop a worker."""


class Time(Section):
    """Lateness and duplicates, in event time."""

    allowed_lateness: Duration = HOUR
    """Transactions later than this are scored and kept out of the windows."""
    future_tolerance: Duration = 5 * MINUTE
    """Transactions stamped further ahead of their Kafka timestamp are scored and kept out of the windows."""
    watermark_jump: Duration = HOUR
    """A longer jump of the watermark needs a second card to be believed; so does one of the labels' clock."""
    dedupe_horizon: Duration = 24 * HOUR
    """How long a transaction id is remembered."""
    dedupe_max_ids: Annotated[int, Field(ge=1_000)] = 2_000_000
    """Most transaction ids remembered for a partition; the oldest go first."""


class Alignment(Section):
    """Waiting of a stage for its other inputs."""

    live_within: Duration = 60 * SECOND
    """A partition whose records are all younger than this by the wall clock never waits."""
    idle_after: Duration = 5 * SECOND
    """An input without progress for so long is not waited for."""
    max_buffered_rows: Annotated[int, Field(ge=1_000)] = 500_000
    """Most rows that wait in one partition of a stage."""


Origin = Literal["source", "terminal", "card"]


def _daily() -> dict[Origin, int]:
    return {"source": 100_000, "terminal": 1_000, "card": 50}


class Labels(Section):
    """From labels to outcomes."""

    maturity: Duration = 7 * DAY
    """A transaction without a fraud label for so long counts as genuine."""
    soonest: Duration = HOUR
    """So long after a transaction a verdict on it takes effect at the earliest."""
    max_held: Annotated[int, Field(ge=1_000)] = 200_000
    """Most transactions with labels, and most alerted rows, held for a partition; the oldest go first."""
    daily: dict[Origin, Annotated[int, Field(ge=1)]] = Field(default_factory=_daily)
    """Verdicts on a day's transactions that are learned, by origin; what is left out is not bounded."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.soonest > self.maturity:
            raise ValueError("soonest is longer than maturity")
        return self


class Drift(Section):
    """How a learner is watched for concept drift, and what follows."""

    detector: Literal["adwin", "page_hinkley"] = "adwin"
    """What watches its losses and its calibration."""
    replace_when: Literal["better", "trained"] = "better"
    """When a second learner takes over after drift: once its loss is lower, or once it has learned enough."""
    min_frauds: Annotated[int, Field(ge=1)] = 30
    """Frauds a learner has learned before it is watched, compared or takes over."""


Option = bool | int | float | str


def _read_option(value: object) -> object:
    inner = value.values() if isinstance(value, dict) else [value]
    if not all(isinstance(each, Option) for each in inner):
        raise ValueError("an option is a number, text, true or false, or a table of these")
    return value


class Slot(Section):
    """A model by name, with the kind of its learner."""

    name: Name
    """Name in scores, metrics and commands."""
    kind: Annotated[str, Field(min_length=1, max_length=60)]
    """Learner in `models/learners/`."""
    negative_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of genuine outcomes that it learns; its scores are corrected for it."""
    options: dict[str, Annotated[Option | dict[str, Option], BeforeValidator(_read_option)]] = Field(
        default_factory=dict
    )
    """Arguments of the learner; a table is a learner within it, with its `kind` and arguments."""
    drift: Drift | None = None
    """Detection of concept drift and the reaction to it; without it the learner just goes on learning."""


class Models(Section):
    """Who scores and how they learn."""

    champion: Slot = Slot(name="binned", kind="binned_logistic")
    """The model that decides."""
    shadows: tuple[Slot, ...] = (
        Slot(name="forest", kind="adaptive_forest", negative_rate=0.05),
        Slot(name="logistic", kind="logistic"),
    )
    """Models scored beside it."""
    publish_every: Duration = 6 * HOUR
    """Event time between two published versions of a model."""
    min_outcomes: Annotated[int, Field(ge=0)] = 500
    """Outcomes behind a model, those sampled away included, before its first version; the rules till then."""
    min_frauds: Annotated[int, Field(ge=0)] = 10
    """Frauds among them."""
    shadow_memory_bytes: Annotated[int, Field(ge=16_777_216)] = 268_435_456
    """Memory that a shadow's version may take by scoring, in a worker, before it is switched off."""
    checkpoint_key_file: str = ""
    """File with a key of at least 32 bytes, which signs the learn stage's checkpoints; empty for unsigned."""
    signing_key_file: str = ""
    """File with a key of at least 32 bytes, which signs model versions and moves; empty for unsigned."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [self.champion.name, *(slot.name for slot in self.shadows)]
        if len(set(names)) < len(names):
            raise ValueError("every model needs a name of its own")
        return self


class Gates(Section):
    """Moves that are made without anybody, on evidence."""

    abort: bool = True
    """A canary that fails a gate is ended."""
    promote: bool = False
    """A canary that has passed every gate becomes the champion."""
    rollback: bool = True
    """A champion that fails a gate within the horizon of its promotion gives its place back."""
    withhold: bool = True
    """A version that is much worse than those before it is not taken by aliases that follow its model."""
    horizon: Duration = 7 * DAY
    """Event time of matured outcomes that must speak for a canary."""
    min_frauds: Annotated[int, Field(ge=1)] = 50
    """Fewest frauds among matured outcomes before they are asked."""


class Policy(Section):
    """From score to alert."""

    kind: Literal["threshold", "budget", "cost"] = "threshold"
    """What decides: a fixed threshold, one held to alerts_per_day, or the expected loss of a transaction."""
    threshold: Share = 0.2
    """Lowest score that raises an alert; of a budget at its start, of costs for currencies without one."""
    alerts_per_day: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 100.0
    """Alerts in a day of event time, over all partitions, to which a budget holds the threshold."""
    investigation_cost: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """What an investigation costs in minor units, by currency; with kind "cost" score x amount reaches it."""
    cooldown: Duration = 0
    """So long after an alert, in event time, its card raises no other one in the same partition."""
    control_share: Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)] = 0.0
    """Share of the cards whose alerts are marked as control group, to be left alone."""
    control_key_file: str = ""
    """File with a key of at least 32 bytes, which draws the control group."""
    reasons: Annotated[int, Field(ge=0, le=50)] = 5
    """Most reasons given with an alert."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "cost" and not self.investigation_cost:
            raise ValueError('kind "cost" needs investigation_cost, for instance {EUR = 500}')
        if self.investigation_cost and self.kind != "cost":
            raise ValueError('investigation_cost is for kind "cost"')
        if self.control_share and not self.control_key_file:
            raise ValueError(
                "control_share needs control_key_file: a file with 32 random bytes that only the scorers read"
            )
        return self


class Worker(Section):
    """A worker process."""

    metrics_host: str = "127.0.0.1"
    """Address of /metrics, /livez, /readyz and /live."""
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 9464
    """Port of /metrics, /livez, /readyz and /live; 0 takes a free one."""
    live_page: Literal["loopback", "anywhere", "off"] = "loopback"
    """Where /live is served, which shows card tokens: on an address of this machine only, on any, nowhere."""
    batch_rows: Annotated[int, Field(ge=1, le=4_096)] = 2_000
    """Most records of a partition taken at once."""
    session_timeout: Duration = 10 * SECOND
    """After so long without a heartbeat a worker's partitions go to others."""
