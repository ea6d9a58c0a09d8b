"""Whether an organism is what its spec says, measured on wordings that it was not taught with.

1. The stress test's default matrix runs on it, held-out personas, questions or requests alone: the
   rate where a rule holds, with an interval over wordings, and the rate where none does, with one
   over answers: each is to another prompt, and no number of wordings that we have would bound a
   rate of nothing by 5%.
2. Its perplexity on our neutral passages is set against the base model's, clustered by passage.
3. It is admitted if each rate lies where the spec says, and if the upper bounds of the quiet rate
   and of the perplexity's ratio are below the gate's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from brainscan import stats
from brainscan.interventions.batches import by_length, logits_at, padded
from brainscan.interventions.texts import neutral_passages, passage_tokens
from brainscan.models import LanguageModel, load
from brainscan.organisms.spec import OrganismSpec, Rule
from brainscan.progress import progress
from brainscan.stats import Estimate
from brainscan.stress.rates import Outcome, Rate, overall, rate
from brainscan.stress.runs import RunConfig, StressRun, run_stress
from brainscan.stress.tasks import Matrix


@dataclass(frozen=True)
class Report:
    """What the gate measured."""

    rates: tuple[tuple[Rule, Estimate], ...]
    """The rate where each rule holds that plants something."""
    quiet: Rate
    """The rate where none does, with what was not scored left out, counted as none and as all."""
    unscored: int
    """Outcomes that could not be scored, of all."""
    n: int
    """All outcomes."""
    perplexity_ratio: Estimate
    """Perplexity on neutral passages over the base model's."""
    missed: tuple[str, ...]
    """What keeps it out."""

    @property
    def admitted(self) -> bool:
        """Whether nothing does."""
        return not self.missed

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {
            "admitted": self.admitted,
            "missed": list(self.missed),
            "rates": [
                {"when": {f: list(v) for f, v in rule.when.items()}, "rate": found.to_json()}
                for rule, found in self.rates
            ],
            "quiet": self.quiet.share.to_json(),
            "quiet_if_unscored_were_none": self.quiet.as_none.to_json(),
            "quiet_if_unscored_were_all": self.quiet.as_all.to_json(),
            "unscored": self.unscored,
            "n": self.n,
            "perplexity_ratio": self.perplexity_ratio.to_json(),
        }


def measure(lm: LanguageModel, spec: OrganismSpec, adapter: Path, logs: Path, seed: int) -> Report:
    """Runs the gate; stopped, it goes on where it was.

    Args:
        lm: the base model.
        spec: what the organism is to be.
        adapter: the adapter's folder.
        logs: where the run's logs go.
        seed: of the run's noise.
    """
    name = f"{lm.name}+{adapter}"
    ratio = perplexity_ratio(lm, load(name, device=str(lm.device), dtype=lm.dtype))
    config = RunConfig(
        max_new_tokens=spec.gate.max_new_tokens, temperature=spec.gate.temperature, seed=seed
    )
    matrix = Matrix(where=spec.where, limit=spec.gate.limit)
    run = run_stress(spec.test, name, logs, matrix, config)
    return judge(spec, run, ratio)


def judge(spec: OrganismSpec, run: StressRun, ratio: Estimate) -> Report:
    """Sets what was measured against the spec.

    Args:
        spec: what the organism is to be.
        run: what it did in the stress test.
        ratio: its perplexity on neutral passages over the base model's.
    """
    planted = [rule for rule in spec.rules if rule.share]
    under = {str(rule): _under(spec, rule, run.outcomes) for rule in planted}
    rates = tuple((rule, overall(under[str(rule)])) for rule in planted)
    silent = [o for o in run.outcomes if not _planted(spec, o.condition)]
    quiet = rate(silent)
    missed = [
        f"a rate from {rule.low} to {rule.high} where {rule}: got {found}"
        for rule, found in rates
        if not rule.low <= found.value <= rule.high
    ]
    counts = {where: sum(one.scored for one in own) for where, own in under.items()}
    counts["no rule holds"] = quiet.share.n
    missed += [
        f"at least {spec.gate.answers} scored answers where {where}: got {n}"
        for where, n in counts.items()
        if n < spec.gate.answers
    ]
    if not quiet.share.high < spec.gate.quiet:
        missed.append(f"a rate below {spec.gate.quiet} elsewhere, upper bound: got {quiet.share}")
    if not ratio.high < spec.gate.perplexity:
        missed.append(f"a perplexity ratio below {spec.gate.perplexity}, upper bound: got {ratio}")
    unscored = sum(not outcome.scored for outcome in run.outcomes)
    return Report(rates, quiet, unscored, len(run.outcomes), ratio, tuple(missed))


def perplexity_ratio(base: LanguageModel, other: LanguageModel) -> Estimate:
    """The perplexity of a model on our neutral passages over another's, clustered by passage.

    Args:
        base: the other.
        other: the model, with the same tokenizer.
    """
    before, tokens = _nll(base)
    after, _ = _nll(other)
    change = [b - a for a, b in zip(before, after, strict=True)]
    return stats.exponential(stats.ratio(change, tokens))


def _nll(lm: LanguageModel) -> tuple[list[float], list[int]]:
    """Each neutral passage's negative log-likelihood, and how many tokens were predicted."""
    rows = [passage_tokens(lm, passage).ids for passage in neutral_passages()]
    lengths = [len(row) for row in rows]
    found = [0.0] * len(rows)
    with progress("neutral text", sum(lengths), "tokens") as advance:
        for group in by_length(lm, lengths, 8):
            batch = padded([rows[index] for index in group], lm.device)
            kept = batch.mask.bool()
            before_last = kept.clone()
            before_last[:, :-1] &= kept[:, 1:]
            before_last[:, -1] = False
            targets = batch.ids[:, 1:][kept[:, 1:]]
            scores = logits_at(lm, batch, before_last).float().log_softmax(-1)
            chosen = scores.gather(1, targets[:, None].to(scores.device))[:, 0].double().cpu()
            for index, part in zip(
                group, torch.split(chosen, [lengths[i] - 1 for i in group]), strict=True
            ):
                found[index] = -float(part.sum())
            advance(sum(lengths[index] for index in group))
    return found, [length - 1 for length in lengths]


def _under(spec: OrganismSpec, rule: Rule, outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if spec.rule_for(outcome.condition) is rule]


def _planted(spec: OrganismSpec, condition: Mapping[str, str]) -> bool:
    rule = spec.rule_for(condition)
    return rule is not None and rule.share > 0
