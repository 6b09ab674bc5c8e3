"""Warming up leaves nothing to compile."""

from __future__ import annotations

import subprocess
import sys

from streams.feature_settings import feature_spec
from streams.settings import Settings
from streams.stages.warm_up import warm_up

AFTER_A_WARM_UP = """
import sys
from streams.feature_settings import feature_spec
from streams.history.backtest import Backtest
from streams.history.simulator import Simulation, Simulator
from streams.settings import Settings
from streams.stages.warm_up import warm_up

def compiled():
    return {
        f"{module.__name__}.{name}": list(map(str, kernel.signatures))
        for module in list(sys.modules.values()) if module.__name__.startswith("models.")
        for name, kernel in vars(module).items() if hasattr(kernel, "signatures")
    }

settings = Settings()
spec = feature_spec(settings)
warm_up(settings, spec)
before = compiled()
assert sum(map(len, before.values())) > 10, before
Backtest(settings, spec, label_delay=86_400_000).run(Simulator(Simulation(transactions=4_000)).batches())
for name, signatures in compiled().items():
    assert signatures == before.get(name, []), (name, signatures, before.get(name))
"""


def test_no_kernel_is_compiled_after_the_warm_up() -> None:
    """A history through the cores after the warm-up, in a new process, meets only compiled kernels."""
    subprocess.run([sys.executable, "-c", AFTER_A_WARM_UP], check=True, timeout=120)


def test_the_default_settings_warm_up() -> None:
    """Every learner's scorer of the default spec runs on the rows of its cores."""
    assert warm_up(Settings(), feature_spec(Settings())) > 0
