"""From tokens to a trained dictionary: harvest and train in one run, against SAELens.

1. All read the same tokens from a file, in contexts of 128 (SAELens' default), and train a TopK
   autoencoder of 4,608 latents, k=32, 2,048 tokens a step, for 87 steps: 178,176 tokens.
2. The run is cut into five segments. brainscan and SAELens (in fp32, with its model in bf16, and
   with autocast in training as well) run theirs in turn, each waiting for the others; rates are
   compared segment by segment. brainscan harvests and trains a segment as one chunk of its loop.
3. brainscan leaves out sinks and counts only what it trained on.
4. Each is judged by FVU on the same held-out activations, sinks left out for all.
5. SAELens' defaults are for runs of tens of thousands of steps on inputs of about unit scale. So
   that its FVU is not only that of defaults far from home, it trains twice more, untimed: with
   sinks left out of its training, and as someone who knows it would set it up for this run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from bench import setting
from bench.measure import Check, Result, Row, arguments, finish, one_thread, ratios
from bench.peers.client import INSTALL, SAELens, saelens_python

if TYPE_CHECKING:
    from torch import Tensor

    from brainscan.artifacts import ModelRef
    from brainscan.dictionaries import Dictionary
    from brainscan.models import LanguageModel

OURS = "brainscan bf16"
SEGMENTS = (17, 17, 17, 18, 18)
TARGETS = {"fp32": 3.0, "bf16": 1.8, "bf16 autocast": None}
"""The least ratio; autocast came to the comparison after the targets were set."""
HELD_OUT = 256
SINKS_OUT = {"seqpos_slice": (3, None)}
"""All of this model's sinks are among the first three tokens of a context."""
TUNED: Mapping[str, Mapping[str, Any]] = {
    "SAELens, sinks left out of its training": {"settings": SINKS_OUT},
    "SAELens, sinks left out, inputs scaled, lr 4e-3": {
        "settings": {**SINKS_OUT, "lr": 4e-3, "n_batches_for_norm_estimate": 2},
        "sae": {"normalize_activations": "expected_average_only_in"},
    },
}
"""SAELens' own settings where it is not as shipped; 4e-3 is brainscan's rate for this run."""


def main() -> None:
    quick = arguments(__doc__ or "")
    one_thread()
    lm = setting.load()
    segments = (2, 2) if quick else SEGMENTS
    n = sum(segments) * setting.BATCH // setting.CONTEXT
    tokens = setting.token_file(lm, n + 128, setting.CONTEXT)
    held_out = setting.activation_file(lm, 32 if quick else HELD_OUT, setting.CONTEXT, "test")
    with ExitStack() as stack, TemporaryDirectory() as folder:
        peers: dict[str, SAELens] = {}
        if saelens_python() is not None:
            for kind in TARGETS:
                peer = SAELens(kind, tokens, setting.CONTEXT, segments)
                peers[f"SAELens {kind}"] = stack.enter_context(peer)
        rates: dict[str, list[float]] = {name: [] for name in (OURS, *peers)}
        source = Segments(lm, setting.read_tokens(tokens)[:n], segments, peers, rates)
        dictionary = train(source, Path(folder) / "d", n * setting.CONTEXT)
        quality = {OURS: evaluate(dictionary, held_out)}
        for name, peer in peers.items():
            quality[name] = peer.ask("evaluate", file=str(held_out))
    if peers:
        quality |= {
            name: trained_alone(tokens, sum(segments), held_out, options)
            for name, options in TUNED.items()
        }
    finish(report(rates, quality, n * setting.CONTEXT))


def report(
    rates: Mapping[str, list[float]], quality: Mapping[str, Mapping[str, float]], tokens: int
) -> Result:
    setting_words = f"{tokens:,} tokens, TopK, k=32, 4,608 latents, context 128, one thread"
    result = Result("end to end", setting_words)
    for name, values in rates.items():
        result.rows.append(Row(name, values, "tokens / CPU s"))
        result.rows += quality_rows(name, quality[name])
    for name in TUNED:
        if name in quality:
            result.rows += quality_rows(name, quality[name])
    ours = quality[OURS]["fvu"]
    for kind, target in TARGETS.items():
        name = f"SAELens {kind}"
        if name in rates:
            ratio = ratios(rates[OURS], rates[name])
            if target is None:
                result.rows.append(Row(f"brainscan over {name}", ratio, "ratio"))
            else:
                result.checks.append(Check(f"brainscan over {name}", ratio, target))
            share = [ours / quality[name]["fvu"]]
            result.checks.append(Check(f"FVU over that of {name}", share, 1.0, at_least=False))
    for name in TUNED:
        if name in quality:
            share = [ours / quality[name]["fvu"]]
            result.checks.append(Check(f"FVU over that of {name}", share, 1.0, at_least=False))
    result.skipped = "" if saelens_python() is not None else INSTALL
    return result


def quality_rows(name: str, found: Mapping[str, float]) -> list[Row]:
    return [
        Row(f"{name}: FVU, held out", [found["fvu"]], ""),
        Row(f"{name}: latents active on held-out text", [float(found["alive"])], ""),
    ]


def trained_alone(
    tokens: Path, steps: int, held_out: Path, options: Mapping[str, Mapping[str, Any]]
) -> dict[str, float]:
    """How good SAELens becomes with settings of its own in as many steps; nothing is timed."""
    with SAELens("bf16 autocast", tokens, setting.CONTEXT, (steps,), **options) as peer:
        peer.ask("train")
        return peer.ask("evaluate", file=str(held_out))


class Segments:
    """A source for the training loop, which lets the peers run between its chunks."""

    hookpoints = (setting.HOOKPOINT,)
    tokens = None
    device = "cpu"
    settings: ClassVar[Mapping[str, Any]] = {"bench": "end to end"}

    def __init__(
        self,
        lm: LanguageModel,
        tokens: Tensor,
        segments: tuple[int, ...],
        peers: Mapping[str, SAELens],
        rates: dict[str, list[float]],
    ) -> None:
        """Nothing runs yet.

        Args:
            lm: the model.
            tokens: all contexts.
            segments: steps of each segment.
            peers: who else runs its segment, before or after ours in turn.
            rates: where everyone's tokens per second go.
        """
        rows = [steps * setting.BATCH // setting.CONTEXT for steps in segments]
        self.lm = lm
        self.parts = tokens.split(rows)
        self.peers = peers
        self.rates = rates
        self.model: ModelRef | None = lm.ref

    def chunks(self, start: int) -> Iterator[Mapping[str, Tensor]]:
        """The segments' activations; the loop comes back for the next when it has trained."""
        import torch

        from brainscan.activations import stream

        for number, part in enumerate(self.parts):
            if number % 2:
                self.let_peers_run(reversed(self.peers))
            began = time.process_time()
            read = stream(self.lm, setting.contexts(part), self.hookpoints)
            values = torch.cat([some.values[setting.HOOKPOINT] for some in read])
            yield {setting.HOOKPOINT: values}
            self.note(OURS, len(values) / (time.process_time() - began))
            if not number % 2:
                self.let_peers_run(self.peers)

    def let_peers_run(self, names: Iterable[str]) -> None:
        """Each runs its next segment."""
        for name in names:
            self.note(name, self.peers[name].rate("train"))

    def note(self, name: str, rate: float) -> None:
        """Keeps a rate."""
        self.rates[name].append(rate)
        print(f"  {name}: {rate:.4g}", file=sys.stderr, flush=True)


def train(source: Segments, out: Path, tokens: int) -> Dictionary:
    """Runs the training loop over all segments."""
    from brainscan.dictionaries.trainer import TrainingConfig
    from brainscan.dictionaries.training import train as run

    config = TrainingConfig(
        n_latents=setting.LATENTS, k=setting.K, batch=setting.BATCH, tokens=tokens
    )
    return run(source, config, out)[0]


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
