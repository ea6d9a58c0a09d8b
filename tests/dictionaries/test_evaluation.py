"""An evaluation says 0 and 1 where it must, and keeps sinks out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from brainscan.activations.packing import Context
from brainscan.dictionaries.autoencoder import Autoencoder
from brainscan.dictionaries.evaluation import evaluate
from brainscan.dictionaries.testing import random_dictionary
from brainscan.errors import CorpusError
from brainscan.models.tiny import tiny
from brainscan.stats import Estimate

HOOKPOINT = "resid_post.1"


def contexts(n: int = 6, length: int = 40) -> list[Context]:
    made = []
    for number in range(n):
        generator = torch.Generator().manual_seed(number)
        tokens = torch.randint(10, 250, (length,), generator=generator)
        documents = torch.full((length,), number)
        documents[length // 2 :] += 1
        made.append(Context(tokens, documents, (f"d{number}", f"d{number + 1}")))
    return made


def perfect(d: int) -> Autoencoder:
    """One latent for each direction and sign: nothing is lost."""
    rows = torch.cat([torch.eye(d), -torch.eye(d)])
    return replace(
        random_dictionary(d, 2 * d, d, HOOKPOINT),
        W_enc=rows,
        W_dec=rows.clone(),
    )


def test_a_perfect_dictionary_loses_nothing() -> None:
    lm = tiny("llama")
    result = evaluate(lm, perfect(lm.d_model), contexts())
    assert result.fvu.value < 1e-9
    assert result.kl.value < 1e-6
    assert result.ce_recovered_zero.value == pytest.approx(1, abs=1e-3)
    assert result.ce_recovered_mean.value == pytest.approx(1, abs=1e-3)
    assert result.dead_fraction.value == 0
    assert 0 < result.fvu_pca.value < 1e-6 or result.fvu_pca.value >= 0


def test_a_dictionary_that_gives_zero_equals_the_zero_ablation() -> None:
    lm = tiny("llama")
    silent = replace(perfect(lm.d_model), W_dec=torch.zeros(2 * lm.d_model, lm.d_model))
    result = evaluate(lm, silent, contexts())
    assert result.ce_recovered_zero.value == pytest.approx(0, abs=1e-4)
    assert result.fvu.value >= 1


def test_figures_are_clustered_by_document_and_sinks_are_left_out() -> None:
    lm = tiny("llama")
    dictionary = random_dictionary(lm.d_model, 64, 4, HOOKPOINT)
    result = evaluate(lm, dictionary, contexts(n=6, length=40))
    assert result.fvu.n == result.l0.n == 7
    assert result.tokens + result.sinks == 6 * 40
    assert result.sinks >= 6
    assert result.l0.value <= 4
    assert result.fvu.low <= result.fvu.value <= result.fvu.high
    assert result.dead_fraction.n == 64
    figures = result.to_json()
    assert set(figures["kl"]) == set(Estimate(0.0, 0.0, 0.0, 1, "").to_json())


def test_sinks_keep_their_own_activations_in_the_splice_and_in_both_ablations() -> None:
    lm = tiny("llama")
    layers = lm.model.get_submodule("model.layers")
    passed_on: list[torch.Tensor] = []

    def enlarge(module: torch.nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        return output * torch.ones_like(output).index_fill_(1, torch.tensor([7]), 1000)

    layers[1].mlp.register_forward_hook(enlarge)
    layers[2].register_forward_pre_hook(lambda module, args: passed_on.append(args[0].clone()))
    (context,) = contexts(n=1)
    result = evaluate(lm, random_dictionary(lm.d_model, 64, 4, HOOKPOINT), [context])
    assert result.sinks == 2
    clean, spliced, zero, mean = (x[0] for x in passed_on)
    sinks = torch.zeros(len(clean), dtype=torch.bool)
    sinks[[0, 7]] = True
    for arm in (spliced, zero, mean):
        assert torch.equal(arm[sinks], clean[sinks])
        assert ((arm - clean)[~sinks].abs().amax(1) > 0).all()
    assert not zero[~sinks].any()
    torch.testing.assert_close(mean[~sinks], clean[~sinks].mean(0).expand_as(mean[~sinks]))


def test_no_text_is_an_error() -> None:
    lm = tiny("llama")
    with pytest.raises(CorpusError, match="held-out text"):
        evaluate(lm, random_dictionary(lm.d_model, hookpoint=HOOKPOINT), [])
