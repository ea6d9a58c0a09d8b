"""What a set of targets cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from brainscan.errors import DictionaryMismatchError, UnknownFeatureError, UsageError
from brainscan.interventions import Ablate, AblateSet, Direction
from brainscan.models.tiny import tiny

HOOK = "resid_post.1"
A, B = (
    Direction(HOOK, torch.randn(32, generator=torch.Generator().manual_seed(n)), f"d{n}")
    for n in range(2)
)


@pytest.mark.parametrize(
    ("targets", "n", "match"),
    [
        ((), 0, "at least one"),
        ((f"{HOOK}/1", A), 2, f"{HOOK}/1 and d0"),
        ((A, f"{HOOK}/1"), 2, "features only or directions only"),
        ((f"{HOOK}/1", "resid_post.2/1"), 2, "one hookpoint"),
        ((f"{HOOK}/1", "neurons.1/1"), 2, "one hookpoint"),
        ((A, replace(B, hookpoint="resid_post.2")), 2, "one hookpoint"),
        ((f"{HOOK}/1", f"{HOOK}/2", f"{HOOK}/1"), 3, f"once.*{HOOK}/1 and {HOOK}/1"),
        ((f"{HOOK}/1", "blocks.1.hook_resid_post/1"), 2, "once"),
        ((A, A), 2, "once.*d0 and d0"),
        ((A, replace(A)), 2, "once"),
        (("neurons.1/3+", "neurons.1/3-"), 2, "one side of a neuron"),
        ((f"{HOOK}/1", f"{HOOK}/2"), 3, r"2 values, one for each target; got shape \[3\]"),
        ((f"{HOOK}/1",), 0, "1 values"),
    ],
)
def test_nonsense_is_refused_when_the_set_is_written(targets, n, match):
    with pytest.raises(UsageError, match=match):
        AblateSet(targets, torch.zeros(n))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(UsageError, match=f"{value} for {HOOK}/2"):
        AblateSet((f"{HOOK}/1", f"{HOOK}/2"), torch.tensor([0.0, value]))
    with pytest.raises(UsageError, match="finite strength"):
        AblateSet((A,), torch.zeros(1), value)
    with pytest.raises(UsageError, match="address"):
        AblateSet(("nonsense",), torch.zeros(1))


def test_what_the_model_or_the_dictionary_lacks_is_refused(lm, dictionary):
    zeros = torch.zeros(2)
    with pytest.raises(UnknownFeatureError, match=r"resid_post\.1/0 to resid_post\.1/63"):
        AblateSet((f"{HOOK}/1", f"{HOOK}/64"), zeros, dictionary=dictionary).attach(lm)
    with pytest.raises(UnknownFeatureError, match="48 neurons"):
        AblateSet(("neurons.1/1", "neurons.1/48"), zeros).attach(lm)
    with pytest.raises(DictionaryMismatchError, match=r"of resid_post\.1"):
        AblateSet(("resid_post.2/1", "resid_post.2/2"), zeros, dictionary=dictionary).attach(lm)
    with pytest.raises(DictionaryMismatchError, match="of width 16"):
        AblateSet((A, Direction(HOOK, torch.ones(16))), zeros).attach(lm)


def test_neurons_of_a_set_need_no_maximum(active, dictionary):
    """So that a set can be attached while the model is being edited."""
    model = tiny("llama", seed=7)
    first = Ablate(active[0], dictionary=dictionary)
    with model.edit(first), model.edit(AblateSet(("neurons.0/1",), torch.zeros(1))):
        pass
