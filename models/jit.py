"""The one place that names the compiler: `@kernel` marks a function as a compiled loop over arrays.

The machine code is cached beside the source (or in the user's cache directory), so it is compiled once per
machine. A cached kernel notices changes in its own file only: helpers of a kernel belong in the kernel's
file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit  # type: ignore[import-untyped,unused-ignore]  # numba ships no type information

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile `function` on first use; it runs without the interpreter lock and divides as IEEE 754 does."""
    return cast(F, njit(cache=True, nogil=True, error_model="numpy")(function))


def inlined(function: F) -> F:
    """Part of a kernel's hot loop under a name of its own: pasted into the caller.

    Without it every call would count references on all the arrays it is given, in atomic operations.
    """
    return cast(F, njit(inline="always", error_model="numpy")(function))
