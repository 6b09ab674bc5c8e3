"""A worker process for the tests that kill and stop one: `python -m tests.streams.batching_worker BROKER
GROUP TOPIC LOG`.

It appends a line `partition first last` to LOG for every batch before finishing it, and takes 2 ms over each.
"""

from __future__ import annotations

import asyncio
import os
import sys

from streams.kafka.batching import batch_topic, batches
from streams.kafka.hosting import run_apps
from tests.streams.clients import new_app


def main(broker: str, group: str, topic: str, log: str) -> None:
    """Run until SIGTERM."""

    async def run() -> None:
        app = new_app(broker, group, max_batch=20)
        lines = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        @app.agent(batch_topic(app, topic))
        async def agent(stream):  # type: ignore[no-untyped-def]
            async for batch in batches(stream):
                await asyncio.sleep(0.002)
                # One write: a kill leaves whole lines.
                os.write(lines, b"%d %d %d\n" % (batch.partition, batch.first_offset, batch.last_offset))
                batch.finish()

        await run_apps([app], handle_signals=True)

    asyncio.run(run())


if __name__ == "__main__":
    main(*sys.argv[1:])
