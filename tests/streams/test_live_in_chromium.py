"""The live page as a person sees it, in headless Chromium."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from streams.live.page import charts_file
from tests.streams.chromium import BINARY, Page, browse
from tests.streams.live_worker import ALERTS, PLACES, REPORTS, LiveWorker, alert, report

pytestmark = [
    pytest.mark.skipif(
        BINARY is None, reason="no chromium here; on Debian: apt-get install --no-install-recommends chromium"
    ),
    pytest.mark.skipif(charts_file() is None, reason="plotly is not installed: make install"),
]
#: What a card id may hold, and what it must not do.
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&lt;b&gt;"
#: Plotly's script brings the style of its maps along, which the policy of the page refuses; there is no map.
MAP_STYLE = "Applying inline style"


def seen(
    use: Callable[[Page, LiveWorker], Awaitable[None]],
    worker: LiveWorker,
    width: int = 1280,
    dark: bool = False,
) -> None:
    """Opens the page of a worker; every request is one to that worker, and there is no error but one."""

    async def scenario() -> None:
        async with worker.serve() as base, browse() as page:
            await page.open(f"{base}/live", width=width, dark=dark)
            await page.until("document.getElementById('status').textContent === 'live'")
            await use(page, worker)
            assert {url.partition("/live")[0] for url in page.requests} == {base}
            assert [problem for problem in page.problems if not problem.startswith(MAP_STYLE)] == []

    asyncio.run(scenario())


def text(selector: str) -> str:
    return f"document.querySelector({selector!r}).innerText"


def test_figures_models_alerts_drift_and_funnel_are_shown() -> None:
    """What the worker, the models, the alerts and the reports say stands on the page, in words and units."""

    async def use(page: Page, worker: LiveWorker) -> None:
        worker.score(200, 4, 0.03)
        worker.publish(ALERTS, alert(1), alert(2, card_id="card-2"))
        event = {"event_time": 0, "model": "binned", "what": "drift", "signal": "fraud_loss"}
        worker.publish(REPORTS, report(0), report(1), {**event, "before": 0.125, "after": 0.5})
        await page.until(f"{text('#alerts')}.includes('card-2')")
        assert await page.evaluate("document.querySelectorAll('#alerts li').length") == 2
        first = await page.evaluate(text("#alerts li"))
        words = [
            "0.900",
            "1,299.00 EUR",
            "card card-2",
            "terminal terminal-1",
            "amount = 1299 +2.50",
            "binned v3",
        ]
        for each in words:
            assert each in first
        champion, shadow = await page.evaluate(
            "[...document.querySelectorAll('#models tr')].map(row => row.innerText.split('\\t'))"
        )
        assert champion == ["champion", "binned v3", "on", "0.700", "0.880", "0.010", "0.040", "5,000"]
        assert shadow[:3] == ["shadow", "forest v2", "off on 1 of 4"]
        assert "shown\n40" in await page.evaluate(text("#funnel"))
        assert "opened\n30 · 75 %" in await page.evaluate(text("#funnel"))
        measured = (await page.evaluate(text("#outcomes"))).split("\n")
        assert measured == ["precision by outcomes", "50 %, corrected 45 %", "recall by outcomes", "80 %"]
        assert (await page.evaluate(text("#drift"))).split("\n")[:2] == ["amount", "0.310"]
        assert await page.evaluate("document.querySelector('#drift i').className") == "bad"
        assert "binned drift fraud loss 0.125 → 0.5" in await page.evaluate(text("#events"))
        # The next reading of the metrics may come after the records.
        await page.until(f"{text('#counts')}.startsWith('scored\\n200')")
        await page.until("document.getElementById('accounting').className === 'tile good'")
        assert await page.evaluate(text("#unaccounted")) == "0"
        for chart in ("throughput", "latency", "precision"):
            await page.until(f"document.querySelectorAll('#chart-{chart} .scatterlayer path').length > 0")
        worker.metrics.unaccounted.set(3)
        await page.until("document.getElementById('accounting').className === 'tile bad'")
        assert await page.evaluate(text("#unaccounted")) == "3"

    seen(use, LiveWorker(places=PLACES))


def test_text_of_records_is_shown_as_it_is_and_never_run() -> None:
    """Card ids, terminals, features, roles and reasons that look like markup are text on the page."""

    async def use(page: Page, worker: LiveWorker) -> None:
        reasons = [{"feature": EVIL, "value": 1.0, "contribution": 1.0}]
        worker.publish(
            ALERTS,
            alert(1, card_id=EVIL, terminal_id=EVIL, currency=EVIL, alert_id=EVIL, reasons=reasons,
                  model={"name": EVIL, "version": 1}),
        )  # fmt: skip
        worker.publish(
            REPORTS,
            report(0, feature_drift={EVIL: {"psi": 1.0, "ks": 1.0}}, quality={EVIL: {"roc_auc": 0.5}}),
        )
        await page.until("document.querySelectorAll('#alerts li, #drift li').length === 2")
        assert (await page.evaluate(text("#alerts .what"))).count(EVIL) == 3
        assert EVIL in await page.evaluate(text("#drift"))
        assert EVIL.partition(":")[0] in await page.evaluate(text("#models"))
        assert await page.evaluate("document.title") == "fraudstream live"
        assert await page.evaluate("document.querySelectorAll('main img, main script, main b b').length") == 0

    seen(use, LiveWorker())


def test_what_is_not_there_yet_is_said() -> None:
    """An idle worker without models, labels or analysts tells what is waited for, in every part."""

    async def use(page: Page, worker: LiveWorker) -> None:
        for words in (
            "Waiting for transactions to be scored here.",
            "No alert yet.",
            "Waiting for analysts",
            "Waiting for a reference",
            "No model scores in this worker",
        ):
            await page.until(f"document.body.innerText.includes('{words}')")
        shown = await page.evaluate("document.body.innerText")
        assert "NaN" not in shown
        assert "undefined" not in shown
        worker.topics.state = "the broker cannot be reached"
        await page.until(f"{text('#status')} === 'live, but the broker cannot be reached'")

    seen(use, LiveWorker(stages=("learn", "observe")))


def test_a_reader_s_place_is_kept_while_alerts_come() -> None:
    """Rows stay the same elements, and neither the page nor a list that was scrolled jumps."""

    async def use(page: Page, worker: LiveWorker) -> None:
        worker.publish(ALERTS, *(alert(number) for number in range(30)))
        await page.until("document.querySelectorAll('#alerts li').length === 30")
        await page.evaluate("window.row = document.querySelectorAll('#alerts li')[15]; scrollTo(0, 300)")
        await page.evaluate("document.getElementById('alerts').scrollTop = 700")
        before = await page.evaluate("[Math.round(row.getBoundingClientRect().top), scrollY]")
        worker.publish(ALERTS, *(alert(number) for number in range(30, 35)))
        await page.until("document.querySelectorAll('#alerts li').length === 35")
        assert await page.evaluate("[Math.round(row.getBoundingClientRect().top), scrollY]") == before
        assert await page.evaluate("[...document.querySelectorAll('#alerts li')].indexOf(row)") == 20

    seen(use, LiveWorker())


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_window_shows_everything_without_scrolling_sideways(dark: bool) -> None:
    """At 390 pixels nothing sticks out, however long an id is; colours follow the reader's preference."""

    async def use(page: Page, worker: LiveWorker) -> None:
        worker.publish(ALERTS, alert(1, card_id="c" * 64, terminal_id="t" * 64))
        worker.publish(REPORTS, report(0, feature_drift={"f" * 90: {"psi": 0.2, "ks": 0.1}}))
        await page.until("document.querySelectorAll('#alerts li, #drift li').length === 2")
        assert await page.evaluate("document.documentElement.scrollWidth") == 390
        red = await page.evaluate(
            "Number(getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0])"
        )
        assert (red < 64) is dark

    seen(use, LiveWorker(places=PLACES), width=390, dark=dark)


def test_a_worker_that_is_gone_is_told() -> None:
    """The last figures stay, marked as old, with the time they are of."""

    async def scenario() -> None:
        worker = LiveWorker()
        async with browse() as page:
            async with worker.serve() as base:
                await page.open(f"{base}/live")
                await page.until("document.getElementById('status').textContent === 'live'")
            await page.until(f"{text('#status')}.startsWith('no answer from the worker, figures of ')")
            assert await page.evaluate("document.body.className") == "stale"

    asyncio.run(scenario())
