"""Steps at which a process can be made to kill itself, for crash tests."""

from __future__ import annotations

import os
import signal

#: Names a step at which the process kills itself: `stage:step`, or `stage:step:n` for the n-th time.
FAILPOINT = "FRAUDSTREAM_FAILPOINT"
_hits: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Ends the process like `kill -9` when the environment asks for it at this step."""
    wanted = os.environ.get(FAILPOINT)
    if not wanted or not wanted.startswith(name):
        return
    nth = wanted.removeprefix(name).lstrip(":")
    _hits[name] = _hits.get(name, 0) + 1
    if _hits[name] == int(nth or 1):
        os.kill(os.getpid(), signal.SIGKILL)
