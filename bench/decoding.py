"""What it costs to watch a model while it writes.

Greedy decoding of 64 tokens, batch 1 and 8: plainly, and with the residual after layer 15 captured
and encoded by a dictionary at every token. CPU seconds on one thread; pairs run in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from bench import setting
from bench.measure import REPEATS, Check, Result, Row, arguments, finish, interleaved, ratios

if TYPE_CHECKING:
    from brainscan.dictionaries import Dictionary
    from brainscan.models import LanguageModel

LIMIT = 1.05
TASKS = (
    "Write a long story about a lighthouse.",
    "Explain how a car engine works.",
    "Describe the history of Rome in detail.",
    "Write instructions for baking bread.",
    "Tell me all about the planets.",
    "Describe a walk through a forest in autumn.",
    "Explain the rules of chess.",
    "Write a letter to a friend who moved away.",
)


def main() -> None:
    quick = arguments(__doc__ or "")
    import torch

    torch.set_num_threads(1)
    lm = setting.load()
    watcher = dictionary(lm)
    tokens, repeats = (8, 1) if quick else (64, 2 * REPEATS + 1)
    result = Result("decoding", f"greedy, {tokens} tokens, one thread")
    for rows in (1, 8):
        prompts = [lm.chat_tokens(task) for task in TASKS[:rows]]
        arms = {
            "plain": partial(plain, lm, prompts, tokens),
            "watched": partial(watched, lm, prompts, tokens, watcher),
        }
        weigh(result, rows, arms, repeats)
    finish(result)


def weigh(result: Result, rows: int, arms: dict[str, Callable[[], float]], repeats: int) -> None:
    """Adds what a step takes plainly and watched, and their ratio."""
    for warm in arms.values():
        warm()
    found = interleaved(arms, repeats)
    for name, values in found.items():
        steps = [1000 * value for value in values]
        result.rows.append(Row(f"{name}, batch {rows}", steps, "CPU ms / token"))
    ratio = ratios(found["watched"], found["plain"])
    what = f"watched over plain, batch {rows}"
    result.checks.append(Check(what, ratio, LIMIT, at_least=False))


def dictionary(lm: LanguageModel) -> Dictionary:
    """The shipped dictionary of the hookpoint, or a random one of its shape."""
    from brainscan.dictionaries import Dictionary
    from brainscan.dictionaries.testing import random_dictionary
    from brainscan.errors import UnknownDictionaryError

    try:
        return Dictionary.for_model(lm, setting.HOOKPOINT)
    except UnknownDictionaryError:
        return random_dictionary(setting.WIDTH, 4096, setting.K, setting.HOOKPOINT, seed=0)


def plain(lm: LanguageModel, prompts: list[list[int]], tokens: int) -> float:
    """CPU seconds per step of generation."""
    from brainscan.models.generate import Sampling

    start = time.process_time()
    made = lm.generate(prompts, Sampling(max_new_tokens=tokens))
    return (time.process_time() - start) / max(len(one.tokens) for one in made)


def watched(lm: LanguageModel, prompts: list[list[int]], tokens: int, reader: Dictionary) -> float:
    """CPU seconds per step when what is captured is encoded at every one."""
    from brainscan.models import capture
    from brainscan.models.generate import Sampling

    encoded: list[int] = []
    start = time.process_time()
    with capture(lm, [setting.HOOKPOINT]) as found:

        def encode(row: int, token: int) -> None:
            """Once a step, at the first row that is still writing."""
            if found:
                encoded.append(reader.encode(found.pop(setting.HOOKPOINT)[:, -1]).indices.shape[0])

        made = lm.generate(prompts, Sampling(max_new_tokens=tokens), on_token=encode)
    seconds = time.process_time() - start
    steps = max(len(one.tokens) for one in made)
    if encoded != [len(prompts)] * steps:
        raise SystemExit(f"expected {steps} codes of {len(prompts)} rows; got {encoded}")
    return seconds / steps


if __name__ == "__main__":
    main()
