"""How fast a training step on cached activations is, against SAELens'.

Both train a TopK autoencoder on the same activations from a file, 2,048 tokens a step, in their
own step function: what a step needs of counting and of the optimiser is in it, reading is not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench import setting
from bench.measure import (
    REPEATS,
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
from bench.peers.client import INSTALL, SAELens, saelens_python

if TYPE_CHECKING:
    from torch import Tensor

    from brainscan.dictionaries.trainer import Trainer

TARGET = 10.0
WARM_UP = 3


def main() -> None:
    quick = arguments(__doc__ or "")
    one_thread()
    lm = setting.load()
    contexts = 64 if quick else 512
    tokens = setting.token_file(lm, contexts, setting.CONTEXT)
    file = setting.activation_file(lm, contexts, setting.CONTEXT, "train")
    del lm
    repeats, steps = (1, 1) if quick else (REPEATS, 10)
    arms: dict[str, Callable[[], float]] = {"brainscan": stepper(file, steps, repeats)}
    from brainscan.memory import kept_memory

    with ExitStack() as stack:
        stack.enter_context(kept_memory())  # as in the training loop
        if saelens_python() is not None:
            for kind in ("fp32", "bf16 autocast"):
                peer = stack.enter_context(SAELens(kind, tokens, setting.CONTEXT))
                peer.ask("cached", file=str(file))
                peer.ask("steps", steps=1 if quick else WARM_UP)
                name = f"SAELens {peer.versions['version']} {kind}"
                arms[name] = partial(peer.rate, "steps", steps=1 if quick else 2)
        values = interleaved(arms, repeats)
    result = Result("training step", "TopK, k=32, 4,608 latents, 2,048 tokens a step, one thread")
    result.rows = [Row(name, found, "tokens / CPU s") for name, found in values.items()]
    for name in list(arms)[1:]:
        ratio = ratios(values["brainscan"], values[name])
        if name.endswith("fp32"):
            result.checks.append(Check(f"brainscan over {name}", ratio, TARGET))
        else:
            result.rows.append(Row(f"brainscan over {name}", ratio, "ratio"))
    result.skipped = "" if saelens_python() is not None else INSTALL
    finish(result)


def stepper(file: Path, steps: int, repeats: int) -> Callable[[], float]:
    """Measures some steps of brainscan's trainer, which goes on where it was."""
    from safetensors.torch import load_file

    from brainscan.dictionaries.trainer import Trainer, TrainingConfig

    x = load_file(file)["x"]
    planned = (steps * (repeats + 1) + WARM_UP) * setting.BATCH
    config = TrainingConfig(
        n_latents=setting.LATENTS, k=setting.K, batch=setting.BATCH, tokens=planned
    )
    trainer = Trainer.started(config, x)
    batches = [part for part in x.split(setting.BATCH) if len(part) == setting.BATCH]
    take(trainer, batches, WARM_UP)
    return lambda: steps * setting.BATCH / cpu_seconds(lambda: take(trainer, batches, steps))


def take(trainer: Trainer, batches: list[Tensor], steps: int) -> None:
    for _ in range(steps):
        trainer.step(batches[trainer.tokens // setting.BATCH % len(batches)])


if __name__ == "__main__":
    main()
