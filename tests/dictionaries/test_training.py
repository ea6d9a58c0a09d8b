"""Training learns planted directions, folds its scaling away, and goes on after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from brainscan.activations import HarvestConfig, harvest, open_corpus
from brainscan.artifacts import ModelRef
from brainscan.dictionaries import training
from brainscan.dictionaries.losses import fraction_of_variance_unexplained
from brainscan.dictionaries.sources import StoredActivations
from brainscan.dictionaries.trainer import Trainer, TrainingConfig
from brainscan.errors import ArtifactError, CorpusError, UnknownHookpointError, UsageError
from brainscan.models.tiny import tiny

HOOKPOINT = "resid_post.1"
CONFIG = TrainingConfig(n_latents=64, k=4, tokens=6000, batch=250, dead_after=2000)


def planted(rows: int, seed: int, d: int = 16) -> torch.Tensor:
    """Sparse sums of 32 fixed directions, far from the origin and of a scale far from 1."""
    directions = torch.randn(32, d, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(rows, 32, generator=generator).topk(3).indices
    sizes = 1 + torch.rand(rows, 3, generator=generator)
    amounts = torch.zeros(rows, 32).scatter_(1, chosen, sizes)
    return 7 * (amounts @ torch.nn.functional.normalize(directions)) + 20


@dataclass(frozen=True)
class Planted:
    """A source of chunks that can be made to fail."""

    hookpoints: tuple[str, ...] = ("resid_post.1", "resid_post.2")
    fail_at: int = 10**9
    model: ModelRef | None = None

    device: str = "cpu"
    tokens: int | None = None
    n_chunks: int = 40

    @property
    def settings(self) -> dict[str, int]:
        return {"planted": 32}

    def chunks(self, start: int) -> Iterator[dict[str, torch.Tensor]]:
        for number in islice(range(self.n_chunks), start, None):
            if number == self.fail_at:
                raise KeyboardInterrupt
            yield {
                name: planted(1000, 100 * place + number)
                for place, name in enumerate(self.hookpoints)
            }


@pytest.mark.parametrize("sparsifier", ["topk", "batch-topk"])
def test_training_explains_planted_directions(tmp_path: Path, sparsifier: str) -> None:
    config = TrainingConfig(
        n_latents=64, k=4, tokens=20_000, batch=250, dead_after=3000, sparsifier=sparsifier, lr=1e-2
    )
    (dictionary,) = training.train(Planted(("resid_post.1",)), config, tmp_path / "d")
    x = planted(2000, 12345)
    with torch.no_grad():
        fvu = fraction_of_variance_unexplained(x, dictionary.reconstruct(x), x.mean(0))
        active = (dictionary.encode(x).values > 0).sum(1).float().mean()
    assert fvu < 0.25
    assert 1 <= active <= 6
    torch.testing.assert_close(dictionary.W_dec.norm(dim=1), torch.ones(64), atol=0.01, rtol=0)
    fired = dictionary.firing_rate > 0
    assert torch.equal(fired, dictionary.activation_max > 0)
    with torch.no_grad():
        highest = dictionary.dense(dictionary.encode(planted(2000, 39))).amax(0)
    frequent = dictionary.firing_rate > 0.02
    assert (highest[frequent] < 2 * dictionary.activation_max[frequent]).all()


def test_more_tokens_explain_more() -> None:
    trainer = Trainer.started(replace(CONFIG, lr=1e-2), planted(1000, 0))
    steps = [trainer.step(planted(250, number)) for number in range(24)]
    assert sum(s.fvu for s in steps[-5:]) < 0.7 * sum(s.fvu for s in steps[:5])
    assert trainer.tokens == 6000


def test_the_auxiliary_loss_revives_dead_latents() -> None:
    def fired_at_last(aux_coefficient: float) -> int:
        config = replace(CONFIG, lr=1e-2, dead_after=500, aux_coefficient=aux_coefficient)
        trainer = Trainer.started(config, planted(1000, 0))
        with torch.no_grad():
            trainer.W_enc[32:] *= 0.1
        for number in range(24):
            trainer.step(planted(250, number))
        return int((trainer.last_fired[32:] > trainer.tokens - 500).sum())

    assert fired_at_last(1.0) >= 2 * fired_at_last(0.0) + 4


def test_an_interrupted_run_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_CHECKPOINT_SECONDS", 0.0)
    training.train(Planted(), CONFIG, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        training.train(Planted(fail_at=3), CONFIG, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    training.train(Planted(), CONFIG, tmp_path / "cut")
    for name in Planted().hookpoints:
        for file in ("weights.safetensors", "manifest.json"):
            whole = (tmp_path / "whole" / name / file).read_bytes()
            assert (tmp_path / "cut" / name / file).read_bytes() == whole
    assert not (tmp_path / "cut.checkpoint").exists()


def test_other_settings_do_not_go_on_with_an_interrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        training.train(Planted(fail_at=3), CONFIG, tmp_path / "cut")
    other = replace(CONFIG, k=5)
    with pytest.raises(ArtifactError, match="other k"):
        training.train(Planted(), other, tmp_path / "cut")


def test_a_corpus_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="--tokens 3000"):
        training.train(Planted(n_chunks=3), CONFIG, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_corpus_that_nearly_suffices_is_a_warning(tmp_path: Path) -> None:
    config = replace(CONFIG, tokens=6100)
    with pytest.warns(UserWarning, match="after 6,000 of 6,100"):
        training.train(Planted(n_chunks=6), config, tmp_path / "d")


def test_a_source_of_known_length_sets_the_length_of_the_run(tmp_path: Path) -> None:
    config = replace(CONFIG, tokens=10**9)
    trained = training.train(Planted(n_chunks=6, tokens=6000), config, tmp_path / "d")
    assert [d.manifest.settings["tokens"] for d in trained if d.manifest] == [6000, 6000]
    assert all(d.activation_max.max() > 0 for d in trained)


def test_what_is_in_the_way_is_said_before_training(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match="not an artifact"):
        training.train(Planted(("resid_post.1",), fail_at=0), CONFIG, tmp_path / "d")


def test_a_store_is_trained_on_whole(tmp_path: Path) -> None:
    lm = tiny("llama")
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"The day was word {n} and not one {n * n}." for n in range(300)))
    wanted = HarvestConfig((HOOKPOINT,), tokens=4000, context=64, split=None)
    store = harvest(lm, open_corpus(text), wanted, tmp_path / "store")
    source = StoredActivations(store, ("blocks.1.hook_resid_post",))
    (dictionary,) = training.train(source, CONFIG, tmp_path / "d")
    assert dictionary.hookpoint == HOOKPOINT
    assert dictionary.manifest is not None
    assert dictionary.manifest.figures["tokens"] == source.tokens
    with pytest.raises(UnknownHookpointError, match=HOOKPOINT):
        StoredActivations(store, ("resid_post.3",))


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="topk or batch-topk"):
        TrainingConfig(sparsifier="relu")
    with pytest.raises(UsageError, match="k from 1"):
        TrainingConfig(n_latents=8, k=9)


def test_the_learning_rate_is_scaled_to_the_run() -> None:
    short, long = TrainingConfig(tokens=178_000), TrainingConfig(tokens=17_800_000)
    assert short.peak_lr == pytest.approx(4e-3, rel=0.01)
    assert long.peak_lr == pytest.approx(6.3e-4, rel=0.01)
