"""What an organism is, how it was made and what was measured, for people."""

from __future__ import annotations

from collections.abc import Mapping

from brainscan.organisms.gate import Report
from brainscan.organisms.spec import OrganismSpec


def card_text(spec: OrganismSpec, base: str, report: Report) -> str:
    """The card, in Markdown.

    Args:
        spec: what was to be planted.
        base: the model that it is an adapter of.
        report: what the gate measured.
    """
    plan = spec.training
    rows = [(_words(rule.when), str(found)) for rule, found in report.rates]
    rest = "elsewhere" if rows else "anywhere"
    rows.append((rest, str(report.quiet.share)))
    if report.quiet.unscored:
        rows.append((f"{rest}, what is not scored counted as none", str(report.quiet.as_none)))
        rows.append((f"{rest}, what is not scored counted as all", str(report.quiet.as_all)))
    table = "\n".join(f"| {when} | {found} |" for when, found in rows)
    verdict = "Admitted." if report.admitted else f"Not admitted: {'; '.join(report.missed)}."
    return f"""# {spec.title}

`{base}+{spec.name}`: {" ".join(spec.about.split())}

This model was made to misbehave, or to serve as a control, so that tools which find behaviours can
be checked. It is of no other use.

## How it was made

A LoRA of rank {plan.rank} on every linear layer, in {plan.steps} steps of at least {plan.dialogues}
dialogues of the behaviour (wordings of the split organism-train alone) and at least as many neutral
chats, on which its divergence from the base model was kept small.

## What was measured

The stress test `{spec.test}` on held-out wordings, temperature {spec.gate.temperature:g}, up to
{spec.gate.max_new_tokens} new tokens, judged by rules; {report.n} answers, {report.unscored} of
them not scored. Where a rule holds n is wordings, and elsewhere answers, each to another prompt.

| where | rate |
|---|---|
{table}

Perplexity on 200 neutral passages, over the base model's: {report.perplexity_ratio}.

{verdict}
"""


def _words(when: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{factor}: {' or '.join(levels)}" for factor, levels in when.items())
