"""Where in the model the decision is made: residuals of a harmless twin put into a harmful run.

1. The harmful context runs with the residual stream at some of its tokens, at one layer, replaced
   by the twin's. What is restored is the share of the way from the harmful log-odds to the twin's
   that they then go: 0 where nothing hangs on these tokens at this layer, 1 where all does.
2. Tokens are taken in groups: each of the last ones before the decision that both answers have in
   common; what else the two answers have in common; the tokens of the prompt that differ; the rest
   of the prompt. Prompts of twins are aligned place by place, answers by the tokens they share.
   Prompts of different lengths are aligned at their ends, as far as these are the same: what
   differs has no counterpart there.
3. Shares are ratios of sums over pairs, with intervals over units.

Source: activation patching, Meng et al. 2022 (causal tracing); Heimersheim and Nanda 2024 on how to
read it. A patch puts in what its surroundings do not expect: a small share is no proof of absence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TypeAlias

import torch

from brainscan import stats
from brainscan.attribution.contexts import Context, log_odds, replay_of
from brainscan.models import LanguageModel, capture
from brainscan.models.replay import Patch
from brainscan.progress import progress
from brainscan.shapes import Bool, Float, Tensor
from brainscan.stats import Estimate

_LAST = 6
_HALF = 0.5

SLOTS, PROMPT, REST = "prompt: what differs", "prompt: the rest", "answer: what is shared"
"""Groups of tokens other than the last ones."""

_Places: TypeAlias = Mapping[int, int]
"""Places in the harmful context, and where the twin has the same."""


@dataclass(frozen=True)
class Location:
    """The share of the decision that is restored, by layer and tokens."""

    hookpoints: tuple[str, ...]
    """The rows: where residuals were put in, the lowest first."""
    columns: tuple[str, ...]
    """The columns: which tokens, the decision's own (the last that is read) at the end."""
    restored: tuple[tuple[Estimate, ...], ...]
    """For each row the share restored, by column."""

    @property
    def settled(self) -> int:
        """The first row at which the last token alone holds half of what it holds at most."""
        last = [row[-1].value for row in self.restored]
        enough = (n for n, value in enumerate(last) if value >= _HALF * max(last) > 0)
        return next(enough, len(last) - 1)


def locate(
    lm: LanguageModel,
    pairs: Sequence[tuple[Context, Context]],
    hookpoints: Sequence[str],
    *,
    prompt: bool = True,
) -> Location:
    """Puts the residuals of harmless twins into harmful runs, layer by layer.

    Args:
        lm: the model, without edits.
        pairs: a harmful context and its twin's.
        hookpoints: residual hookpoints, the lowest first.
        prompt: whether the prompt's tokens are patched too, which takes most of the time.
    """
    harmful, harmless = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    last = min(_in_common(*pair) for pair in pairs)
    groups = [_groups(*pair, last, prompt=prompt) for pair in pairs]
    names = [str(-n) for n in range(last, 0, -1)]
    columns = [
        name for name in (PROMPT, SLOTS, REST, *names) if any(map_.get(name) for map_ in groups)
    ]
    reach = max(_reach(one, group) for one, group in zip(harmful, groups, strict=True))
    states = replay_of(lm, harmful, hookpoints[0], reach)
    before = log_odds(states.logits, harmful)
    gap = before - log_odds(replay_of(lm, harmless, hookpoints[-1]).logits, harmful)
    own, twins = _read(lm, harmful, hookpoints), _read(lm, harmless, hookpoints)
    rows = []
    with progress("put in the twin's residuals", len(hookpoints) * len(columns)) as advance:
        for hookpoint in hookpoints:
            row = []
            for column in columns:
                places = [group.get(column, {}) for group in groups]
                patch = _put_in(hookpoint, own[hookpoint], twins[hookpoint], places)
                gone = before - log_odds(states.run([patch]), harmful)
                had = torch.tensor([bool(own_places) for own_places in places])
                row.append(restored_share(gone[had], gap[had], _units(harmful, had)))
                advance(1)
            rows.append(tuple(row))
    told = lm.token_strings(harmful[0].tokens[-last:])
    shown = dict(
        zip(names, (f"{n} {text}" for n, text in zip(names, told, strict=True)), strict=True)
    )
    return Location(tuple(hookpoints), tuple(shown.get(c, c) for c in columns), tuple(rows))


def _groups(
    harmful: Context, harmless: Context, last: int, *, prompt: bool
) -> dict[str, dict[int, int]]:
    """The places of each group of tokens, with their places in the twin."""
    found: dict[str, dict[int, int]] = {}
    a, b = harmful.tokens, harmless.tokens
    for n in range(1, last + 1):
        found[str(-n)] = {len(a) - n: len(b) - n}
    begin_a, begin_b = harmful.prompt_length, harmless.prompt_length
    own_a, own_b = a[begin_a : len(a) - last], b[begin_b : len(b) - last]
    blocks = SequenceMatcher(None, own_a, own_b, autojunk=False).get_matching_blocks()
    found[REST] = {
        begin_a + block.a + n: begin_b + block.b + n for block in blocks for n in range(block.size)
    }
    if prompt and begin_a != begin_b:
        ends = zip(reversed(a[:begin_a]), reversed(b[:begin_b]), strict=False)
        parted = (n for n, (one, other) in enumerate(ends) if one != other)
        same = next(parted, min(begin_a, begin_b))
        first = max(last - (len(a) - begin_a), last - (len(b) - begin_b), 0)
        found[PROMPT] = {begin_a - n: begin_b - n for n in range(first + 1, same + 1)}
    elif prompt:
        end = min(begin_a, len(a) - last, len(b) - last)
        differ = [n for n in range(end) if a[n] != b[n]]
        first = differ[0] if differ else end
        found[SLOTS] = {n: n for n in differ}
        # What stands before the first difference is the same in both runs: nothing to put in.
        found[PROMPT] = {n: n for n in range(first, end) if a[n] == b[n]}
    return found


def _in_common(harmful: Context, harmless: Context) -> int:
    """How many of the last tokens two contexts share, up to `_LAST`; those of the prompt too."""
    most = min(_LAST, len(harmful.tokens), len(harmless.tokens))
    same = (harmful.tokens[-n] == harmless.tokens[-n] for n in range(1, most + 1))
    return next((n for n, one in enumerate(same) if not one), most)


def _reach(context: Context, groups: Mapping[str, _Places]) -> int:
    """How many of the last tokens must run again for every place to be among them."""
    return len(context.tokens) - min(min(places) for places in groups.values() if places)


def _read(
    lm: LanguageModel, contexts: Sequence[Context], hookpoints: Sequence[str]
) -> dict[str, list[Float[Tensor, "_ d"]]]:
    """Each context's activations at every hookpoint, in one pass for all of them."""
    found: dict[str, list[Tensor]] = {hookpoint: [] for hookpoint in hookpoints}
    for context in contexts:
        with torch.no_grad(), capture(lm, hookpoints, stop=True) as seen:
            lm.forward(torch.tensor([context.tokens]))
        for hookpoint, parts in found.items():
            parts.append(seen[hookpoint][0])
    return found


def _put_in(
    hookpoint: str,
    own: Sequence[Float[Tensor, "_ d"]],
    twins: Sequence[Float[Tensor, "_ d"]],
    places: Sequence[_Places],
) -> Patch:
    """The twin's activations at some places of each row; elsewhere each row's own."""
    columns = sorted(
        {place - len(x) for x, pairs in zip(own, places, strict=True) for place in pairs}
    )
    values = {}
    for column in columns:
        rows = []
        for x, twin, pairs in zip(own, twins, places, strict=True):
            place = len(x) + column
            rows.append(twin[pairs[place]] if place in pairs else x[max(place, 0)])
        values[column] = torch.stack(rows)
    return Patch(hookpoint, values)


def restored_share(
    gone: Float[Tensor, " row"], gap: Float[Tensor, " row"], units: Sequence[str]
) -> Estimate:
    """A sum over a sum, clustered by unit.

    Args:
        gone: how far each pair's log-odds went.
        gap: how far the twin's lie away.
        units: what each pair belongs to.
    """
    order = sorted(set(units))
    rows = {unit: [n for n, one in enumerate(units) if one == unit] for unit in order}
    top = [float(gone[rows[unit]].sum()) for unit in order]
    return stats.ratio(top, [float(gap[rows[unit]].sum()) for unit in order])


def _units(contexts: Sequence[Context], kept: Bool[Tensor, " context"]) -> list[str]:
    return [one.unit for one, had in zip(contexts, kept.tolist(), strict=True) if had]


def residuals(lm: LanguageModel, every: int) -> list[str]:
    """Residual hookpoints of a model, one for every so many layers, the last included.

    Args:
        lm: the model.
        every: how many layers lie between two.
    """
    layers = range(lm.n_layers - 1, -1, -every)
    return [f"resid_post.{layer}" for layer in reversed(layers)]
