"""What holds for every test: one thread, no bars, no network but the loopback."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["BRAINSCAN_QUIET"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex
_getaddrinfo = socket.getaddrinfo


def _refuse_outside(host: Any) -> None:
    if isinstance(host, bytes):
        host = host.decode()
    if isinstance(host, str) and host not in _LOOPBACK:
        raise OSError(f"a test tried to reach {host}; tests may use the loopback only")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _refuse_outside(address[0])
        return _connect(self, address)

    def connect_ex(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _refuse_outside(address[0])
        return _connect_ex(self, address)

    def getaddrinfo(host, *args, **kwargs):
        if host is not None:
            _refuse_outside(host)
        return _getaddrinfo(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def opening_lm():
    """A model whose tokenizer puts a token of its own before every text, as gemma's does."""
    from tokenizers.processors import TemplateProcessing

    from brainscan.models.tiny import tiny

    lm = tiny("llama")
    token = lm.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    lm.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", token)]
    )
    return lm
