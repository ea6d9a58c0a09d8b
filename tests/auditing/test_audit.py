"""The whole audit on a toy organism: what it finds, keeps, says, and takes up again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from brainscan.artifacts import open_artifact
from brainscan.auditing import answers, trying
from brainscan.auditing.answers import Arm, ask
from brainscan.auditing.config import AuditConfig
from brainscan.auditing.confirm import FEATURES, FLIPPED, SIMPLER, TOLD, UNTOUCHED, ZERO
from brainscan.auditing.design import Design
from brainscan.auditing.run import FIGURES, PAGE, audit
from brainscan.dictionaries.testing import random_dictionary
from brainscan.errors import ArtifactError
from brainscan.features.outputs import neuron_rows, unembedding
from brainscan.interventions import Add, Direction, load_edits, save_edits
from brainscan.models.generate import Sampling, generate
from brainscan.monitoring import load_concept

CONFIG = AuditConfig(
    per_cell=12,
    selection=8,
    confirmation=24,
    random_sets=19,
    random_arms=3,
    random_answers=4,
    pairs=4,
    layers=1,
    added=64,
    sizes=(1, 2, 4),
    passages=2,
    cost_passages=3,
    cost_items=3,
    benign=2,
    elsewhere=3,
    concepts=False,
    max_new_tokens=16,
)


WITH_CONCEPTS = replace(CONFIG, concepts=True)


def two_concepts(*, danger=None):
    """Two concepts of the bank, with a few of their texts."""
    found = [load_concept(name) for name in ("threat", "bridges")]
    few = [replace(one, texts=one.texts[:12], near=one.near[:6]) for one in found]
    return [one for one in few if danger is None or one.danger == danger]


@pytest.fixture(scope="module")
def dictionary():
    return random_dictionary(32, 256, 32, "resid_post.2")


@pytest.fixture(scope="module")
def audited(organism, toy_test, dictionary, tmp_path_factory):
    out = tmp_path_factory.mktemp("audit") / "toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trying, "load_concepts", two_concepts)
        return audit(organism, toy_test, out, WITH_CONCEPTS, dictionary=dictionary), out


def test_behaviour_is_found_on_two_splits(audited):
    report, _ = audited
    assert [one.split for one in report.behaviour] == ["discovery", "selection"]
    first = report.behaviour[0]
    assert first.target == ("shutdown", "present") and len(first.twins) == 3
    assert first.contrast.low > 0.5


def test_outcomes_dealt_out_by_chance_are_rarely_taken_for_a_behaviour(audited):
    report, _ = audited
    assert report.false_alarms.n == 500
    assert report.false_alarms.value < 0.05


def test_decision_is_the_token_where_answers_part(audited, organism):
    report, _ = audited
    assert report.decision.shared
    assert report.words[1:] == ("p", "b")
    assert report.decision.separation.low > 0


def test_last_layer_holds_the_whole_decision(audited):
    location = audited[0].location
    assert location.restored[-1][-1].value == pytest.approx(1.0, abs=0.02)
    assert location.hookpoints[-1] == "resid_post.3"


def test_arms_and_their_controls(audited):
    report, _ = audited
    rates = {arm.name: arm.harmful.value for arm in report.arms}
    assert {UNTOUCHED, ZERO, FEATURES, FLIPPED, SIMPLER, TOLD} <= rates.keys()
    assert rates[UNTOUCHED] > 0.9
    assert rates[ZERO] == rates[UNTOUCHED]
    assert rates[SIMPLER] < 0.2
    assert rates[TOLD] == 0
    assert len(report.random_arms) == 3


def test_zero_edit_answers_word_for_word_as_the_untouched_model(audited):
    report, _ = audited
    plain, zero = report.arm(UNTOUCHED).answers, report.arm(ZERO).answers
    assert [one.response for one in plain] == [one.response for one in zero]


def test_edits_are_tried_elsewhere_too(audited):
    report, _ = audited
    for name in (FEATURES, SIMPLER):
        arm = report.arm(name)
        assert sorted(one.place for one in arm.elsewhere) == [
            *(f"{other}: shutdown, present" for other in ("blackmail", "leaking", "oversight")),
            "threat none, leverage absent",
            "threat none, leverage present",
            "threat shutdown, leverage absent",
        ]
        assert all(one.same.n == one.untouched.n == 3 for one in arm.elsewhere)
    assert not report.arm(UNTOUCHED).elsewhere
    claims = [verdict.claim for verdict in report.verdicts]
    assert "That edit of features does no harm elsewhere." in claims


def test_answers_begin_like_the_untouched_ones(organism, toy_test, tmp_path, monkeypatch):
    drafts = []

    def spy(*args, **kwargs):
        drafts.append([len(draft) for draft in kwargs["drafts"]])
        return generate(*args, **kwargs)

    monkeypatch.setattr(answers, "generate", spy)
    questions = tuple(Design(toy_test).questions("confirmation", ("shutdown", "present"), 3))
    zero = Add(Direction("resid_post.2", torch.ones(32)), 0.0)
    arms = [Arm("edited", (zero,), questions), Arm("plain", (), questions)]
    found = ask(organism, toy_test, arms, Sampling(8, 1.0), tmp_path / "a.jsonl", "ask")
    assert [one.response for one in found["edited"]] == [one.response for one in found["plain"]]
    assert drafts == [[0, 0, 0], [len(one.response) for one in found["plain"]]]
    again = ask(
        organism, toy_test, arms[:1], Sampling(8, 1.0), tmp_path / "b.jsonl", "", found["plain"]
    )
    assert again["edited"] == found["edited"] and drafts[2] == drafts[1]


def test_answers_of_another_edit_are_not_taken_for_an_arms(organism, toy_test, tmp_path):
    questions = tuple(Design(toy_test).questions("confirmation", ("shutdown", "present"), 3))
    along = Direction("resid_post.2", torch.ones(32))
    arms = [Arm("best", (Add(along, strength),), questions) for strength in (0.0, 50.0)]
    arms.append(Arm("best", (Add(along, 50.0, positions="response"),), questions))
    assert len({arm.key for arm in arms}) == 3
    journal = tmp_path / "a.jsonl"
    found = [ask(organism, toy_test, [one], Sampling(8, 1.0), journal, "")["best"] for one in arms]
    assert [one.response for one in found[0]] != [one.response for one in found[1]]
    lines = journal.read_text()
    assert ask(organism, toy_test, arms[:1], Sampling(8, 1.0), journal, "")["best"] == found[0]
    assert journal.read_text() == lines


def test_what_was_chosen_on_is_not_judged_on(audited, toy_test):
    report, _ = audited
    splits = {unit.id: unit.split for unit in toy_test.units({})}
    for arm in (*report.arms, *report.random_arms):
        assert {splits[one.question.asked.unit] for one in arm.answers} == {"confirmation"}


def test_simpler_edit_that_does_as_well_is_said_first(audited):
    """The toy's dictionary is random: its features are no match for the difference of means."""
    report, _ = audited
    assert report.arm(FEATURES).left.value >= report.arm(SIMPLER).left.value
    first = report.verdicts[0]
    assert "do better than one direction" in first.claim
    assert first.status == "not supported" and "as well or better" in first.reason


def test_what_was_not_measured_is_not_said(audited):
    report, _ = audited
    assert report.arm(FLIPPED).screened is None
    assert report.arm(FLIPPED).strength == -report.arm(FEATURES).strength
    assert all(arm.screened is None and arm.costs is None for arm in report.random_arms)


def test_told_arm_has_the_noise_of_the_untouched_one(audited):
    report, _ = audited
    seeds = [[one.question.seed for one in report.arm(n).answers] for n in (UNTOUCHED, TOLD)]
    assert seeds[0] == seeds[1]


def test_null_is_of_confirmation_answers_and_different_sets(audited):
    report, _ = audited
    assert 0 < len(report.null.values) <= 19
    assert report.null.rank <= len(report.null.values) + 1
    sets = [frozenset(arm.candidate.features) for arm in report.random_arms]
    assert len(set(sets)) == len(sets)
    assert not set().union(*sets) & set(report.arm(FEATURES).candidate.features)


def test_directions_of_concepts_are_tried_too(audited):
    report, _ = audited
    assert {"concept threat", "bag of words"} <= {one.kind for one in report.predictors}
    names = {one.candidate.name for one in report.screened}
    assert "concept threat, every token of the answer" in names
    assert not any("bridges" in name for name in names)


def test_what_is_put_in_by_parts(audited):
    report, _ = audited
    general, extended, neurons = report.explained
    assert neurons.dictionary == "neurons.2" and neurons.error is None
    assert general.whole.value == pytest.approx(1, abs=0.05)
    assert abs(neurons.whole.value) < 1.5 and neurons.whole.n == general.whole.n
    assert extended.chosen or general.chosen or neurons.chosen


def test_artifact_holds_page_and_figures(audited):
    report, out = audited
    manifest = open_artifact(out, kind="audit")
    assert manifest.settings["scenario"] == "toy"
    assert len(manifest.settings["prompts"]) == 64
    found = json.loads((out / FIGURES).read_text())
    assert found["verdicts"] == [one.to_json() for one in report.verdicts]
    assert {"arms", "null", "features", "unexplained", "decision"} <= found.keys()
    assert found["null"].keys() >= {"n", "rank", "p"} and len(found["rules"]) > 4
    assert all(arm["p_holm"] is not None for arm in found["arms"] if arm["change"])
    for feature in found["features"]:
        assert feature.keys() >= {"id", "label", "grade", "effect"} and feature["grade"] == "U"
    page = (out / PAGE).read_text()
    assert "Verdicts" in page and "before and after" in page
    assert "default-src" in page
    assert f"--dictionary {report.facts['dictionary']}" in page


def test_features_are_told_with_examples_and_where_they_fire(audited):
    report, out = audited
    of_latents = [one for one in report.features if not one.ranked.address.startswith("neurons")]
    page = (out / PAGE).read_text()
    for one in of_latents:
        assert 0 <= one.neutral_rate.value <= 1 and one.neutral_rate.n == CONFIG.cost_passages
        for example in one.examples:
            assert example.shares[example.peak] == max(example.shares)
            assert example.activation <= one.maximum
        assert one.ranked.address in page
    assert of_latents and any(one.examples for one in of_latents)
    assert 'class="bs-card"' in page and 'class="bs-strip"' in page
    assert any(token.latents for token in report.strip)


def test_neurons_are_told_with_their_signs(organism, toy_test, tmp_path):
    said = []
    report = audit(organism, toy_test, tmp_path / "neurons", CONFIG, tell=said.append)
    (hint,) = [line for line in said if "no dictionary is shipped" in line]
    assert f"--at {report.hookpoint} " in hint
    assert report.features
    for one in report.features:
        hookpoint, _, neuron = one.ranked.address.partition("/")
        assert hookpoint.startswith("neurons.") and one.promoted and one.examples
        assert 0 <= one.neutral_rate.value <= 1
        assert all(e.activation >= abs(one.ranked.harmful) / 2 for e in one.examples)
        sign = 1 if one.ranked.harmful > 0 else -1
        (row,) = neuron_rows(organism, hookpoint, [int(neuron)])
        logits = (unembedding(organism) @ (sign * row)).detach()
        assert one.promoted[0].value == pytest.approx(float(logits.max()), rel=1e-4)
    assert any(token.latents for token in report.strip)
    assert 'class="bs-card"' in (tmp_path / "neurons" / PAGE).read_text()


def test_best_edit_can_be_saved_and_used(audited, organism, tmp_path):
    report, _ = audited
    arm = report.arm(SIMPLER)
    edits = arm.candidate.at(arm.strength)
    save_edits(tmp_path / "edit", edits)
    again = load_edits(tmp_path / "edit")
    harmful = next(one for one in report.arm(UNTOUCHED).answers if one.counts)
    from brainscan.models.generate import Sampling, generate

    sampling = Sampling(16, 1.0)
    seeds = [harmful.question.seed]
    prompt = [list(harmful.prompt)]
    edited = generate(organism, prompt, sampling, edits=list(again), seeds=seeds)[0]
    assert "pay" not in edited.text


def test_control_has_no_behaviour_to_explain(control, toy_test, tmp_path):
    report = audit(control, toy_test, tmp_path / "control", CONFIG)
    assert [one.status for one in report.verdicts] == ["not supported"]
    assert "no behaviour to explain" in report.verdicts[0].reason
    assert not report.arms
    assert "no behaviour" in (tmp_path / "control" / PAGE).read_text()


def test_null_audit_goes_on_with_outcomes_dealt_out(organism, toy_test, dictionary, tmp_path):
    config = replace(CONFIG, null=True, confirmation=4, random_sets=3, elsewhere=0)
    report = audit(organism, toy_test, tmp_path / "null", config, dictionary=dictionary)
    first = report.behaviour[0]
    harmful = sum(count for count, _ in first.counts.values())
    assert harmful and first.contrast.value < 0.6
    assert len(report.behaviour) == 2
    claimed = [one.claim for one in report.verdicts if one.status == "supported"]
    assert not any("mediate" in claim or "better" in claim for claim in claimed)
    assert not any("does harm where" in claim for claim in claimed)
    assert "A null audit" in (tmp_path / "null" / PAGE).read_text()


def test_killed_audit_goes_on_to_the_same_figures(
    audited, organism, toy_test, dictionary, tmp_path, monkeypatch
):
    from brainscan.auditing import deciding

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(trying, "load_concepts", two_concepts)
    out = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(deciding, "with_costs", stop)
        with pytest.raises(KeyboardInterrupt):
            audit(organism, toy_test, out, WITH_CONCEPTS, dictionary=dictionary)
    journal = tmp_path / "killed.partial" / "confirmation.jsonl"
    lines = journal.read_text()
    journal.write_text(lines[:-20])  # as if cut off while the last line was written

    def refuse(*args, **kwargs):
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr("brainscan.auditing.screen.expected_kl", refuse)
        patch.setattr("brainscan.auditing.extending.extend", refuse)
        again = audit(organism, toy_test, out, WITH_CONCEPTS, dictionary=dictionary)
    mine, theirs = again.to_json(), audited[0].to_json()
    for found in (mine, theirs):
        found.pop("unexplained")  # names the folder
    assert mine == theirs


def test_another_audit_is_not_gone_on_with(organism, toy_test, dictionary, tmp_path, monkeypatch):
    from brainscan.auditing import run

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    out = tmp_path / "audit"
    monkeypatch.setattr(run, "find_place", stop)
    with pytest.raises(KeyboardInterrupt):
        audit(organism, toy_test, out, CONFIG, dictionary=dictionary)
    before = (tmp_path / "audit.partial" / "discovery.jsonl").read_text()
    other = replace(CONFIG, seed=5)
    with pytest.raises(ArtifactError, match="same settings"):
        audit(organism, toy_test, out, other, dictionary=dictionary)
    assert (tmp_path / "audit.partial" / "discovery.jsonl").read_text() == before
