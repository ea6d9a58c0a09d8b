"""From tokens to a trained dictionary: harvest and train in one run, against SAELens.

1. All read the same tokens from a file, in contexts of 128 (SAELens' default), and train a TopK
   autoencoder of 4,608 latents, k=32, 2,048 tokens a step, for 87 steps: 178,176 tokens.
2. The run is cut into five segments. brainscan and SAELens (in fp32, with its model in bf16, and
   with autocast in training as well) run theirs in turn, each waiting for the others; rates are
   compared segment by segment. brainscan harvests and trains a segment as one chunk of its loop.
3. brainscan leaves out sinks and counts only what it trained on.
4. Each is judged by FVU on the same held-out activations, sinks left out for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bench import setting
from bench.measure import Check, Result, Row, arguments, finish, interleaved, one_thread, ratios
from bench.peers.client import INSTALL, SAELens, saelens_python

if TYPE_CHECKING:
    from torch import Tensor

    from brainscan.artifacts import ModelRef
    from brainscan.dictionaries import Dictionary
    from brainscan.models import LanguageModel

SEGMENTS = (17, 17, 17, 18, 18)
TARGETS = {"fp32": 3.0, "bf16": 1.8, "bf16 autocast": None}
"""The least ratio; autocast came to the comparison after the targets were set."""
HELD_OUT = 256


def main() -> None:
    quick = arguments(__doc__ or "")
    one_thread()
    lm = setting.load()
    segments = (2, 2) if quick else SEGMENTS
    n = sum(segments) * setting.BATCH // setting.CONTEXT
    tokens = setting.token_file(lm, n + 64, setting.CONTEXT)
    held_out = setting.activation_file(lm, 32 if quick else HELD_OUT, setting.CONTEXT, "test")
    with ExitStack() as stack, TemporaryDirectory() as folder:
        ours = Brainscan(lm, setting.read_tokens(tokens)[:n], segments, Path(folder) / "d")
        arms = {"brainscan bf16": ours.segment}
        peers: dict[str, SAELens] = {}
        if saelens_python() is not None:
            for kind in TARGETS:
                peer = SAELens(kind, tokens, setting.CONTEXT, segments)
                peers[kind] = stack.enter_context(peer)
                arms[f"SAELens {kind}"] = partial(peer.rate, "train")
        rates = interleaved(arms, len(segments))
        quality = {"brainscan bf16": evaluate(ours.finish(), held_out)}
        for kind, peer in peers.items():
            quality[f"SAELens {kind}"] = peer.ask("evaluate", file=str(held_out))
    finish(report(rates, quality, n * setting.CONTEXT))


def report(
    rates: Mapping[str, list[float]], quality: Mapping[str, Mapping[str, float]], tokens: int
) -> Result:
    setting_words = f"{tokens:,} tokens, TopK, k=32, 4,608 latents, context 128, one thread"
    result = Result("end to end", setting_words)
    for name, values in rates.items():
        result.rows.append(Row(name, values, "tokens / CPU s"))
        result.rows.append(Row(f"{name}: FVU, held out", [quality[name]["fvu"]], ""))
        alive = [float(quality[name]["alive"])]
        result.rows.append(Row(f"{name}: latents active on held-out text", alive, ""))
    ours = quality["brainscan bf16"]["fvu"]
    for kind, target in TARGETS.items():
        name = f"SAELens {kind}"
        if name in rates:
            ratio = ratios(rates["brainscan bf16"], rates[name])
            if target is None:
                result.rows.append(Row(f"brainscan over {name}", ratio, "ratio"))
            else:
                result.checks.append(Check(f"brainscan over {name}", ratio, target))
            share = [ours / quality[name]["fvu"]]
            result.checks.append(Check(f"FVU over that of {name}", share, 1.0, at_least=False))
    result.skipped = "" if saelens_python() is not None else INSTALL
    return result


class Brainscan:
    """The training loop of brainscan over a fixed set of tokens, a segment at a time."""

    def __init__(
        self, lm: LanguageModel, tokens: Tensor, segments: tuple[int, ...], out: Path
    ) -> None:
        """Starts the loop in a thread, where it waits.

        Args:
            lm: the model.
            tokens: all contexts.
            segments: steps of each segment.
            out: the dictionary's folder.
        """
        from concurrent.futures import ThreadPoolExecutor
        from queue import Queue

        from brainscan.dictionaries.trainer import TrainingConfig
        from brainscan.dictionaries.training import train

        rows = [steps * setting.BATCH // setting.CONTEXT for steps in segments]
        self.source = Segments(lm, list(tokens.split(rows)), Queue(), Queue())
        config = TrainingConfig(
            n_latents=setting.LATENTS,
            k=setting.K,
            batch=setting.BATCH,
            tokens=tokens.numel(),
        )
        pool = ThreadPoolExecutor(1)
        self.run = pool.submit(train, self.source, config, out)
        self.run.add_done_callback(lambda done: self.source.done.put(None))

    def segment(self) -> float:
        """Lets the loop go to the end of the next segment; tokens per second."""
        import time

        start = time.process_time()
        self.source.go.put(None)
        self.source.done.get()
        seconds = time.process_time() - start
        if self.run.done():
            self.run.result()
        return self.source.kept / seconds

    def finish(self) -> Dictionary:
        """The trained dictionary, once the loop has ended."""
        self.source.go.put(None)
        return self.run.result()[0]


class Segments:
    """A source for the training loop that waits before each of its chunks."""

    hookpoints = (setting.HOOKPOINT,)
    tokens = None
    device = "cpu"

    def __init__(self, lm: LanguageModel, parts: list[Tensor], go: Any, done: Any) -> None:
        self.lm = lm
        self.parts = parts
        self.go = go
        self.done = done
        self.kept = 0
        self.model: ModelRef | None = lm.ref

    @property
    def settings(self) -> Mapping[str, Any]:
        """What names the source in a manifest."""
        return {"bench": "end to end"}

    def chunks(self, start: int) -> Iterator[Mapping[str, Tensor]]:
        """The segments' activations; the loop comes back for the next when it has trained."""
        import torch

        from brainscan.activations import stream

        torch.set_num_threads(1)
        for number, part in enumerate(self.parts):
            if number:
                self.done.put(None)
            self.go.get()
            read = stream(self.lm, setting.contexts(part), self.hookpoints)
            values = torch.cat([some.values[setting.HOOKPOINT] for some in read])
            self.kept = len(values)
            yield {setting.HOOKPOINT: values}


def evaluate(dictionary: Dictionary, file: Path) -> dict[str, float]:
    """Squared error over variance on held-out activations, and how many latents are active."""
    import torch
    from safetensors.torch import load_file

    x = load_file(file)["x"].float()
    with torch.no_grad():
        code = dictionary.encode(x)
        error = (x - dictionary.decode(code)).square().sum()
    active = code.values > 0
    return {
        "fvu": float(error / (x - x.mean(0)).square().sum()),
        "l0": float(active.sum() / len(x)),
        "alive": float(code.indices[active].unique().numel()),
    }


if __name__ == "__main__":
    main()
