"""A contender's process tree: started, measured from /proc, ended by its own process group."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds used since the start and resident memory now, summed over the live process tree."""

    cpu_seconds: float
    rss_bytes: int


class ContenderProcess:
    """One contender as a process group of its own, its output in a file. Linux only: it reads /proc."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], directory: Path) -> None:
        self.log = directory / "contender.log"
        with self.log.open("wb") as sink:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                cwd=Path(__file__).resolve().parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def exit_code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def usage(self) -> Usage:
        """CPU and memory of the process and its descendants in the group."""
        page = os.sysconf("SC_PAGE_SIZE")
        cpu, rss = 0.0, 0
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            # After the name: state ppid pgrp session …; utime and stime are the 12th and 13th, rss the 22nd.
            if int(fields[3]) == self._process.pid:
                cpu += (int(fields[11]) + int(fields[12])) / TICKS
                rss += int(fields[21]) * page
        return Usage(cpu, rss)

    def tail(self, lines: int = 15) -> str:
        """The end of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, grace: float = 10.0) -> None:
        """SIGTERM to the group, SIGKILL after `grace` seconds."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                break
            os.killpg(self._process.pid, number)
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                continue
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
