"""What it costs to watch every token for 25 concepts while a model writes.

Greedy decoding of 64 tokens, batch 1 and 8, on two threads: plainly, and with a `Watch` on each:
detectors at three residuals, their aggregates, calibration and the rule for jumps. Elapsed seconds,
since two threads share the work; pairs run in turn.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

from bench import setting
from bench.decoding import TASKS, THREADS, plain, weigh
from bench.measure import REPEATS, Result, arguments, finish

if TYPE_CHECKING:
    from brainscan.models import LanguageModel
    from brainscan.monitoring import Detectors


def main() -> None:
    quick = arguments(__doc__ or "")
    import torch

    from brainscan.monitoring import open_detectors

    torch.set_num_threads(min(THREADS, os.cpu_count() or 1))
    lm = setting.load()
    detectors = open_detectors(lm, None)
    tokens, repeats = (8, 1) if quick else (64, 2 * REPEATS + 1)
    told = f"greedy, {tokens} tokens, {len(detectors.each)} concepts at {len(detectors.hookpoints)}"
    result = Result("watching", f"{told} hookpoints, {torch.get_num_threads()} threads")
    for rows in (1, 8):
        tasks = TASKS[:rows]
        arms = {
            "plain": partial(plain, lm, [lm.chat_tokens(task) for task in tasks], tokens),
            "watched": partial(watched, lm, tasks, tokens, detectors),
        }
        weigh(result, rows, arms, repeats)
    finish(result)


def watched(lm: LanguageModel, tasks: tuple[str, ...], tokens: int, detectors: Detectors) -> float:
    """Seconds per step when each row has a watch."""
    from brainscan.models.generate import Sampling
    from brainscan.monitoring import Watch
    from brainscan.monitoring.roles import marked_chat

    asked = [[{"role": "user", "content": task}] for task in tasks]
    marked = [marked_chat(lm, one, generation_prompt=True) for one in asked]
    start = time.perf_counter()
    edits = [[Watch(detectors, one.roles)] for one in marked]
    made = lm.generate([one.tokens for one in marked], Sampling(max_new_tokens=tokens), edits=edits)
    return (time.perf_counter() - start) / max(len(one.tokens) for one in made)


if __name__ == "__main__":
    main()
