"""How fast edits are screened from kept states, against whole rows under each edit.

24 rows of 500 tokens of the built-in corpus, in bf16 on one thread; each edit adds a random
direction to the residual after layer 22, and what is asked for is the logits after each row.

1. The states: `models.replay.Replay`, made once for each tail.
2. The plain way: whole rows under the edit without a cache, with only the last token's logits, by
   the fastest attention there is for rows of one length (`models.attention`). Three edits.
3. Replay: 200 edits over the last 8 tokens and over the last 80, in as many parts.

Both sides give the edit the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bench import setting
from bench.measure import (
    Check,
    Result,
    Row,
    arguments,
    cpu_seconds,
    finish,
    interleaved,
    one_thread,
    ratios,
)

if TYPE_CHECKING:
    from torch import Tensor

    from brainscan.models import Hook, LanguageModel, Site
    from brainscan.models.replay import Replay

HOOKPOINT = "resid_post.22"
PARTS = 3
EDITS = 200
TARGETS = {8: 80.0, 80: 12.0}
"""By tail: how many times faster than whole rows."""


@dataclass(frozen=True)
class Push:
    """Adds a vector to the tail."""

    vector: Tensor
    start: int

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        return [(HOOKPOINT, self.change)]

    def change(self, x: Tensor, site: Site) -> Tensor:
        chosen = (site.positions >= self.start)[..., None]
        return x + chosen * self.vector.to(x)


def main() -> None:
    quick = arguments(__doc__ or "")
    one_thread()
    lm = setting.load()
    count, length, edits = (4, 100, 6) if quick else (24, 500, EDITS)
    rows = setting.read_tokens(setting.token_file(lm, count, length))
    parts = 1 if quick else PARTS
    result = Result("replay", f"{edits} edits of {HOOKPOINT}, {count} rows of {length} tokens")
    for tail, target in TARGETS.items():
        made: list[Replay] = []
        start = cpu_seconds(partial(keep, lm, rows, tail, made))
        each = max(1, edits // parts)
        arms = {
            "whole rows": partial(plain, lm, rows, pushes(length - tail, 1)),
            "replay": partial(replayed, made[0], pushes(length - tail, each)),
        }
        found = interleaved(arms, parts)
        for name, values in found.items():
            what = f"{edits} edits, tail {tail}, {name}"
            result.rows.append(Row(what, [edits * value for value in values], "CPU s"))
        result.rows.append(Row(f"states, tail {tail}", [start], "CPU s"))
        result.rows.append(Row(f"states, tail {tail}", [made[0].size / 1e6], "MB"))
        result.rows.append(Row(f"difference, tail {tail}", [difference(made[0], rows)], "of norm"))
        faster = ratios(found["whole rows"], found["replay"])
        result.checks.append(Check(f"replay over whole rows, tail {tail}", faster, target))
    finish(result)


def pushes(start: int, count: int) -> list[Push]:
    """Edits along random directions, of about the residual's norm."""
    import torch

    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(count, setting.WIDTH, generator=generator)
    return [Push(2 * vector, start) for vector in vectors]


def keep(lm: LanguageModel, rows: Tensor, tail: int, made: list[Replay]) -> None:
    from brainscan.models.replay import Replay

    lengths = [rows.shape[1]] * len(rows)
    made.append(Replay(lm, rows.tolist(), lengths, HOOKPOINT, tail))


def replayed(states: Replay, edits: Sequence[Push]) -> float:
    """CPU seconds an edit."""
    from brainscan.memory import kept_memory

    with kept_memory():
        return cpu_seconds(lambda: [states.run([edit]) for edit in edits]) / len(edits)


def plain(lm: LanguageModel, rows: Tensor, edits: Sequence[Push]) -> float:
    """CPU seconds an edit."""
    return cpu_seconds(lambda: [whole(lm, rows, edit) for edit in edits]) / len(edits)


def whole(lm: LanguageModel, rows: Tensor, edit: Push) -> Tensor:
    """The logits after each row, eight rows at a time."""
    import torch

    from brainscan.memory import kept_memory
    from brainscan.models import intervene
    from brainscan.models.attention import BlockedAttention

    with torch.no_grad(), kept_memory(), BlockedAttention(), intervene(lm, [edit]):
        parts = [
            lm.model(input_ids=part, use_cache=False, logits_to_keep=1).logits[:, -1]
            for part in rows.split(8)
        ]
    return torch.cat(parts)


def difference(states: Replay, rows: Tensor) -> float:
    """How far replayed logits are from those of whole rows through the same attention.

    In the norm of what the edit changes.
    """
    from brainscan.models import capture

    edits = pushes(rows.shape[1] - states.tail, 1)
    ours = states.run(edits).float()
    with capture(states.lm, ["resid_pre.0"]):  # a hook below, so that whole rows run
        theirs = states.run(edits).float()
    return float((ours - theirs).norm() / (theirs - states.logits.float()).norm())


if __name__ == "__main__":
    main()
