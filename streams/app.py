"""The composition root: one Faust app per stage, all of them in the order of the flow.

| stage | reads | writes |
|---|---|---|
| card | transactions | by-<last entity>, dead-letters |
| score | by-<last entity>, known-frauds, models, control | scores, alerts, scored, metrics |
| label | labels, feedback, scored | outcomes, known-frauds, dead-letters |
| learn | outcomes, models, control | models, metrics |
| observe | scored, feedback, observe-parts, outcomes, control | observe-parts, metrics, control |

Every stage is a consumer group of its own, so that stages can be spread over workers in any way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import faust
from faust.auth import Credentials, SASLCredentials, SSLCredentials

from models.spec import FeatureSpec
from monitoring.metrics import Metrics
from streams.errors import SettingsError
from streams.feature_settings import catalogue_of, feature_spec
from streams.kafka.batching import BatchingOptions, create_app
from streams.kafka.connection import security_options
from streams.kafka.outputs import Outputs
from streams.keys import signing_key
from streams.sections import Broker
from streams.settings import Settings
from streams.stages import card, label, learn, score
from streams.stages.context import StageContext
from streams.stages.control_feed import ControlFeed, initial_aliases
from streams.stages.model_feed import ModelFeed
from streams.stages.model_slots import build_learners
from streams.stages.observing import stage as observe
from streams.stages.observing.reading import MOST_UNSAVED
from streams.stages.rows import LARGEST_MESSAGE

STAGES = ("card", "score", "label", "learn", "observe")


@dataclass(slots=True)
class Flow:
    """What a worker runs: what its stages share, and by stage the app, what it was given and what it does."""

    spec: FeatureSpec
    metrics: Metrics
    feed: ModelFeed
    control: ControlFeed
    contexts: dict[str, StageContext] = field(default_factory=dict)
    apps: dict[str, faust.App] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)

    @property
    def outputs(self) -> list[Outputs]:
        """The producers, not started."""
        return [context.outputs for context in self.contexts.values()]


def build(settings: Settings, stages: Sequence[str] = STAGES) -> Flow:
    """Everything a worker with these stages runs; nothing is connected yet.

    Raises:
        SettingsError: the settings cannot be carried out.
    """
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown or not stages:
        raise SettingsError(
            f"stages: unknown {', '.join(unknown) or 'none given'}; known are {', '.join(STAGES)}"
        )
    spec = feature_spec(settings)
    build_learners(settings.models, spec)  # unknown kinds and options are refused before anything starts
    metrics, catalogue = Metrics(), catalogue_of(settings, spec)
    feed = ModelFeed(
        catalogue.name("models"),
        settings.broker,
        spec.digest,
        on_refused=partial(metrics.model_refused.add, 1),
        key=signing_key(settings.models),
        names=[slot.name for slot in (settings.models.champion, *settings.models.shadows)],
    )
    control = ControlFeed(
        catalogue.name("control"),
        settings.broker,
        initial_aliases(settings.models),
        signing_key(settings.models),
        on_refused=partial(metrics.moves_ignored.add, 1),
    )
    flow = Flow(spec, metrics, feed, control)
    for stage in STAGES:
        if stage in stages:
            app = flow.apps[stage] = create_app(
                # With other internal topics everything is read anew: the offsets go with the state.
                f"{settings.topics.internal_prefix}.{stage}",
                settings.broker.bootstrap,
                options=_batching(stage, settings),
                session_timeout=settings.worker.session_timeout / 1000,
                credentials=credentials(settings.broker),
            )
            # A producer for each stage: the outputs of one must not queue behind the state of another.
            outputs = Outputs(
                settings.broker.bootstrap,
                security=security_options(settings.broker),
                max_record_bytes=LARGEST_MESSAGE,
            )
            context = flow.contexts[stage] = StageContext(settings, spec, catalogue, outputs, metrics)
            flow.parts[stage] = _attach(stage, app, context, flow)
    return flow


def credentials(broker: Broker) -> Credentials | None:
    """`streams.kafka.connection.security_options` in Faust's terms; None for a plain connection."""
    options = security_options(broker)
    if broker.security.startswith("SASL"):
        return SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=options.get("ssl_context"),
        )
    return SSLCredentials(context=options["ssl_context"]) if "ssl_context" in options else None


def _attach(stage: str, app: faust.App, context: StageContext, flow: Flow) -> Any:
    match stage:
        case "card":
            return card.attach(app, context)
        case "score":
            flow.feed.on_error = flow.control.on_error = app.crash
            return score.attach(app, context, flow.feed, flow.control)
        case "label":
            return label.attach(app, context)
        case "learn":
            flow.control.on_error = app.crash
            return learn.attach(app, context, flow.control.registry)
        case _:
            flow.control.on_error = app.crash
            return observe.attach(app, context, flow.control)


def _batching(stage: str, settings: Settings) -> BatchingOptions:
    match stage:
        case "score":
            # Messages of the hop hold many rows each and wait for other inputs; alignment.max_buffered_rows
            # bounds them.
            return BatchingOptions(max_batch=64, max_in_flight=256, drain_timeout=1.0)
        case "learn":
            # Batches stay unfinished, without their records, until a checkpoint covers them; the stage pauses
            # its partition by the bytes that it has not taken.
            return BatchingOptions(
                max_batch=64, max_in_flight=learn.MOST_IN_FLIGHT, drain_timeout=0.2, fetch_max_wait_ms=100
            )
        case "observe":
            # Batches stay unfinished, without their records, until what they changed is saved.
            most = 2 * MOST_UNSAVED
            return BatchingOptions(
                max_batch=256, max_in_flight=most, drain_timeout=0.2, fetch_max_wait_ms=100
            )
        case _:
            # Many batches may wait, for a partition takes all that has arrived at once.
            return BatchingOptions(max_batch=settings.worker.batch_rows, max_in_flight=16)
