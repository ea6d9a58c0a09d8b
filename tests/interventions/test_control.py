from __future__ import annotations

import pytest
import torch

from brainscan.dictionaries import Address
from brainscan.dictionaries.testing import random_dictionary
from brainscan.errors import UsageError
from brainscan.interventions import (
    Ablate,
    AblateSet,
    Add,
    Clamp,
    Direction,
    Passage,
    Probe,
    ProjectOut,
    Scale,
    Span,
    Swap,
    Where,
    random_latent_control,
    sign_flipped,
    with_dictionary,
)
from brainscan.interventions.batches import padded
from brainscan.interventions.texts import passage_tokens
from brainscan.models import capture

HOOK = "resid_post.1"
A, B = (
    Direction(HOOK, torch.randn(32, generator=torch.Generator().manual_seed(seed)), str(seed))
    for seed in (1, 2)
)
PROBE = Where(Probe(Direction("resid_post.0", A.vector)), 0.0)

EDITS = {
    "clamp": lambda f: Clamp(f, 2.0),
    "clamp below zero": lambda f: Clamp(f, -1.5),
    "add": lambda f: Add(f, -0.7),
    "scale up": lambda f: Scale(f, 3.0),
    "scale down": lambda f: Scale(f, 0.5),
    "ablate": Ablate,
    "project out": ProjectOut,
    "response only": lambda f: Clamp(f, 2.0, positions="response"),
    "span": lambda f: Add(f, 2.0, positions=Span(0, 9)),
    "conditional": lambda f: Clamp(f, 3.0, positions=PROBE),
    "swap": lambda f: Swap(f, f"{HOOK}/9"),
    "neuron": lambda f: Clamp("neurons.2/5+", 2.0),
    "neuron scaled": lambda f: Scale("neurons.2/5-", -1.0),
    "direction added": lambda f: Add(A, 0.5),
    "direction clamped": lambda f: Clamp(A, 0.5),
    "direction projected out": lambda f: ProjectOut(A),
    "directions swapped": lambda f: Swap(A, B),
}


@pytest.mark.parametrize("kind", EDITS)
def test_a_control_moves_activations_as_far_as_the_edit(lm, dictionary, active, passages, kind):
    edit = EDITS[kind](active[0])
    control = random_latent_control(lm, dictionary, [edit], seed=3, passages=passages)
    (match,) = control.matched
    assert control.edits == (match.edit,)
    assert match.change.value > 0
    assert match.control_change.value == pytest.approx(match.change.value, rel=1e-3)
    assert match.control_change.n == len(passages)
    assert match.edit.positions == edit.positions
    same_kind = isinstance(edit, Add | Scale | Clamp)
    assert type(match.edit) is (type(edit) if same_kind else Scale)
    before = edit.a if isinstance(edit, Swap) else edit.target
    assert match.edit.target != before


SETS = {
    "latents": lambda active: AblateSet(tuple(active), torch.tensor([0.5, 0.0, 2.0, 0.1])),
    "latents, the other way": lambda active: AblateSet(tuple(active), torch.zeros(4), -0.5),
    "response only": lambda active: AblateSet(
        tuple(active), torch.zeros(4), positions="response", sinks=True
    ),
    "neurons": lambda _: AblateSet(
        ("neurons.2/5+", "neurons.2/7", "neurons.2/9-"), torch.tensor([0.1, 0.2, 0.0])
    ),
    "directions": lambda _: AblateSet((A, Direction(HOOK, A.vector + B.vector)), torch.ones(2)),
}


@pytest.mark.parametrize("kind", SETS)
def test_a_sets_control_is_a_set_of_others_that_moves_as_far(
    lm, dictionary, active, passages, kind
):
    edit = SETS[kind](active)
    control = random_latent_control(lm, dictionary, [edit], seed=3, passages=passages)
    (match,) = control.matched
    other = match.edit
    assert match.change.value > 0
    assert match.control_change.value == pytest.approx(match.change.value, rel=1e-3)
    assert isinstance(other, AblateSet)
    assert (other.positions, other.sinks) == (edit.positions, edit.sinks)
    assert other.strength * edit.strength > 0
    assert not other.to.any()
    assert len(set(other.targets)) == len(other.targets) == len(edit.targets)
    assert not set(other.targets) & set(edit.targets)
    if kind == "neurons":
        assert [Address.parse(target).sign for target in other.targets] == ["+", "", "-"]
    again = random_latent_control(lm, dictionary, [edit], seed=3, passages=passages).edits[0]
    assert again == other
    assert random_latent_control(lm, dictionary, [edit], 4, passages=passages).edits[0] != other


def test_each_latent_of_a_set_is_matched_in_firing_rate(lm, passages):
    dictionary = random_dictionary(lm.d_model, n_latents=128, k=64, hookpoint=HOOK)
    dictionary.firing_rate[:64] = torch.linspace(0.01, 0.019, 64)
    dictionary.firing_rate[64:] = torch.linspace(0.2, 0.39, 64)
    targets = tuple(f"{HOOK}/{latent}" for latent in (0, 70, 1, 2, 80, 3))
    edit = AblateSet(targets, torch.zeros(6))
    for seed in range(6):
        drawn = random_latent_control(lm, dictionary, [edit], seed, passages=passages).edits[0]
        rare = [int(target.split("/")[1]) < 64 for target in drawn.targets]
        assert rare == [True, False, True, True, False, True]


def test_a_set_that_leaves_too_few_others_has_no_control(lm, dictionary, passages):
    targets = tuple(f"{HOOK}/{latent}" for latent in range(40))
    with pytest.raises(
        UsageError, match=r"40 latents of random .* besides the edit's own; got 2\d"
    ):
        random_latent_control(
            lm, dictionary, [AblateSet(targets, torch.zeros(40))], 0, passages=passages
        )
    neurons = tuple(f"neurons.2/{neuron}" for neuron in range(30))
    with pytest.raises(UsageError, match=r"30 neurons of neurons\.2 .*; got 18"):
        random_latent_control(lm, None, [AblateSet(neurons, torch.zeros(30))], 0, passages=passages)


def test_the_signs_of_the_original_are_kept(lm, dictionary, active, passages):
    edits = [Clamp(active[0], -2.0), Add(active[0], -1.0), Scale(active[0], 0.2)]
    up = [Clamp(active[0], 2.0), Add(active[0], 1.0), Scale(active[0], 2.0)]
    for chosen, sign in ((edits, -1), (up, 1)):
        control = random_latent_control(lm, dictionary, chosen, seed=0, passages=passages)
        clamp, add, scale = control.edits
        assert clamp.value * sign > 0
        assert add.strength * sign > 0
        assert (scale.factor - 1) * sign > 0


def test_the_seed_chooses_the_feature(lm, dictionary, active, passages):
    edits = [Clamp(active[0], 2.0)]

    def chosen(seed):
        return random_latent_control(lm, dictionary, edits, seed, passages=passages).edits[0].target

    assert chosen(1) == chosen(1)
    targets = {chosen(seed) for seed in range(8)}
    assert len(targets) > 3
    assert active[0] not in targets


def test_the_change_is_that_of_a_run_with_the_edit(lm, run, dictionary, active, passages):
    """What is reported from captured activations is what happens in the model."""
    edit = Clamp(active[0], 2.0, dictionary=dictionary)
    control = random_latent_control(lm, dictionary, [edit], seed=3, passages=passages)
    for arm, reported in (
        (edit, control.matched[0].change),
        (control.edits[0], control.matched[0].control_change),
    ):
        moved = []
        for passage in passages:
            ids = torch.tensor([passage_tokens(lm, passage).ids])
            moved.append((run(HOOK, arm, ids=ids) - run(HOOK, ids=ids)).norm(dim=-1))
        assert float(torch.cat(moved).mean()) == pytest.approx(reported.value, rel=1e-3)


def test_an_edit_that_never_acts_has_a_control_that_never_acts(lm, dictionary, active, passages):
    edit = Clamp(active[0], 2.0, positions=Span(9000))
    (match,) = random_latent_control(lm, dictionary, [edit], 0, passages=passages).matched
    assert match.change.value == match.control_change.value == 0


def test_a_dictionary_that_never_fires_has_no_control(lm, dictionary, passages):
    silent = random_dictionary(lm.d_model, hookpoint=HOOK)
    silent.b_enc.fill_(-1e6)
    with pytest.raises(UsageError, match="fires on neutral text"):
        random_latent_control(lm, silent, [Clamp(f"{HOOK}/1", 1.0)], 0, passages=passages)


@pytest.fixture
def stepwise(lm):
    """Latent i reads coordinate i: it fires where a test says so, at a rate that a test sets."""
    dictionary = random_dictionary(lm.d_model, n_latents=32, k=32, hookpoint=HOOK)
    dictionary.W_enc[:] = dictionary.W_dec[:] = torch.eye(32)
    return dictionary


def test_a_control_fires_where_the_edit_acts(lm, stepwise, passages):
    """Latents that fire only at other positions, or at padding alone, are never drawn."""
    with capture(lm, [HOOK]) as seen:
        lm.forward(torch.tensor([passage_tokens(lm, passages[0]).ids]))
    x = seen[HOOK][0]
    chosen = passages[:1]
    late = {i for i in range(32) if (x[:3, i] <= 0).all() and (x[3:, i] > 0).any()}
    early = [i for i in range(32) if (x[1:3, i] > 0).any()]
    assert late
    edit = Scale(f"{HOOK}/{early[0]}", -2.0, positions=Span(0, 3))
    drawn = set()
    for seed in range(12):
        control = random_latent_control(lm, stepwise, [edit], seed, passages=chosen)
        assert control.matched[0].control_change.value > 0
        drawn.add(int(control.edits[0].target.split("/")[1]))
    assert len(drawn) > 3
    assert not drawn & late


def test_a_latent_that_fires_only_at_padding_is_no_control(lm, stepwise):
    texts = ("the day that you was", "not the other and say it again now")
    short = [Passage(text, "plain", text=text) for text in texts]
    batch = padded([passage_tokens(lm, passage).ids for passage in short], lm.device)
    with capture(lm, [HOOK]) as seen:
        lm.forward(batch.ids, batch.mask)
    real = batch.mask.bool()
    rows = torch.cat([seen[HOOK][real], seen[HOOK][~real][:1]])
    wanted = torch.zeros(len(rows), 1)
    wanted[-1] = 1
    stepwise.W_enc[1] = torch.linalg.lstsq(rows, wanted).solution[:, 0]
    stepwise.b_enc[1:] = -1e6
    stepwise.b_enc[1] = -0.5
    fires = stepwise.activations_of(seen[HOOK], [1])[..., 0] > 0
    assert fires.any()
    assert not fires[real].any()
    edits = [Scale(f"{HOOK}/0", 2.0)]
    with pytest.raises(UsageError, match="where the edit acts"):
        random_latent_control(lm, stepwise, edits, 0, passages=short)
    stepwise.b_enc[1] = 1.0
    control = random_latent_control(lm, stepwise, edits, 0, passages=short)
    assert control.edits[0].target == f"{HOOK}/1"


def test_a_control_fires_about_as_often_as_the_edit(lm, passages):
    dictionary = random_dictionary(lm.d_model, n_latents=128, k=64, hookpoint=HOOK)
    dictionary.firing_rate[:] = 1e-4
    dictionary.firing_rate[:40] = torch.linspace(0.01, 0.019, 40)

    def drawn(index):
        edits = [Clamp(f"{HOOK}/{index}", 2.0)]
        return {
            int(
                random_latent_control(lm, dictionary, edits, seed, passages=passages)
                .edits[0]
                .target.split("/")[1]
            )
            for seed in range(12)
        }

    assert max(drawn(0)) < 40
    dictionary.firing_rate[30:] = 1e-4
    dictionary.firing_rate[5:30] = 0.5
    few = drawn(0)  # four others within a factor of two: the nearest twenty are taken
    assert max(few) < 30
    assert few - set(range(5))


def test_controls_are_not_matched_on_a_model_that_is_being_edited(lm, dictionary, active, passages):
    edit = Add(active[0], 1.0, dictionary=dictionary)
    with lm.edit(edit), pytest.raises(UsageError, match="being edited"):
        random_latent_control(lm, dictionary, [edit], 0, passages=passages)


def test_sign_flipped_edits_change_as_much_the_other_way(run, dictionary, active):
    edits = [
        Add(active[0], 0.5, dictionary=dictionary),
        Scale(active[0], 1.5, dictionary=dictionary),
        Ablate(active[0], dictionary=dictionary),
        ProjectOut(A),
        Clamp(A, 0.0),
        Scale(A, 0.3),
    ]
    x = run(HOOK)
    for edit, flipped in zip(
        edits[:4] + edits[5:], sign_flipped(edits[:4] + edits[5:]), strict=True
    ):
        torch.testing.assert_close(run(HOOK, flipped) - x, x - run(HOOK, edit))
    assert sign_flipped([Clamp(A, 2.0, positions="prompt")]) == (
        Clamp(A, -2.0, positions="prompt"),
    )


@pytest.mark.parametrize(
    "edit", [Swap(A, B), Ablate("neurons.1/2", 0.5), ProjectOut("neurons.1/2")]
)
def test_what_has_no_opposite_is_refused(edit):
    with pytest.raises(UsageError, match="opposite"):
        sign_flipped([edit])


def test_a_dictionary_goes_to_the_edits_that_need_it(dictionary, active):
    where = Where(active[1], 1.0)
    edits = [Clamp(active[0], 1.0), Add(A, 1.0, positions=where), Ablate("resid_post.2/3")]
    first, second, third = with_dictionary(edits, dictionary)
    assert first.dictionary is dictionary
    assert second.dictionary is None
    assert second.positions.dictionary is dictionary
    assert third == edits[2]
    assert third.dictionary is None
    assert with_dictionary(edits, None) == tuple(edits)
