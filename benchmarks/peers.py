"""The venv of the peers: `python -m benchmarks.peers install`, `python -m benchmarks.peers show`.

Kept apart because their pins (confluent-kafka, protobuf, pandas) need not agree with the project's lock.
The place is `.venv-peers` in the project, or what `FRAUDSTREAM_PEERS_VENV` names.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(__file__).with_name("requirements-peers.txt")


def directory() -> Path:
    """Where the peers' venv is or would be."""
    return Path(os.environ.get("FRAUDSTREAM_PEERS_VENV", ROOT / ".venv-peers"))


def interpreter() -> Path:
    """The peers' Python."""
    return directory() / "bin" / "python"


def version(package: str) -> str | None:
    """The installed version of a peer, None when it is absent."""
    if not interpreter().exists():
        return None
    code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    found = subprocess.run([interpreter(), "-c", code, package], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


def install() -> None:
    """Create the venv and install the pinned peers."""
    if not interpreter().exists():
        venv.create(directory(), with_pip=True)
    subprocess.run([interpreter(), "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("install", "show"))
    if parser.parse_args().action == "install":
        install()
    json.dump(
        {name: version(name) for name in ("quixstreams", "bytewax", "pathway", "river")}, sys.stdout, indent=1
    )
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
