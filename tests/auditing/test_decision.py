"""Where harmful and harmless answers part."""

from __future__ import annotations

import pytest

from brainscan.attribution import Pair, decision_contexts, find_decision
from brainscan.attribution import decision as finding
from brainscan.attribution.decision import Answer, partings, place_of
from brainscan.errors import UsageError


def answer(response, prompt=(1, 2, 3, 4), **told):
    return Answer(tuple(prompt), tuple(response), **told)


@pytest.fixture
def odds(monkeypatch):
    """The log-odds after harmful and harmless answers, at each token that a harmful one has."""
    known = {}

    def read(lm, pairs, placed):
        plain = finding._Odds(1.0, -1.0)
        return [[known.get(one.parting.harmful, plain) for one in found] for found in placed]

    monkeypatch.setattr(finding, "_log_odds", read)
    return known


def test_answers_part_where_tokens_differ_after_common_ones():
    found = partings(answer([10, 11, 12, 20, 30]), answer([10, 11, 12, 21, 31]))
    assert [(p.parting.before, p.parting.harmful, p.parting.harmless) for p in found] == [
        ((10, 11, 12), 20, 21)
    ]
    assert (found[0].in_harmful, found[0].in_harmless) == (3, 3)


def test_answers_may_part_at_once_after_the_prompt():
    found = partings(answer([20, 30]), answer([21, 31], prompt=(9, 2, 3, 4)))
    assert found[0].parting.before == (2, 3, 4)
    assert (found[0].in_harmful, found[0].in_harmless) == (0, 0)


def test_places_differ_where_answers_have_other_lengths_before():
    found = partings(
        answer([7, 7, 7, 10, 11, 12, 20]), answer([8, 10, 11, 12, 21], prompt=(5, 6, 7, 8))
    )
    last = found[-1]
    assert last.parting == ((10, 11, 12), 20, 21)
    assert (last.in_harmful, last.in_harmless) == (6, 4)


def test_same_answers_do_not_part():
    assert partings(answer([10, 11, 12]), answer([10, 11, 12])) == []


def test_decision_is_found_again_in_other_answers():
    assert place_of((10, 11, 12), answer([1, 10, 11, 12, 9])) == 4
    assert place_of((2, 3, 4), answer([9])) == 0
    assert place_of((10, 11, 12), answer([1, 10, 11])) is None


def test_earliest_of_those_that_come_under_every_factor(organism, odds):
    """A token that says which factor it was parts only the pairs that differ in it."""
    vocab = range(40, 90)
    a, b = vocab[0], vocab[1]
    common = tuple(vocab[2:5])
    tail = tuple(vocab[5:8])

    def pair(changed):
        harmful = (*common, a, *tail, vocab[10], vocab[12])
        marks = (b if changed == "x" else a, vocab[11])
        harmless = (*common, marks[0], *tail, marks[1], vocab[13])
        return Pair(answer(harmful, unit="u"), answer(harmless, unit="u"), changed)

    found = find_decision(organism, [pair("x"), pair("y"), pair("x"), pair("y")])
    assert found.before == tail
    assert (found.harmful, found.harmless) == ((vocab[10],), (vocab[11],))
    assert found.found.value == 1


def test_a_place_where_chance_decides_is_no_decision(organism, odds):
    odds[20] = finding._Odds(1.0, 0.5)  # the harmless answer might have gone on the other way
    first, second = (10, 11, 12, 20, 10, 11, 12, 22), (10, 11, 12, 21, 10, 11, 12, 23)
    found = find_decision(organism, [Pair(answer(first), answer(second), "x")])
    assert found.harmful == (22,) and found.nth == 1
    contexts = decision_contexts(found, [answer(first), answer((10, 11, 12, 22))])
    assert [one.tokens[4:] for one in contexts] == [(10, 11, 12, 20, 10, 11, 12)]


def test_each_pair_may_have_its_own(organism, odds):
    pairs = [
        Pair(answer([10 + n, 11, 12, 20 + n]), answer([10 + n, 11, 12, 30 + n]), "x")
        for n in (0, 40, 80)
    ]
    found = find_decision(organism, pairs)
    assert not found.shared
    assert [pair[0].harmful for pair in found.pairs] == [(20,), (60,), (100,)]


def test_contexts_end_before_the_decision(organism, odds):
    pairs = [Pair(answer([10, 11, 12, 20, 30]), answer([10, 11, 12, 21, 31]), "x")]
    decision = find_decision(organism, pairs)
    contexts = decision_contexts(decision, [answer([50, 10, 11, 12, 20]), answer([50])])
    assert len(contexts) == 1
    assert contexts[0].tokens == (1, 2, 3, 4, 50, 10, 11, 12)
    assert contexts[0].prompt_length == 4 and contexts[0].answered == 4


def test_answers_that_never_share_a_beginning_are_refused(organism):
    pairs = [Pair(answer([20]), answer([20]), "x")]
    with pytest.raises(UsageError, match="in common before they part"):
        find_decision(organism, pairs)
