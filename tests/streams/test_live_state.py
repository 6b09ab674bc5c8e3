"""What the live page says: rates, accounting, models, alerts and reports, as one document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from models.deployment import Deployment, Shadow
from models.learners.logistic import LogisticLearner
from models.snapshot import Snapshot, make
from monitoring.metrics import Metrics
from streams.live import page, software
from streams.live.alerts import MOST_ALERTS, LatestAlerts
from streams.live.feed import QUIET_SECONDS
from streams.live.lineup import Place, lineup
from streams.live.reports import MOST_FEATURES, Statistics
from tests.streams.live_worker import ALERTS, NOON, PLACES, REPORTS, LiveWorker, alert, asked, report, until


def test_rates_and_latencies_are_of_the_last_seconds() -> None:
    """Counters grown by 500 in 5 seconds are 100 a second; what lies further back no longer counts."""
    metrics, seen = Metrics(), software.Software()

    def second(at: int, scored: int, latency: float) -> dict[str, Any]:
        metrics.transactions.add(scored, "scored")
        metrics.alerts.add(scored / 10)
        metrics.end_to_end.observe_repeated(latency, scored)
        seen.add(software.read(metrics, float(at), NOON + at * 1000))
        document: Any = seen.document()["now"]
        return dict(document)

    assert second(0, 70_000, 60.0)["transactions_per_second"] is None
    for at in range(1, 6):
        now = second(at, 100, 0.02)
    assert now["transactions_per_second"] == 100.0
    assert now["alerts_per_second"] == 10.0
    assert 10 < now["latency_p50_ms"] < now["latency_p99_ms"] <= 25
    for at in range(6, 12):
        now = second(at, 0, 0.0)
    assert now["transactions_per_second"] == 0.0
    assert now["latency_p50_ms"] is None
    history: Any = seen.document()["history"]
    assert history["wall"] == [NOON + at * 1000 for at in range(12)]
    assert history["transactions_per_second"][5] == 100.0


def test_the_accounting_is_that_of_the_worker() -> None:
    """Counters by outcome, dead letters, what is unaccounted for, and lag over all partitions."""
    metrics, seen = Metrics(), software.Software()
    metrics.transactions.add(7, "scored")
    metrics.transactions.add(2, "duplicate")
    metrics.dead_letters.add(3, "bad_json")
    metrics.unaccounted.set(5)
    metrics.lag_messages.set(40, "t", "0")
    metrics.lag_messages.set(2, "t", "1")
    seen.add(software.read(metrics, 0.0, NOON))
    accounting: Any = seen.document()["accounting"]
    assert (accounting["scored"], accounting["duplicate"], accounting["dead_letters"]) == (7, 2, 3)
    assert accounting["unaccounted"] == 5
    now: Any = seen.document()["now"]
    assert now["lag_messages"] == 42


def test_the_state_has_what_the_page_shows() -> None:
    """The keys of state.json that page.js reads, filled from metrics, models, alerts and reports."""
    worker = LiveWorker(places=PLACES)

    async def use(session: aiohttp.ClientSession, base: str) -> None:
        worker.score(100, 4, 0.03)
        worker.publish(ALERTS, alert(1), alert(2))
        worker.publish(REPORTS, report(0), report(1))
        worker.feed.state()
        worker.score(100, 4, 0.03)
        readings = worker.read_at
        await until(lambda: worker.read_at > readings)
        async with session.get(f"{base}/live/state.json") as answer:
            assert answer.status == 200
            assert answer.headers["Cache-Control"] == "no-store"
            state = await answer.json()
        assert 25 < state["software"]["now"]["latency_p50_ms"] < 50
        assert state["about"] == {"stages": ["card", "score"], "version": "1.2.3"}
        assert state["topics"] == "following"
        assert state["charts"] == (None if page.charts_file() else "no charts: they need plotly, pip install "
                                   "'fraudstream[live]'")  # fmt: skip
        assert set(state["software"]) == {"now", "accounting", "history"}
        assert state["software"]["accounting"]["scored"] == 200
        assert state["models"][1] == {
            "role": "shadow", "name": "forest", "version": 2, "learned": 250, "partitions": 4, "off_on": 1,
            "off_because": "raised ValueError",
        }  # fmt: skip
        statistics = state["statistics"]
        assert statistics["quality"]["champion"]["average_precision"] == 0.7
        assert statistics["drift"][0] == {"feature": "amount", "psi": 0.31, "ks": 0.2}
        assert statistics["funnel"] == {
            "shown": 40, "opened": 30, "confirmed": 12, "dismissed": 8, "ctr": 0.75, "precision": 0.6
        }  # fmt: skip
        assert statistics["outcomes"] == {
            "precision": {"naive": 0.5, "corrected": 0.45}, "recall": {"naive": 0.8, "corrected": None}
        }  # fmt: skip
        assert statistics["history"]["average_precision"]["shadow:forest"] == [0.6, 0.6]
        assert [each["alert_id"] for each in state["alerts"]] == ["alert-2", "alert-1"]
        assert state["alerts"][0]["amount"] == "1,299.00"
        assert state["alerts"][0]["reasons"] == [{"feature": "amount", "value": 1299.0, "contribution": 2.5}]

    asked(use, worker)


def test_an_empty_state_is_one_too() -> None:
    """A worker that has just started has figures of nothing, and says so without failing."""

    async def use(session: aiohttp.ClientSession, base: str) -> None:
        async with session.get(f"{base}/live/state.json") as answer:
            state = await answer.json()
        assert (state["alerts"], state["models"], state["statistics"]["drift"]) == ([], [], [])
        assert state["software"]["now"]["transactions_per_second"] is None

    asked(use)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[1]",
        b"\xff",
        b'{"quality": 3, "feature_drift": [], "funnel": null}',
        b'{"quality": {"champion": "good"}, "feature_drift": {"amount": {"psi": "much"}}}',
        b'{"window": "1h", "figures": {"transactions": 4}}',
        b'{"event_time": true}',
    ],
)
def test_reports_of_another_kind_change_nothing(record: bytes) -> None:
    """What is no report, or one of another version, leaves the figures as they were."""
    statistics = Statistics()
    statistics.take(json.dumps(report()).encode())
    before = statistics.document()
    statistics.take(record)
    assert statistics.document() == before


def test_reports_that_say_more_or_less_are_read_as_far_as_they_are_known() -> None:
    """Unknown keys are ignored, a figure that is missing is none, and the rest stays."""
    statistics = Statistics()
    statistics.take(json.dumps({"quality": {"champion": {"roc_auc": 0.5, "novel": 1}}, "new": {}}).encode())
    assert statistics.quality["champion"]["roc_auc"] == 0.5
    assert statistics.quality["champion"]["average_precision"] is None
    assert statistics.document()["history"] == {"event_time": [], "average_precision": {}}
    statistics.take(json.dumps({"score_drift": {"champion": None, "shadow:m": 0.3}}).encode())
    assert statistics.score_drift == {"champion": None, "shadow:m": 0.3}
    assert statistics.quality["champion"]["roc_auc"] == 0.5


def test_reports_in_parts_are_put_together() -> None:
    """Windows, drift and quality as records of their own give the same figures; of the windows the day's
    counts, and one published again for what came late does not replace a later one."""
    whole, parts = Statistics(), Statistics()
    given = report(1)
    whole.take(json.dumps(given | {"outcome_recall": {"naive": 0.8}}).encode())
    end = given["event_time"]
    drifts = [{"name": name, **each} for name, each in given["feature_drift"].items()]
    drifts += [{"name": "champion:binned", "psi": 0.04, "ks": 1.0}, {"name": "shadow:forest", "psi": 0.05}]
    day = {"metric": "window", "window": "24h", "end": end, "precision": 0.5, "recall": 0.8}
    funnel = {**given["funnel"], "ctr": 0.75, "precision": 0.6}
    for record in (
        {"metric": "quality", "end": end, "models": given["quality"], "labels": {}},
        {"metric": "drift", "end": end, "windows": {"24h": drifts, "1h": [{"name": "x", "psi": 9.0}]}},
        {**day, "funnel": funnel},
        {**day, "end": end - 1, "funnel": {"shown": 1}},
        {**day, "window": "1m", "end": end + 1, "funnel": {"shown": 2}},
        {"metric": "novel", "end": end + 2, "funnel": {"shown": 3}},
    ):
        parts.take(json.dumps(record).encode())
    told: Any = parts.document()
    expected: Any = whole.document()
    expected["outcomes"]["precision"]["corrected"] = None
    assert told == expected


def test_what_watched_learners_notice_is_an_event_and_no_report() -> None:
    """The last events, the latest first; they leave the figures and their time as they are."""
    statistics = Statistics()
    statistics.take(json.dumps(report()).encode())
    for number in range(8):
        event = {"event_time": NOON * 2 + number, "model": "m" * 99, "what": "drift", "signal": "fraud_loss"}
        statistics.take(json.dumps({**event, "before": 0.1, "after": None}).encode())
    document: Any = statistics.document()
    assert [each["event_time"] - NOON * 2 for each in document["events"]] == [7, 6, 5, 4, 3]
    latest = {"event_time": NOON * 2 + 7, "model": "m" * 64, "what": "drift", "signal": "fraud_loss"}
    assert document["events"][0] == {**latest, "before": 0.1, "after": None}
    assert document["event_time"] == NOON


def test_precision_over_a_handful_of_frauds_is_not_drawn() -> None:
    """With two frauds average precision is 0.5 or 1; the chart begins where it means something."""
    statistics = Statistics()
    for hour, frauds in enumerate((2, 9, 10)):
        quality = {"champion": {"average_precision": 0.4, "frauds": frauds}}
        statistics.take(json.dumps(report(hour, quality=quality)).encode())
    history: Any = statistics.document()["history"]
    assert history["average_precision"] == {"champion": [0.4]}
    assert history["event_time"] == [NOON + 2 * 3_600_000]


def test_alerts_are_the_latest_each_once_whatever_their_order() -> None:
    """Partitions come one after the other and again after a break; the newest by scoring time stay."""
    latest = LatestAlerts()
    encoded = [json.dumps(alert(number)).encode() for number in range(1, 2 * MOST_ALERTS + 1)]
    latest.take(encoded[MOST_ALERTS:])
    latest.take(encoded[:MOST_ALERTS])
    latest.take([b"no alert", None, *encoded[-3:]])
    shown = [each["alert_id"] for each in latest.document()]
    assert shown == [f"alert-{number}" for number in range(2 * MOST_ALERTS, MOST_ALERTS, -1)]
    assert latest.unreadable == 2


@pytest.mark.parametrize(("currency", "text"), [("EUR", "1,299.00"), ("JPY", "129,900"), ("KWD", "129.900")])
def test_amounts_are_in_units_of_their_currency(currency: str, text: str) -> None:
    """The minor unit has as many digits as ISO 4217 says."""
    latest = LatestAlerts()
    latest.take([json.dumps(alert(currency=currency)).encode()])
    assert latest.document()[0]["amount"] == text


def snapshot(name: str, version: int, learned: int) -> Snapshot:
    scorer = LogisticLearner(("amount",)).freeze()
    return make(scorer, name=name, version=version, spec_digest="s", n_learned=learned)


def test_models_are_those_of_all_partitions() -> None:
    """The highest version, what it has learned, and on how many partitions a shadow is off."""
    old, new = (snapshot("m", version, version * 100) for version in (1, 2))
    rules, shadow = snapshot("rules", 0, 0), snapshot("s", 7, 70)
    deployments = [
        Deployment("s", new, rules, shadows=[Shadow(shadow)], canary=snapshot("c", 4, 40)),
        Deployment("s", old, rules, shadows=[Shadow(shadow, off="raised ValueError")]),
    ]
    assert lineup(deployments) == [
        Place("champion", "m", 2, 200, 2, 0, None),
        Place("canary", "c", 4, 40, 1, 0, None),
        Place("shadow", "s", 7, 70, 2, 1, "raised ValueError"),
    ]
    assert lineup([]) == []


def test_the_documented_state_is_the_state() -> None:
    """docs/live.md names every route, and every field of the state that has a fixed name."""
    text = (Path(__file__).parents[2] / "docs" / "live.md").read_text()
    worker = LiveWorker(places=PLACES)

    async def use(session: aiohttp.ClientSession, base: str) -> None:
        async with session.get(f"{base}/live/state.json") as answer:
            state = await answer.json()
        figures, statistics = state["software"], state["statistics"]
        fields = [*state["about"], *figures["now"], *figures["accounting"], *state["models"][0], *statistics]
        missing = [name for name in fields if f"`{name}`" not in text]
        missing += [name for name in state if f"| `{name}" not in text]
        missing += [name for name in figures if f"| `software.{name}` |" not in text]
        missing += [
            each.path for each in page.routes(worker.feed, loopback_only=True) if f"`{each.path}`" not in text
        ]
        assert missing == []
        for number, words in (
            (software.KEPT, "last {} seconds, a list"),
            (QUIET_SECONDS, "{} seconds without a question"),
            (MOST_ALERTS, "the last {} by `scored_at`"),
            (MOST_FEATURES, "{} features"),
        ):
            assert words.format(round(number)) in text

    asked(use, worker)
