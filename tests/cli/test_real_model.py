"""The commands of everyday use on the default model, with its own dictionary and atlas."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainscan.artifacts import cache_dir
from brainscan.interventions import neutral_passages

CACHE = cache_dir()
"""Where the default model is, named before a test puts another place there."""

ESTIMATE = {"value", "low", "high", "n", "method"}
COSTS = {"kl", "perplexity_ratio", "capability"}


@pytest.mark.real
def test_every_command_prints_what_is_promised(run, monkeypatch):
    monkeypatch.setenv("BRAINSCAN_CACHE", str(CACHE))
    monkeypatch.setattr("brainscan.cli.steer.QUICK", 2)
    monkeypatch.setattr("brainscan.interventions.control._PASSAGES", 8)

    scanned = run("scan", "In the beginning God created the heaven.", "--json").json
    assert "".join(token["text"] for token in scanned["tokens"]).startswith("In the beginning")
    assert all({"text", "position", "latents"} <= set(token) for token in scanned["tokens"])
    latent = next(latent for token in scanned["tokens"] for latent in token["latents"])
    assert {"id", "activation", "label"} <= set(latent)

    found = run("atlas", "search", "god heaven", "--limit", "3", "--json").json["results"]
    assert len(found) == 3
    assert all({"id", "label", "score", "examples"} <= set(result) for result in found)
    address = found[0]["id"]
    assert address.startswith("resid_post.15/")
    assert run("atlas", "show", address, "--json").json["id"] == address

    setting = ("--set", f"{address}=2x", "--max-new-tokens", "8")
    steered = run("steer", "Describe your day.", *setting, "--json").json
    assert steered["baseline"] and steered["steered"]
    for costs in (steered["effects"], steered["control"]):
        assert set(costs) >= COSTS
        assert all(set(costs[name]) == ESTIMATE for name in COSTS)

    Path("text.txt").write_text("\n\n".join(p.text for p in neutral_passages(20) if p.text))
    command = ("dictionary", "evaluate", "smollm2-135m-instruct/resid_post.15")
    size = ("--text", "text.txt", "--tokens", "256", "--context", "128")
    measured = run(*command, *size, "--json").json
    for name in ("fvu", "l0", "dead_fraction", "ce_recovered_zero", "ce_recovered_mean", "kl"):
        assert set(measured[name]) == ESTIMATE
    assert 200 < measured["tokens"] < 256
    assert 0 < measured["fvu"]["value"] < 0.5
    assert 0 < measured["l0"]["value"] <= 32
