"""Which features the decision hangs on: attribution by gradient times difference.

For a feature with activation a, read at the decision, and the decision's log-odds L:

    effect = mean over harmful contexts of dL/da * (a - mean of a over harmless contexts)

which is how much L would change, to first order, if the feature had its harmless mean (attribution
patching: Nanda 2023; Syed et al. 2023). For a latent dL/da = dL/dx . W_dec, for a neuron it is the
coordinate of dL/dx, at the hookpoint's own gradient.

Where two factors are crossed and harm needs both, a feature that only says that one of them is
there has an effect by this formula too. So the interaction is taken as well:

    interaction = mean of dL/da * (a11 - a10 - a01 + a00)

What a layer's attention or MLP writes is taken as a whole, by the same formulas summed over its
coordinates.

Features are ranked by the interaction where there is one, else by the effect. Both are first-order
guesses: the screen tests them by editing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from brainscan.attribution.contexts import Context, log_odds, replay_of
from brainscan.attribution.directions import interaction
from brainscan.dictionaries import Address, Dictionary
from brainscan.models import Hook, LanguageModel, Site
from brainscan.models.replay import Patch, Replay
from brainscan.shapes import Bool, Float, Tensor

_AT_ONCE = 16  # contexts whose layers all stay in one graph


@dataclass(frozen=True)
class Ranked:
    """A feature, and what the decision hangs on it."""

    address: str
    """Its address."""
    effect: float
    """How much the log-odds would fall if it had its harmless mean, to first order."""
    interaction: float | None
    """The same of the difference in differences; None unless two factors are crossed."""
    harmful: float
    """Its mean activation in harmful contexts."""
    harmless: float
    """Its mean activation in harmless ones."""

    @property
    def score(self) -> float:
        """What it is ranked by."""
        return self.effect if self.interaction is None else self.interaction


@dataclass(frozen=True)
class Gradients:
    """Activations at the decision, and the gradient of the log-odds there."""

    x: Float[Tensor, "context d"]
    """The activations."""
    of_log_odds: Float[Tensor, "context d"]
    """The gradients."""
    values: Float[Tensor, " context"]
    """The log-odds."""


def gradients(lm: LanguageModel, contexts: Sequence[Context], hookpoint: str) -> Gradients:
    """Activations at a hookpoint at the decision, and the gradient of the log-odds there.

    Args:
        lm: the model, without edits.
        contexts: the contexts.
        hookpoint: where.
    """
    states = replay_of(lm, contexts, hookpoint)
    return gradients_of(states, contexts, hookpoint)


def gradients_of(states: Replay, contexts: Sequence[Context], hookpoint: str) -> Gradients:
    """The same from states that are there already, of a tail of any length.

    Args:
        states: the contexts' states.
        contexts: the contexts.
        hookpoint: where.
    """
    x = states.activations[:, -1].detach().float()
    leaf = x.clone().requires_grad_(True)
    with torch.enable_grad():
        odds = log_odds(states.run([Patch(hookpoint, {-1: leaf})], grad=True), contexts)
        (slopes,) = torch.autograd.grad(odds.sum(), [leaf])  # and none on the weights
    return Gradients(x, slopes, odds.detach())


def rank_latents(
    found: Gradients,
    contexts: Sequence[Context],
    target: tuple[str, ...],
    dictionary: Dictionary,
) -> list[Ranked]:
    """The latents of a dictionary that differ or matter, those that matter most first.

    Args:
        found: activations and gradients at the dictionary's hookpoint.
        contexts: the contexts.
        target: the cell in which harm is done.
        dictionary: the dictionary.
    """
    with torch.no_grad():
        code = dictionary.dense(dictionary.encode(found.x)).float()
        slopes = found.of_log_odds @ dictionary.W_dec.float().T
    names = [str(Address(dictionary.hookpoint, n)) for n in range(dictionary.n_latents)]
    return _ranked(code, slopes, contexts, target, names)


def rank_neurons(
    found: Gradients, contexts: Sequence[Context], target: tuple[str, ...], hookpoint: str
) -> list[Ranked]:
    """The neurons of a layer, those that matter most first.

    Args:
        found: activations and gradients at the neurons' hookpoint.
        contexts: the contexts.
        target: the cell in which harm is done.
        hookpoint: such as ``neurons.12``.
    """
    names = [str(Address(hookpoint, n)) for n in range(found.x.shape[1])]
    return _ranked(found.x, found.of_log_odds, contexts, target, names)


def rank_outputs(
    lm: LanguageModel, contexts: Sequence[Context], target: tuple[str, ...]
) -> list[Ranked]:
    """What each layer's attention and MLP write at the decision, that which matters most first.

    Each is taken as a whole: the product of its gradient and its difference, over its coordinates.
    What `Ranked` gives as activations are norms of the means.

    Args:
        lm: the model, without edits.
        contexts: the contexts.
        target: the cell in which harm is done.
    """
    names = [name for name in lm.hookpoints if name.startswith(("attn_out.", "mlp_out."))]
    parts = [
        _nudged(lm, contexts[start : start + _AT_ONCE], names)
        for start in range(0, len(contexts), _AT_ONCE)
    ]
    harm, found = is_target(contexts, target), []
    for name in names:
        x, slopes = (torch.cat([part[name][n] for part in parts]) for n in (0, 1))
        harmful, harmless = x[harm].mean(0), x[~harm].mean(0)
        effect = float((slopes[harm] * (x[harm] - harmless)).sum(1).mean())
        crossed = interaction(x, contexts, target)
        joint = None if crossed is None else float(slopes[harm].mean(0) @ crossed)
        norms = float(harmful.norm()), float(harmless.norm())
        found.append(Ranked(name, effect, joint, *norms))
    return sorted(found, key=lambda one: -one.score)


def is_target(contexts: Sequence[Context], target: tuple[str, ...]) -> Bool[Tensor, " context"]:
    """Which contexts are of the cell in which harm is done.

    Args:
        contexts: the contexts.
        target: the cell.
    """
    return torch.tensor([one.cell == target for one in contexts])


def _nudged(
    lm: LanguageModel, contexts: Sequence[Context], names: Sequence[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Activations at each hookpoint at the decision, and the log-odds' gradients there."""
    states = replay_of(lm, contexts, "resid_pre.0")
    nudges = [_Nudge.at(name, len(contexts), lm) for name in names]
    with torch.enable_grad():
        odds = log_odds(states.run(nudges, grad=True), contexts)
        slopes = torch.autograd.grad(odds.sum(), [nudge.by for nudge in nudges])
    return {
        nudge.hookpoint: (nudge.seen.float().cpu(), slope.float().cpu())
        for nudge, slope in zip(nudges, slopes, strict=True)
    }


@dataclass(frozen=True, eq=False)
class _Nudge:
    """Adds something to each row's last token, and keeps what was there."""

    hookpoint: str
    by: Float[Tensor, "row d"]
    seen: Float[Tensor, "row d"]
    rows: tuple[int, ...]

    @classmethod
    def at(cls, hookpoint: str, rows: int, lm: LanguageModel) -> _Nudge:
        """One of zero."""
        zeros = torch.zeros(rows, lm.d_model, device=lm.device)
        return cls(hookpoint, zeros.clone().requires_grad_(True), zeros, tuple(range(rows)))

    @property
    def count(self) -> int:
        return len(self.rows)

    def for_rows(self, index: Sequence[int]) -> _Nudge:
        return _Nudge(self.hookpoint, self.by, self.seen, tuple(self.rows[n] for n in index))

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        return [(self.hookpoint, self._change)]

    def _change(self, x: Tensor, site: Site) -> Tensor:
        own = list(self.rows)
        self.seen[own] = x[:, -1].detach().to(self.seen)
        last = x[:, -1:] + self.by[own][:, None].to(x)
        return torch.cat([x[:, :-1], last], 1)


def _ranked(
    activations: Float[Tensor, "context feature"],
    slopes: Float[Tensor, "context feature"],
    contexts: Sequence[Context],
    target: tuple[str, ...],
    names: Sequence[str],
) -> list[Ranked]:
    harm = is_target(contexts, target).to(activations.device)
    harmful, harmless = activations[harm].mean(0), activations[~harm].mean(0)
    effect = (slopes[harm] * (activations[harm] - harmless)).mean(0)
    crossed = interaction(activations, contexts, target)
    joint = None if crossed is None else slopes[harm].mean(0) * crossed
    score = effect if joint is None else joint
    kept = [n for n in score.argsort(descending=True).tolist() if float(score[n]) > 0]
    return [
        Ranked(
            names[n],
            float(effect[n]),
            None if joint is None else float(joint[n]),
            float(harmful[n]),
            float(harmless[n]),
        )
        for n in kept
    ]
