"""How a long run tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Advance = Callable[[int, str], None]
"""Takes the rows done so far and a short remark."""
