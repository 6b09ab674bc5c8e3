"""Run the broker tests on a real Apache Kafka of their own: `python -m tests.kafka.run [pytest arguments]`.

The same tests run in `make test` on the embedded broker; here FRAUD_TEST_BROKER names the other one.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.kafka.apache_kafka import ApacheKafka, KafkaUnavailable


def main() -> int:
    """Start the broker, run pytest on everything marked `broker`, stop the broker; pytest's exit code."""
    # What Prometheus sees of a worker does not depend on the broker, and takes minutes.
    alarms = [f"--ignore=tests/e2e/{name}.py" for name in ("test_alarms", "test_injected_faults")]
    arguments = sys.argv[1:] or ["-m", "broker", *alarms]
    try:
        with ApacheKafka() as kafka:
            print(f"Apache Kafka at {kafka.bootstrap}", flush=True)
            environment = os.environ | {"FRAUD_TEST_BROKER": kafka.bootstrap}
            return subprocess.run(
                [sys.executable, "-m", "pytest", *arguments], env=environment, check=False
            ).returncode
    except KafkaUnavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
