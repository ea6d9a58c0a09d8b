from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from brainscan.activations import find_sinks
from brainscan.errors import UsageError
from brainscan.interventions import Add, Clamp, Direction, Probe, Span, Where
from brainscan.interventions.positions import check_positions
from brainscan.interventions.sinks import sinks_at
from brainscan.models import capture
from brainscan.models.generate import Sampling

HOOK = "resid_post.1"
DIRECTION = Direction(HOOK, torch.randn(32, generator=torch.Generator().manual_seed(1)), "d")


def _changed(run, edit, **options):
    """Which tokens an edit changes at its hookpoint."""
    return (run(HOOK, edit, **options) != run(HOOK, **options)).any(-1).nonzero()[:, 0].tolist()


def test_prompt_and_response(run, ids):
    n = ids.shape[1]
    assert _changed(run, Add(DIRECTION, 1.0, positions="prompt")) == list(range(1, n))
    assert _changed(run, Add(DIRECTION, 1.0, positions="response")) == []
    split = {"prompt_lengths": [3]}
    assert _changed(run, Add(DIRECTION, 1.0, positions="prompt"), **split) == [1, 2]
    assert _changed(run, Add(DIRECTION, 1.0, positions="response"), **split) == list(range(3, n))


def test_a_span_counts_from_the_first_token_whatever_the_padding(run, ids):
    n = ids.shape[1]
    assert _changed(run, Add(DIRECTION, 1.0, positions=Span(2, 4))) == [2, 3]
    assert _changed(run, Add(DIRECTION, 1.0, positions=Span(n - 2))) == [n - 2, n - 1]
    padding = torch.zeros(1, 5, dtype=torch.long)
    left = {
        "ids": torch.cat([padding, ids], dim=1),
        "mask": torch.cat([padding, torch.ones_like(ids)], dim=1),
    }
    assert _changed(run, Add(DIRECTION, 1.0, positions=Span(2, 4)), **left) == [7, 8]
    assert _changed(run, Add(DIRECTION, 1.0), **left) == list(range(6, 5 + n))


def test_sinks_are_left_alone_unless_asked_for(lm, site):
    x = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
    x[0, 3] *= 100
    spot = site(2, 6)

    def changed(**options):
        ((_, hook),) = Add(DIRECTION, 1.0, **options).attach(lm)
        return (hook(x, spot) != x).any(-1).int().tolist()

    assert changed() == [[0, 1, 1, 0, 1, 1], [0, 1, 1, 1, 1, 1]]
    assert changed(positions="prompt") == changed()
    assert changed(sinks=True) == [6 * [1], 6 * [1]]
    assert changed(positions=Span(0, 4))[0] == [1, 1, 1, 1, 0, 0]


def test_sinks_are_those_that_harvests_leave_out():
    x = torch.randn(3, 9, 32, generator=torch.Generator().manual_seed(0))
    x[0, 0], x[1, 4], x[2, 5:7] = 99 * x[0, 0], 99 * x[1, 4], 99 * x[2, 5:7]
    positions = torch.arange(9).expand(3, 9)
    assert torch.equal(sinks_at(x, positions), find_sinks(x))
    padding = torch.full((3, 4, 32), 1e4)
    shifted = torch.cat([torch.full((3, 4), -1), positions], dim=1)
    padded = sinks_at(torch.cat([padding, x], dim=1), shifted)
    assert torch.equal(padded[:, 4:], find_sinks(x))


@pytest.mark.parametrize("start", [0, 1, 7])
def test_a_token_read_alone_is_a_sink_only_as_the_first(lm, site, start):
    x = 100 * torch.randn(2, 1, 32)
    ((_, hook),) = Add(DIRECTION, 1.0).attach(lm)
    assert bool((hook(x, site(2, 1, start=start)) != x).any()) is (start > 0)


def test_where_a_feature_of_the_same_hookpoint_passes_its_threshold(run, dictionary, active):
    watched = int(active[0].split("/")[1])
    activation = dictionary.activations_of(run(HOOK), [watched])[:, 0]
    threshold = float(activation[activation > 0].median())
    expected = (activation > threshold).nonzero()[:, 0].tolist()
    assert 0 < len(expected) < len(activation)
    where = Where(active[0], threshold, dictionary=dictionary)
    edit = Clamp(active[1], 9.0, positions=where, dictionary=dictionary)
    assert _changed(run, edit) == expected


@pytest.mark.parametrize("read_at", ["resid_post.0", "attn_out.1", HOOK])
def test_where_a_probe_passes_at_the_same_or_an_earlier_hookpoint(run, read_at):
    mean = torch.full((32,), 0.1)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(2))
    scores = (run(read_at) - mean) @ vector + 0.5
    middle = len(scores) // 2
    threshold = float(scores.sort().values[middle : middle + 2].mean())
    probe = Probe(Direction(read_at, vector, "probe", mean), bias=0.5)
    edit = Add(DIRECTION, 1.0, positions=Where(probe, threshold))
    passed = (scores > threshold).nonzero()[:, 0].tolist()
    assert _changed(run, edit) == [position for position in passed if position > 0]


@pytest.mark.parametrize("read_at", ["resid_post.0", HOOK])
def test_a_condition_within_a_part_of_the_text_counts_only_there(run, read_at):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(2))
    scores = run(read_at) @ vector
    middle = len(scores) // 2
    threshold = float(scores.sort().values[middle : middle + 2].mean())
    passed = [n for n in range(1, len(scores)) if scores[n] > threshold]
    split = {"prompt_lengths": [passed[2]]}
    before, after = passed[:2], passed[2:]
    assert after

    def changed(within, **options):
        where = Where(Probe(Direction(read_at, vector)), threshold, within=within)
        return _changed(run, Add(DIRECTION, 1.0, positions=where), **options)

    assert changed("all", **split) == passed
    assert changed("prompt", **split) == before
    assert changed("response", **split) == after
    assert changed("prompt") == passed
    assert changed("response") == []


@pytest.mark.parametrize("read_at", ["resid_post.0", HOOK])
def test_a_condition_within_the_response_in_generation(lm, read_at):
    """It acts as one on all tokens does, from the first new token on."""
    prompts = [lm.tokenize("the day"), lm.tokenize("that you was with one word")]
    always = Probe(Direction(read_at, torch.ones(32)))
    seen = []

    class Recorder:
        def __init__(self, within):
            where = Where(always, -1e9, within=within)
            self.edit = Add(DIRECTION, 1.0, positions=where)

        def attach(self, model):
            *readers, (hookpoint, hook) = self.edit.attach(model)

            def watched(x, site):
                edited = hook(x, site)
                seen.append(((edited != x).any(-1), site))
                return edited

            return [*readers, (hookpoint, watched)]

    for within in ("prompt", "response"):
        seen.clear()
        lm.generate(prompts, Sampling(max_new_tokens=4), edits=[Recorder(within)])
        (first, site), *rest = seen
        assert rest
        assert torch.equal(first, (site.positions > 0) & (within == "prompt"))
        assert all((changed == (within == "response")).all() for changed, _ in rest)


def test_a_part_of_the_text_that_there_is_not_is_refused():
    where = Where("resid_post.1/3", 1.0)
    object.__setattr__(where, "within", "thoughts")
    with pytest.raises(UsageError, match="'prompt' or 'response'; got 'thoughts'"):
        check_positions(where)
    with pytest.raises(UsageError, match="got 'thoughts'"):
        Add(DIRECTION, 1.0, positions=where)


def test_where_sees_what_former_edits_of_the_hookpoint_made(run, dictionary, active):
    where = Where(active[0], 4.0, dictionary=dictionary)
    edit = Add(DIRECTION, 1.0, positions=where)
    assert _changed(run, edit) == []
    raised = Clamp(active[0], 50.0, dictionary=dictionary)
    assert not torch.equal(run(HOOK, raised, edit), run(HOOK, raised))


def test_a_condition_cannot_be_read_later_than_the_edit(lm):
    later = Where(Probe(Direction("mlp_out.2", torch.ones(32))), 0.0)
    with pytest.raises(UsageError, match=r"resid_post\.1 or earlier; got mlp_out\.2"):
        Add(DIRECTION, 1.0, positions=later).attach(lm)


def test_positions_in_generation_with_left_padding_and_a_cache(lm):
    """Each new token is read once; a response edit acts on it and never on the prompt."""
    prompts = [lm.tokenize("the day"), lm.tokenize("that you was with one word")]
    seen = {"prompt": [], "response": []}

    class Recorder:
        def __init__(self, positions):
            self.edit = Add(DIRECTION, 1.0, positions=positions)
            self.positions = positions

        def attach(self, model):
            ((hookpoint, hook),) = self.edit.attach(model)

            def watched(x, site):
                edited = hook(x, site)
                changed = (edited != x).any(-1)
                seen[self.positions].append((changed, site.positions))
                return edited

            return [(hookpoint, watched)]

    recorders = [Recorder("prompt"), Recorder("response")]
    lm.generate(prompts, Sampling(max_new_tokens=4), edits=recorders)
    first, *rest = seen["prompt"]
    assert torch.equal(first[0], first[1] > 0)
    assert not any(changed.any() for changed, _ in rest)
    first, *rest = seen["response"]
    assert not first[0].any()
    assert rest
    assert all(changed.all() for changed, _ in rest)


def test_a_where_condition_keeps_no_state_between_forwards(lm, ids):
    probe = Probe(Direction("resid_post.0", torch.ones(32)))
    with lm.edit(Add(DIRECTION, 1.0, positions=Where(probe, 0.0))), capture(lm, [HOOK]) as seen:
        lm.forward(ids)
        first = seen[HOOK]
        lm.forward(ids[:, :3])
        lm.forward(ids)
    assert torch.equal(seen[HOOK], first)


def test_a_token_of_the_answer_is_no_sink_however_many_are_read_at_once(lm, site):
    x = torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(0))
    x[0, 2] *= 1000
    x[0, 6] *= 1000
    spot = replace(site(1, 8), is_prompt=torch.arange(8)[None] < 4)
    ((_, hook),) = Add(DIRECTION, 1e4).attach(lm)
    assert (hook(x, spot) != x).any(-1)[0].int().tolist() == [0, 1, 0, 1, 1, 1, 1, 1]
