from __future__ import annotations

import pytest
import torch

from brainscan.dictionaries.testing import random_dictionary
from brainscan.interventions import Passage
from brainscan.models import Site, capture, intervene
from brainscan.models.tiny import tiny

TEXT = "the day that you was with one word and not the other"


@pytest.fixture(scope="session")
def passages():
    """Short texts, two of them chats."""
    words = [*TEXT.split(), "and", "say", "it", "again", "now"]
    texts = [
        Passage(f"p{n}", "plain", text=" ".join(words[n:] + words[: n + n % 5])) for n in range(10)
    ]
    chats = [
        ({"role": "user", "content": word}, {"role": "assistant", "content": f"{word} day"})
        for word in ("the", "one")
    ]
    return texts + [Passage(f"c{n}", "chat", messages=chat) for n, chat in enumerate(chats)]


@pytest.fixture(scope="session")
def lm():
    return tiny("llama")


@pytest.fixture(scope="session")
def dictionary(lm):
    return random_dictionary(lm.d_model, n_latents=64, k=8, hookpoint="resid_post.1")


@pytest.fixture(scope="session")
def ids(lm):
    return torch.tensor([lm.tokenize(TEXT)])


@pytest.fixture(scope="session")
def run(lm, ids):
    """The activation at a hookpoint, flat, under some edits."""

    def at(hookpoint, *edits, ids=ids, mask=None, prompt_lengths=None):
        with (
            intervene(lm, edits, prompt_lengths=prompt_lengths),
            capture(lm, [hookpoint]) as seen,
        ):
            lm.forward(ids, mask)
        return seen[hookpoint].flatten(0, 1)

    return at


@pytest.fixture(scope="session")
def site():
    """A site of tokens without padding, all prompt."""

    def make(batch, length, hookpoint="resid_post.1", start=0):
        positions = torch.arange(start, start + length).expand(batch, length)
        prompt = torch.ones(batch, length, dtype=torch.bool)
        return Site(hookpoint, positions, prompt, torch.zeros_like(positions))

    return make


@pytest.fixture(scope="session")
def active(lm, dictionary, ids):
    """Latents that are active somewhere in the text, the most often active first."""
    with capture(lm, ["resid_post.1"]) as seen:
        lm.forward(ids)
    dense = dictionary.dense(dictionary.encode(seen["resid_post.1"][0]))
    order = (dense > 0).sum(0).argsort(descending=True, stable=True)
    return [f"resid_post.1/{int(latent)}" for latent in order[:4]]
