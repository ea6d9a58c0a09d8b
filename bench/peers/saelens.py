"""SAELens at work, in its own environment: one JSON command a line in, one JSON answer a line out.

    {"do": "open", "model": FOLDER, "tokens": FILE, "dtype": ..., "autocast": ..., ...}
    {"do": "harvest", "passes": N}     -> seconds, tokens
    {"do": "cached", "file": FILE}     training steps will be on these activations
    {"do": "steps", "steps": N}        -> seconds, tokens
    {"do": "train"}                    -> seconds, tokens: up to the next segment's end, each time
    {"do": "evaluate", "file": FILE}   -> fvu, l0, alive, of what was trained

SAELens is used as shipped: a TopK autoencoder with its default settings, its own activation store,
and its own trainer. `dtype` is that in which the model is loaded; `autocast` is its setting of that
name, for training. `settings` and `sae` are further settings of its run and of its autoencoder, by
its own names; as shipped there are none.
Seconds are of the processor; waiting for a command takes none.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "TQDM_DISABLE": "1"}

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from sae_lens import (  # noqa: E402
    LanguageModelSAERunnerConfig,
    LoggingConfig,
    TopKTrainingSAEConfig,
)
from sae_lens import __version__ as version  # noqa: E402
from sae_lens.llm_sae_training_runner import LanguageModelSAETrainingRunner  # noqa: E402
from sae_lens.training.sae_trainer import SAETrainer  # noqa: E402
from safetensors.torch import load_file  # noqa: E402


def answer(**values: Any) -> None:
    ANSWERS.write(json.dumps(values) + "\n")


def command() -> dict[str, Any]:
    line = sys.stdin.readline()
    return dict(json.loads(line)) if line.strip() else {"do": "stop"}


class Timed:
    """Processor time since the last look, without the time spent waiting."""

    def __init__(self) -> None:
        self.since = time.process_time()

    def look(self) -> float:
        now = time.process_time()
        passed, self.since = now - self.since, now
        return passed


class Segments:
    """The activations given to a trainer, which pauses whenever another segment is trained on."""

    def __init__(self, source: Iterator[torch.Tensor], steps: list[int]) -> None:
        self.source = source
        self.ends = [sum(steps[: place + 1]) for place in range(len(steps))]
        self.given = self.tokens = 0
        self.timed = Timed()

    def __iter__(self) -> Segments:
        return self

    def __next__(self) -> torch.Tensor:
        if self.given in self.ends:
            self.report()
            expect("train")
        if self.given in (0, *self.ends):
            self.timed.look()
        batch = next(self.source)
        self.given += 1
        self.tokens += batch.shape[0]
        return batch

    def report(self) -> None:
        answer(seconds=self.timed.look(), tokens=self.tokens)
        self.tokens = 0


def expect(what: str) -> None:
    got = command()
    if got["do"] != what:
        sys.exit(f"expected the command {what}; got {got['do']}; restart the bench")


class Peer:
    """One configuration of SAELens."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.config = configure(options)
        tokens = load_file(options["tokens"])["tokens"]
        dataset = Dataset.from_dict({"input_ids": tokens.tolist()})
        torch.manual_seed(0)
        self.runner = LanguageModelSAETrainingRunner(self.config, override_dataset=dataset)
        self.trainer: Any = None

    def harvest(self, passes: int) -> None:
        timed, tokens = Timed(), 0
        for _ in range(passes):
            tokens += len(self.runner.activations_store.get_filtered_llm_batch())
        answer(seconds=timed.look(), tokens=tokens)

    def cached(self, file: str) -> None:
        rows = load_file(file)["x"].float()
        batch = self.config.train_batch_size_tokens
        self.batches = [part for part in rows.split(batch) if len(part) == batch]
        self.trainer = self.make_trainer(iter(()))
        answer(batches=len(self.batches))

    def steps(self, steps: int) -> None:
        timed, tokens = Timed(), 0
        for _ in range(steps):
            batch = self.batches[self.trainer.n_training_steps % len(self.batches)]
            self.trainer.step(batch)
            self.trainer.n_training_steps += 1
            tokens += len(batch)
        answer(seconds=timed.look(), tokens=tokens)

    def train(self) -> None:
        segments = Segments(iter(self.runner.activations_store), self.options["segments"])
        self.trainer = self.make_trainer(segments)
        if self.config.sae.normalize_activations == "expected_average_only_in":
            self.trainer.activation_scaler.estimate_scaling_factor(  # on batches of its own
                self.config.sae.d_in,
                self.runner.activations_store,
                self.config.n_batches_for_norm_estimate,
            )
        self.trainer.fit()
        segments.report()

    @torch.no_grad()
    def evaluate(self, file: str) -> None:
        """Over held-out activations: squared error over variance, active latents, those alive."""
        x = load_file(file)["x"].float()
        sae = self.runner.sae.eval()
        error = active = 0.0
        alive = torch.zeros(sae.cfg.d_sae, dtype=torch.bool)
        for part in x.split(2048):
            code = sae.encode(part)
            error += float((part - sae.decode(code)).square().sum())
            active += float((code != 0).sum())
            alive |= (code != 0).any(0)
        variance = float((x - x.mean(0)).square().sum())
        answer(fvu=error / variance, l0=active / len(x), alive=int(alive.sum()))

    def make_trainer(self, source: Any) -> Any:
        return SAETrainer(
            sae=self.runner.sae, data_provider=source, cfg=self.config.to_sae_trainer_config()
        )


def configure(options: dict[str, Any]) -> LanguageModelSAERunnerConfig[Any]:
    return LanguageModelSAERunnerConfig(
        sae=TopKTrainingSAEConfig(
            d_in=options["d"], d_sae=options["latents"], k=options["k"], **options["sae"]
        ),
        model_name=options["model"],
        model_class_name="AutoModelForCausalLM",
        model_from_pretrained_kwargs={"dtype": getattr(torch, options["dtype"])},
        hook_name=f"model.layers.{options['layer']}",
        dataset_path="the tokens given",
        streaming=False,
        context_size=options["context"],
        training_tokens=sum(options["segments"]) * options["batch"],
        store_batch_size_prompts=options["pass"] // options["context"],
        train_batch_size_tokens=options["batch"],
        autocast=options["autocast"],
        device="cpu",
        n_checkpoints=0,
        checkpoint_path=None,
        output_path=None,
        logger=LoggingConfig(log_to_wandb=False),
        **options["settings"],
    )


def main() -> NoReturn:
    torch.set_num_threads(1)
    answer(version=version, torch=torch.__version__)
    peer: Peer | None = None
    while True:
        asked = command()
        what = asked.pop("do")
        if what == "stop":
            sys.exit(0)
        if what == "open":
            peer = Peer(asked)
            answer(opened=asked["dtype"])
        elif peer is not None:
            getattr(peer, what)(**asked)


if __name__ == "__main__":
    main()
