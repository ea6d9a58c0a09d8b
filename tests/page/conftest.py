from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

TOKEN = "a-token-of-tests"
CONCEPTS = ("calm", "threat")


@pytest.fixture(scope="session")
def lm():
    from brainscan.models.tiny import tiny

    return tiny("llama", max_position_embeddings=1024)


@pytest.fixture(scope="session")
def detectors(lm):
    """Two detectors with random weights, and a rule that raises an alarm soon."""
    from brainscan.monitoring.jumps import JumpRule
    from brainscan.monitoring.scores import ROLES, Detector, Detectors

    noise = torch.Generator().manual_seed(0)
    each = tuple(
        Detector(
            concept=name,
            title=name.capitalize(),
            danger=name == "threat",
            hookpoint=hookpoint,
            method="logistic",
            aggregate="token",
            weights=tuple(torch.randn(lm.d_model, generator=noise).tolist()),
            bias=0.1,
            latents=(),
            neutral=dict.fromkeys(ROLES, (0.0, 1.0)),
            line=(1.0, 0.0),
            threshold=1.0,
        )
        for name, hookpoint in zip(CONCEPTS, ("resid_post.1", "resid_post.2"), strict=True)
    )
    rule = JumpRule(
        "cusum", threshold=0.01, usual=(-9.0, -9.0), spread=(1.0, 1.0), danger=(1,), kappa=-3.0
    )
    return Detectors(lm.ref, each, rule=rule)


@pytest.fixture
def direction(lm):
    """A function that makes a direction at a hookpoint."""
    from brainscan.interventions import Direction

    def make(hookpoint="resid_post.1", seed=1):
        noise = torch.Generator().manual_seed(seed)
        return Direction(hookpoint, torch.randn(lm.d_model, generator=noise), name="d")

    return make


@pytest.fixture(scope="module")
def service(lm, detectors, tmp_path_factory):
    from brainscan.page.service import Service

    made = Service(lambda: lm, detectors=detectors, folder=tmp_path_factory.mktemp("folder"))
    yield made
    made.engine.close()


@contextmanager
def serving(app):
    """The application on the loopback, in a thread; gives its address."""
    import uvicorn

    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def url(service):
    from brainscan.page.api import build_app

    with serving(build_app(service, token=TOKEN, limit=50_000)) as address:
        yield address


def eventually(is_so, seconds=5.0):
    """Whether something comes to be so."""
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.005)
    return is_so()
