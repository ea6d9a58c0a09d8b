"""Freed memory stays while it is asked to, and the process is as before afterwards."""

from __future__ import annotations

import sys

import pytest
import torch

from brainscan import memory
from brainscan.memory import kept_memory


class Glibc:
    def __init__(self):
        self.calls = []

    def mallopt(self, name, value):
        self.calls.append((name, value))
        return int(value <= 2**25 or name == -1)

    def malloc_trim(self, pad):
        self.calls.append("trim")


def test_only_the_outermost_context_changes_and_restores(monkeypatch):
    libc = Glibc()
    monkeypatch.setattr(memory, "_glibc", lambda: libc)
    with kept_memory():
        inside = list(libc.calls)
        with kept_memory():
            pass
        assert libc.calls == inside == [(-3, 2**30), (-3, 2**25), (-1, 2**30)]
    assert libc.calls[len(inside) :] == [(-3, 2**25), (-1, 2**26), "trim"]


def test_an_error_restores_too(monkeypatch):
    libc = Glibc()
    monkeypatch.setattr(memory, "_glibc", lambda: libc)
    with pytest.raises(ValueError, match="x"), kept_memory():
        raise ValueError("x")
    assert libc.calls[-1] == "trim"


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with kept_memory():
        assert torch.ones(10).sum() == 10


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_what_was_kept_is_given_back():
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    with kept_memory():
        before = resident()
        for _ in range(3):
            x = torch.ones(8_000_000)
            del x
    assert resident() - before < 16e6
