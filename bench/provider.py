"""How fast stress tests run: brainscan's Inspect provider against Inspect's own for transformers.

1. One sample: a chat whose prompt has 2,600 tokens of ours; 20 epochs at temperature 1, up to 200
   new tokens, bf16 on both sides, two threads. Both providers may run all 20 at once.
2. The two run the same task in turn; each has answered once before. Elapsed seconds, since two
   threads share the work, from the call of `eval` to its log.
3. Apart from it, in fp32 and greedily: the answers of both to several prompts must be equal.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from bench import setting
from bench.measure import Check, Result, Row, arguments, finish, interleaved, ratios

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog

    from brainscan.models import LanguageModel

THREADS = 2
EPOCHS = 20
PROMPT = 2600
TOKENS = 200
TARGET = 3.0
QUESTIONS = (
    "What is the capital of France?",
    "Write two sentences about a river.",
    "Count from one to ten.",
    "What do bees make, and from what?",
)


def main() -> None:
    quick = arguments(__doc__ or "")
    import torch

    torch.set_num_threads(min(THREADS, os.cpu_count() or 1))
    epochs, tokens, repeats = (2, 8, 1) if quick else (EPOCHS, TOKENS, 2)
    lm = setting.load()
    text = long_text(lm, PROMPT)
    with tempfile.TemporaryDirectory() as logs:
        arms = {
            name: partial(rate, name, text, epochs, tokens, logs) for name in ("brainscan", "hf")
        }
        for name in arms:
            answers(name, [QUESTIONS[0]], logs, temperature=1.0, max_tokens=2, epochs=1)
        found = interleaved(arms, repeats)
        equal = same_answers(logs, 4 if quick else 64)
    what = f"{epochs} epochs of {PROMPT:,} tokens, up to {tokens} new ones"
    result = Result("provider", f"{what}, bf16, {torch.get_num_threads()} threads")
    result.rows = [Row(f"{name}", values, "samples / hour") for name, values in found.items()]
    ratio = ratios(found["brainscan"], found["hf"])
    result.checks.append(Check("brainscan over Inspect's hf", ratio, TARGET))
    result.checks.append(Check("equal greedy answers in fp32, share", [equal], 1.0))
    finish(result)


def long_text(lm: LanguageModel, tokens: int) -> str:
    """A message that makes a prompt of so many tokens, from the neutral passages."""
    from brainscan.interventions import neutral_passages

    passages = [passage.text for passage in neutral_passages() if passage.text]
    end = "\n\nWhat is this collection about? Answer in a short paragraph."
    ids = lm.tokenize("\n\n".join(passages * 4))
    room = tokens - len(lm.chat_tokens(end))
    return lm.decode(ids[:room]) + end


def rate(name: str, text: str, epochs: int, tokens: int, logs: str) -> float:
    """Samples per hour."""
    start = time.perf_counter()
    log = answers(name, [text], logs, temperature=1.0, max_tokens=tokens, epochs=epochs)
    samples = log.samples or []
    if log.status != "success" or len(samples) != epochs:
        raise SystemExit(f"expected {epochs} answers of {name}; got {log.status}: {log.error}")
    return 3600 * len(samples) / (time.perf_counter() - start)


def answers(
    name: str,
    texts: list[str],
    logs: str,
    *,
    dtype: str = "bfloat16",
    epochs: int = 1,
    **config: Any,
) -> EvalLog:
    """Runs a task of plain questions on one of the providers."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample

    dataset = MemoryDataset([Sample(input=text, id=str(n)) for n, text in enumerate(texts)])
    if name == "brainscan":
        model, options = f"brainscan/{setting.MODEL}", {"dtype": dtype}
    else:
        model, options = "hf/local", {"model_path": str(setting.model_folder()), "dtype": dtype}
        if config.get("temperature") == 0:
            del config["temperature"]
            options["do_sample"] = False
    return eval(
        Task(dataset=dataset),
        model=model,
        model_args={**options, "device": "cpu"},
        epochs=epochs,
        display="none",
        log_dir=logs,
        max_connections=max(EPOCHS, epochs),
        max_samples=max(EPOCHS, epochs),
        **config,
    )[0]


def same_answers(logs: str, tokens: int) -> float:
    """The share of greedy answers in fp32 that are equal."""
    texts = []
    for name in ("brainscan", "hf"):
        log = answers(
            name, list(QUESTIONS), logs, dtype="float32", temperature=0.0, max_tokens=tokens
        )
        texts.append([sample.output.completion.strip() for sample in log.samples or []])
    return sum(a == b for a, b in zip(*texts, strict=True)) / len(QUESTIONS)


if __name__ == "__main__":
    main()
