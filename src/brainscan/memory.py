"""Memory that is freed and asked for again at once stays with the process.

Each operation of torch on a processor allocates its result. glibc gives large blocks back to the
system when they are freed, so that the next operation pays for zeroed pages again: about a tenth
of the time of a forward pass, and of a training step. While `kept_memory` is entered they stay;
when the last one is left, what is free is given back. Elsewhere than with glibc it does nothing.

Source: mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE = 2**30
_USUAL = 2**25
"""What glibc lets its own thresholds grow to."""

_lock = threading.Lock()
_entered = 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """While entered, freed memory is kept for what is allocated next; may be nested."""
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def _count(change: int) -> None:
    global _entered
    libc = _glibc()
    with _lock:
        _entered += change
        if libc is None:
            return
        if change > 0 and _entered == 1:
            # An older glibc refuses blocks of more than half a heap.
            _ = libc.mallopt(_MMAP_THRESHOLD, _LARGE) or libc.mallopt(_MMAP_THRESHOLD, _USUAL)
            libc.mallopt(_TRIM_THRESHOLD, _LARGE)
        elif _entered == 0:
            libc.mallopt(_MMAP_THRESHOLD, _USUAL)
            libc.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
            libc.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is glibc."""
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim  # noqa: B018
    except (OSError, AttributeError, TypeError):
        return None
    return libc
