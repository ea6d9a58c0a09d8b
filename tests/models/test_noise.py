"""The noise that draws tokens: its distribution, what it depends on, and exact shortcuts."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from brainscan.models.noise import draw, gumbel, row_seeds, uniform_words

CPU = torch.device("cpu")


def _uniforms(seeds, index, vocab):
    return (
        uniform_words(seeds, [index] * len(seeds), vocab, CPU).double() + 2.0**31 + 0.5
    ) / 2.0**32


def test_words_never_change():
    words = uniform_words([0, -1], [3, 3], 4, CPU)
    assert words.tolist() == [
        [1014134553, -1721561619, 868507911, 1368781670],
        [-2126186616, -1325571122, 349887828, 303128037],
    ]


def test_noise_depends_on_seed_index_and_token_alone():
    together = uniform_words([5, 6, 7], [11] * 3, 300, CPU)
    assert torch.equal(together[1:2], uniform_words([6], [11], 300, CPU))
    assert torch.equal(together[:, :200], uniform_words([5, 6, 7], [11] * 3, 200, CPU))
    assert (together[1] == uniform_words([6], [12], 300, CPU)[0]).sum() < 3
    assert (together[1] == together[2]).sum() < 3


@pytest.mark.parametrize("axis", ["token", "index", "seed"])
def test_noise_is_uniform_and_uncorrelated_along_each_axis(axis):
    if axis == "token":
        grid = _uniforms([1], 0, 40_000)[0]
    elif axis == "index":
        grid = torch.cat([_uniforms([1], index, 8)[0] for index in range(5000)])
    else:
        grid = _uniforms(range(5000), 0, 8).flatten()
    assert stats.kstest(grid.numpy(), "uniform").pvalue > 1e-3
    for lag in (1, 2, 8, 64):
        correlation = torch.corrcoef(torch.stack([grid[:-lag], grid[lag:]]))[0, 1]
        assert abs(float(correlation)) < 4.5 / math.sqrt(len(grid))
    pairs = (grid[:-8] * 16).long() * 16 + (grid[8:] * 16).long()
    assert stats.chisquare(pairs.bincount(minlength=256).numpy()).pvalue > 1e-3


def test_gumbel_noise_is_finite_at_the_ends():
    ends = gumbel(torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32))
    assert ends.tolist() == pytest.approx([33 * math.log(2), -math.log(33 * math.log(2))])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature):
    logits = torch.randn(12, generator=torch.Generator().manual_seed(0)) * 2
    rows = 20_000
    tokens = draw(logits.expand(rows, -1), range(rows), 0, temperature)
    expected = (logits / temperature).softmax(-1).double()
    expected = (expected / expected.sum() * rows).numpy()
    assert stats.chisquare(tokens.bincount(minlength=12).numpy(), expected).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [1e-6, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_leaving_out_hopeless_tokens_changes_nothing(temperature, dtype):
    generator = torch.Generator().manual_seed(1)
    for index in range(40):
        logits = (torch.randn(8, 5000, generator=generator) * 4).to(dtype)
        noise = gumbel(uniform_words(range(8), [index] * 8, 5000, CPU))
        gaps = logits.float() - logits.float().max(-1, keepdim=True).values
        plain = ((gaps / temperature).double() + noise).argmax(-1)
        assert torch.equal(draw(logits, range(8), index, temperature), plain)


def test_a_row_draws_the_same_in_any_batch():
    logits = torch.randn(9, 70_000, generator=torch.Generator().manual_seed(2))
    together = draw(logits, range(9), 4, 1.0)
    alone = [draw(logits[row : row + 1], [row], 4, 1.0) for row in range(9)]
    assert torch.equal(together, torch.cat(alone))


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(4000, -1)
    assert set(draw(logits, range(4000), 0, 1.0, top_p=0.79).tolist()) == {0, 1}
    assert set(draw(logits, range(4000), 0, 1.0, top_p=0.81).tolist()) == {0, 1, 2}
    assert set(draw(logits, range(4000), 0, 1.0, top_p=1e-9).tolist()) == {0}
    counts = draw(logits, range(4000), 0, 1.0, top_p=0.79).bincount(minlength=2)
    assert stats.binomtest(int(counts[0]), 4000, 0.5 / 0.8).pvalue > 1e-3


def test_top_p_agrees_with_a_full_sort():
    logits = torch.randn(6, 3000, generator=torch.Generator().manual_seed(3)) * 3
    ordered = logits.softmax(-1).sort(-1, descending=True)
    inside = ordered.values.cumsum(-1) - ordered.values < 0.9
    allowed = torch.zeros_like(inside).scatter(1, ordered.indices, inside)
    masked = logits.masked_fill(~allowed, -torch.inf)
    for index in range(30):
        assert torch.equal(
            draw(logits, range(6), index, 1.0, top_p=0.9), draw(masked, range(6), index, 1.0)
        )


def test_greedy_takes_the_largest_and_ties_go_to_the_first():
    assert draw(torch.tensor([[0.0, 3.0, 3.0], [1.0, 0.0, 0.0]]), [0, 1], 0, 0.0).tolist() == [1, 0]


def test_logits_that_are_not_numbers_still_give_a_token():
    broken = torch.tensor([[0.0, torch.nan, 1.0], [torch.inf, 0.0, 0.0]])
    assert all(0 <= token < 3 for token in draw(broken, [0, 1], 0, 1.0).tolist())


def test_rows_get_different_seeds_and_the_first_its_own():
    seeds = row_seeds(7, 1000)
    assert seeds[0] == 7
    assert len({*seeds, *row_seeds(8, 1000)}) == 2000
    assert seeds[:10] == row_seeds(7, 10)
