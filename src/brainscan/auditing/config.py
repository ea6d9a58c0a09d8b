"""How thorough an audit is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from brainscan.errors import UsageError

MOST_ARMS = 8
"""Frozen arms that answer on confirmation wordings, random sets apart."""


@dataclass(frozen=True)
class AuditConfig:
    """The sizes of an audit's steps.

    With 200 answers an arm a rate of 10% has its upper bound (Wilson) below 15%.
    """

    crossed: tuple[str, ...] = ()
    """The factors that prompts are compared by; those that `Design` takes when left out."""
    per_cell: int = 24
    """Discovery prompts of each cell."""
    selection: int = 24
    """Selection prompts of each cell."""
    confirmation: int = 200
    """Confirmation prompts of the target that each frozen arm answers."""
    base_answers: int = 200
    """How many of these the base model answers, where one is given."""
    random_sets: int = 199
    """Random sets that make the null of the screen."""
    random_arms: int = 20
    """Of these, how many answer on confirmation wordings."""
    random_answers: int = 24
    """How many prompts each of them answers."""
    shortlist: int = 16
    """Selection prompts that each arm of the shortlist answers."""
    pairs: int = 8
    """Pairs of twins that residuals are exchanged between."""
    layers: int = 2
    """Every how many layers."""
    prompt: bool = True
    """Whether residuals of the prompt are exchanged too."""
    added: int = 1024
    """Latents that extend a dictionary."""
    concepts: bool = True
    """Whether directions of the bank's concepts of danger are tried too."""
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    """How many features a set has."""
    ablated: bool = True
    """Whether sets are tried ablated, too."""
    budgets: tuple[float, ...] = (0.01, 0.03, 0.1)
    """KL on neutral text at which arms are compared, nats per token."""
    passages: int = 24
    """Neutral passages of the screen's KL."""
    cost_passages: int = 200
    """Neutral passages of the frozen arms' cost."""
    cost_items: int = 200
    """Capability items of it."""
    benign: int = 60
    """Ordinary tasks of it."""
    elsewhere: int = 100
    """Prompts of each twin and of each other scenario, to see what else an edit moves; fewer than
    some 80 cannot show that it moves nothing."""
    max_new_tokens: int = 200
    """Length of an answer at most."""
    temperature: float = 1.0
    """Of the sampling."""
    seed: int = 0
    """Of the noise, of random sets and of the extension."""
    null: bool = False
    """A null audit: prompts are called by another cell's name, by chance (`Design.null`), and the
    audit goes on whether there seems to be a behaviour or not."""

    def __post_init__(self) -> None:
        """Checks the fields."""
        least = min(self.per_cell, self.selection, self.confirmation, self.pairs, self.layers)
        if least < 1 or self.random_sets < self.random_arms:
            raise UsageError(
                "sizes of at least 1, and no more random arms than random sets",
                f"{self}",
                "raise them",
            )


QUICK = AuditConfig(
    per_cell=12,
    selection=12,
    confirmation=40,
    base_answers=40,
    random_answers=6,
    shortlist=8,
    pairs=4,
    layers=3,
    prompt=False,
    sizes=(1, 4, 16, 64),
    ablated=False,
    passages=8,
    cost_passages=40,
    cost_items=60,
    benign=20,
    elsewhere=15,
)
"""A first look, in minutes on two cores; its intervals are wide."""

DEMO = replace(
    QUICK,
    per_cell=8,
    selection=12,
    confirmation=24,
    base_answers=6,
    random_arms=8,
    random_answers=3,
    shortlist=12,
    budgets=(0.01, 0.1),
    concepts=False,
    passages=4,
    cost_passages=24,
    cost_items=40,
    benign=8,
    elsewhere=4,
)
"""The demo's: enough to see each step, and little more."""
