"""Ask pip-audit about every locked dependency, and say how many it could really look up.

pip-audit ends with 0 when its vulnerability service does not know a package, or when a mirror of the index
does not offer the service at all; "no known vulnerabilities" would then mean "nothing was looked at".

Exit codes: 0 clean, 1 vulnerable or not audited. With --allow-offline, 0 when the service is out of reach.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

NETWORK_WORDS = ("ConnectionError", "Max retries", "timed out", "Timeout", "Name or service", "ServiceError")


def main() -> int:
    parser = argparse.ArgumentParser(description="audit a lock file with pip-audit")
    parser.add_argument("lock")
    parser.add_argument("--allow-offline", action="store_true", help="an unreachable service is no failure")
    options = parser.parse_args()
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner=off", "--format=json"]
    command += ["--require-hashes", "--disable-pip", "--requirement", options.lock]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError, TypeError):
        unreachable = any(word in done.stderr for word in NETWORK_WORDS)
        print(done.stderr[-2000:] or done.stdout[-2000:])
        print("NOT AUDITED: no vulnerability service in reach" if unreachable else "pip-audit failed")
        return 0 if unreachable and options.allow_offline else 1
    audited = [entry for entry in report if "vulns" in entry]
    vulnerable = [entry for entry in audited if entry["vulns"]]
    for entry in vulnerable:
        for found in entry["vulns"]:
            cure = ", ".join(found["fix_versions"]) or "no version"
            print(f"{entry['name']} {entry['version']}: {found['id']}, fixed in {cure}")
    print(f"audited {len(audited)} of {len(report)} dependencies, {len(vulnerable)} of them vulnerable")
    if vulnerable:
        return 1
    if len(audited) < len(report):
        print(f"NOT AUDITED: {len(report) - len(audited)} that the vulnerability service does not answer for")
        return 0 if options.allow_offline else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
