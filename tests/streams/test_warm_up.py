"""Warming up leaves nothing to compile."""

from __future__ import annotations

from models import window_kernels
from streams.app import feature_spec
from streams.history.backtest import Backtest
from streams.settings import Settings
from streams.stages.warm_up import warm_up
from tests.streams.made_up import SPEC, history, settings


def test_no_kernel_is_compiled_after_the_warm_up() -> None:
    """A history through the cores after the warm-up meets only compiled kernels."""
    warm_up(settings(), SPEC)
    compiled = {
        name: len(kernel.signatures)
        for name, kernel in vars(window_kernels).items()
        if hasattr(kernel, "signatures")
    }
    assert compiled
    Backtest(settings(), SPEC, label_delay=None).run([history(200, 3)])
    for name, count in compiled.items():
        assert len(getattr(window_kernels, name).signatures) == count, name


def test_the_default_settings_warm_up() -> None:
    """Every learner's scorer of the default spec runs on the rows of its cores."""
    assert warm_up(Settings(), feature_spec(Settings())) > 0
