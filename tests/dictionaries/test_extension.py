"""Latents are added without touching those there, and explain what the base misses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from brainscan.activations import Context, Document, Message
from brainscan.activations.harvest import find_sinks
from brainscan.artifacts import ModelRef, read_manifest
from brainscan.dictionaries import Dictionary
from brainscan.dictionaries.autoencoder import Autoencoder
from brainscan.dictionaries.evaluation import evaluate
from brainscan.dictionaries.extended import Extended
from brainscan.dictionaries.extension import SHARED, ExtensionConfig, _held_out, extend
from brainscan.dictionaries.testing import random_dictionary
from brainscan.dictionaries.transcripts import (
    Transcript,
    document_transcripts,
    read_transcripts,
)
from brainscan.errors import (
    ArtifactError,
    CorpusError,
    DictionaryMismatchError,
    UsageError,
)
from brainscan.interventions.targets import LatentTarget
from brainscan.models import capture
from brainscan.models.tiny import tiny

D = 16
HOOKPOINT = "resid_post.1"
CONFIG = ExtensionConfig(n_latents=32, k=3, steps=200, batch=200)


def directions() -> torch.Tensor:
    rows = torch.randn(24, D, generator=torch.Generator().manual_seed(7))
    return torch.nn.functional.normalize(rows)


def planted(rows: int, seed: int = 0) -> torch.Tensor:
    """Sparse sums of directions, of which the base knows the first twelve only."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(rows, 24, generator=generator).topk(3).indices
    sizes = 1 + torch.rand(rows, 3, generator=generator)
    return torch.zeros(rows, 24).scatter_(1, chosen, sizes) @ directions() + 2


def general() -> Autoencoder:
    rows = directions()[:12].bfloat16().float()
    plain = random_dictionary(D, 12, 2, HOOKPOINT)
    b_dec = torch.full((D,), 2.0)
    return replace(plain, W_enc=rows, b_enc=-rows @ b_dec, W_dec=rows.clone(), b_dec=b_dec)


@pytest.fixture(scope="module")
def extended() -> Extended:
    """The base, extended on 4,000 tokens of 20 transcripts."""
    return extend(general(), planted(4000), CONFIG, transcripts=torch.arange(4000) // 200)


def fvu(dictionary: Dictionary, x: torch.Tensor) -> float:
    with torch.no_grad():
        error = x - dictionary.reconstruct(x)
    return float(error.square().sum() / (x - x.mean(0)).square().sum())


def test_the_bases_latents_keep_addresses_and_activations(extended: Extended) -> None:
    base, x = general(), planted(300, 5)
    assert (extended.n_base, extended.n_latents, extended.k) == (12, 44, 5)
    for part in (x, x[:20]):  # many tokens are encoded otherwise than few
        with torch.no_grad():
            ours, theirs = extended.encode(part), base.encode(part)
            old = list(range(12))
            assert torch.equal(ours.indices[:, :2], theirs.indices)
            assert torch.equal(ours.values[:, :2], theirs.values)
            assert torch.equal(extended.activations_of(part, old), base.activations_of(part, old))
    for name in ("W_enc", "b_enc", "W_dec", "activation_max", "firing_rate"):
        assert torch.equal(getattr(extended, name)[:12], getattr(base, name))


def test_a_reconstruction_is_the_bases_and_what_is_added(extended: Extended) -> None:
    x = planted(30, 5)
    expected = general().reconstruct(x) + extended.added.reconstruct(x)
    torch.testing.assert_close(extended.reconstruct(x), expected)
    code = extended.encode(x)
    dense = extended.dense(code)
    torch.testing.assert_close(dense @ extended.W_dec + extended.b_dec, expected)
    active = dense > 0
    affine = x @ extended.W_enc.T + extended.b_enc
    torch.testing.assert_close(dense[active], affine[active], atol=1e-5, rtol=1e-4)


def test_fvu_falls_on_what_the_base_lacks(extended: Extended) -> None:
    fresh = planted(1000, 99)
    assert fvu(extended, fresh) < 0.5 * fvu(general(), fresh)
    assert fvu(extended, fresh) < 0.6 * fvu(replace(general(), k=5), fresh)


def test_figures_are_of_both_parts_and_have_intervals(extended: Extended) -> None:
    found = extended.figures["fvu"]
    assert (found["trained_on"]["transcripts"], found["held_out"]["transcripts"]) == (18, 2)
    assert (found["trained_on"]["tokens"], found["held_out"]["tokens"]) == (3600, 400)
    for part in found.values():
        for name in ("base", "base_same_k", "extended"):
            assert part[name]["low"] <= part[name]["value"] <= part[name]["high"]
            assert part["extended"]["value"] <= part[name]["value"]
    assert extended.figures["dead_added"]["n"] == 32
    dead = int((extended.activation_max[12:] == 0).sum())
    assert extended.figures["dead_added"]["value"] == dead / 32


def test_what_is_held_out_is_not_trained_on() -> None:
    transcripts = torch.arange(2000) // 100
    first = extend(general(), planted(2000), CONFIG, transcripts=transcripts)
    assert first.figures["fvu"]["held_out"]["transcripts"] == 2
    altered = planted(2000)
    altered[_held_out(transcripts, 0)] += 100
    second = extend(general(), altered, CONFIG, transcripts=transcripts)
    assert torch.equal(first.W_enc, second.W_enc)


def test_shared_tokens_are_trained_on_and_without_transcripts_all_are() -> None:
    x = planted(400)
    whole = extend(general(), x, CONFIG)
    assert "held_out" not in whole.figures["fvu"]
    transcripts = torch.arange(400) // 100
    transcripts[::2] = SHARED
    found = extend(general(), x, CONFIG, transcripts=transcripts).figures["fvu"]
    assert (found["trained_on"]["tokens"], found["held_out"]["tokens"]) == (350, 50)
    assert (found["trained_on"]["transcripts"], found["held_out"]["transcripts"]) == (3, 1)
    one = extend(general(), x, CONFIG, transcripts=torch.zeros(400, dtype=torch.int64))
    assert "held_out" not in one.figures["fvu"]


def test_a_seed_gives_the_same_latents_and_another_one_others() -> None:
    x, short = planted(600), replace(CONFIG, steps=20)
    first, again = extend(general(), x, short), extend(general(), x, short)
    assert torch.equal(first.W_enc, again.W_enc)
    assert first.figures == again.figures
    assert not torch.equal(first.W_dec, extend(general(), x, replace(short, seed=1)).W_dec)


def test_a_batch_topk_base_can_be_extended() -> None:
    base = replace(general(), threshold=0.9)
    found = extend(base, planted(1000), replace(CONFIG, steps=50))
    assert "base_same_k" not in found.figures["fvu"]["trained_on"]
    x = planted(100, 3)
    with torch.no_grad():
        expected = base.dense(base.encode(x))
        assert torch.equal(found.dense(found.encode(x))[:, :12], expected)


def test_gradients_flow_through_both_parts(extended: Extended) -> None:
    x = planted(10, 5).requires_grad_()
    values = extended.encode(x).values
    for part in (values[:, :2], values[:, 2:]):
        (grad,) = torch.autograd.grad(part.sum(), x, retain_graph=True)
        assert grad.abs().sum() > 0
    code = extended.encode(x)
    live = (code.values[0] > 0).nonzero()[-1]
    (grad,) = torch.autograd.grad(code.values[0, live], x)
    torch.testing.assert_close(grad[0], extended.W_enc[code.indices[0, live]][0])


def test_an_added_latent_is_edited_as_any_other(extended: Extended) -> None:
    x = planted(50, 5)
    latent = 12 + int(extended.firing_rate[12:].argmax())
    target = LatentTarget(HOOKPOINT, extended, latent)
    with torch.no_grad():
        old = target.read(x)
        changed = target.write(x, old, old + target.unit(x))
    assert (old > 0).any()
    expected = (extended.activation_max[latent] * extended.W_dec[latent]).expand(50, -1)
    torch.testing.assert_close(changed - x, expected, atol=1e-5, rtol=1e-4)


def test_saving_and_loading_gives_the_same_dictionary(extended: Extended, tmp_path: Path) -> None:
    general().save(tmp_path / "base")
    base = Dictionary.load(tmp_path / "base")
    made = extend(base, planted(600), CONFIG, model=ModelRef("tiny", "ab"), settings={"on": "x"})
    made.save(tmp_path / "d")
    loaded = Dictionary.load(tmp_path / "d")
    assert isinstance(loaded, Extended)
    assert (loaded.name, loaded.hookpoint) == (str(tmp_path / "d"), HOOKPOINT)
    assert (loaded.k, loaded.n_base, loaded.model) == (5, 12, ModelRef("tiny", "ab"))
    x = planted(300, 5)
    with torch.no_grad():
        assert torch.equal(loaded.reconstruct(x), made.reconstruct(x))
    manifest = read_manifest(tmp_path / "d", "dictionary")
    assert manifest.parents == {"base": read_manifest(tmp_path / "base").digest}
    assert manifest.settings["architecture"] == "extended"
    assert manifest.settings["base"]["name"] == str(tmp_path / "base")
    assert (manifest.settings["on"], manifest.seed) == ("x", 0)
    assert manifest.figures == made.figures
    loaded.save(tmp_path / "again")
    assert Dictionary.load(tmp_path / "again").manifest == loaded.manifest


def test_an_altered_or_unknown_one_is_refused(extended: Extended, tmp_path: Path) -> None:
    extended.save(tmp_path / "d")
    weights = tmp_path / "d" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ArtifactError, match=r"sha256.*weights\.safetensors.*truncated"):
        Dictionary.load(tmp_path / "d")
    strange = tmp_path / "strange"
    extended.save(strange)
    manifest = strange / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"extended",', '"folded",'))
    with pytest.raises(ArtifactError, match="'autoencoder' or 'extended'; got 'folded'"):
        Dictionary.load(strange)


def test_what_cannot_be_extended_is_said(extended: Extended) -> None:
    with pytest.raises(UsageError, match="without added latents"):
        extend(extended, planted(100), CONFIG)
    with pytest.raises(DictionaryMismatchError, match=r"width 16.*width 8"):
        extend(general(), torch.zeros(100, 8), CONFIG)
    with pytest.raises(CorpusError, match="tokens to train on"):
        extend(general(), torch.zeros(0, D), CONFIG)
    with pytest.raises(CorpusError, match="the same for each token"):
        extend(general(), torch.ones(5, D), CONFIG)
    with pytest.raises(UsageError, match="k from 1"):
        ExtensionConfig(n_latents=4, k=5)
    with pytest.raises(UsageError, match="steps of at least 1"):
        ExtensionConfig(steps=0)
    with pytest.raises(DictionaryMismatchError, match=r"resid_post\.1.*resid_post\.2"):
        Extended(general(), random_dictionary(D, 8, 2, "resid_post.2"))


def test_the_run_is_no_longer_than_asked_for() -> None:
    assert ExtensionConfig().run(50_000).tokens == 600 * 1024
    assert ExtensionConfig().run(1000).tokens == 40_000


def test_an_extended_dictionary_is_evaluated_as_any_other() -> None:
    lm = tiny("llama")
    base = random_dictionary(lm.d_model, 64, 4, HOOKPOINT)
    texts = [f"the day {n} was not one {n * n} that you word" for n in range(40)]
    rows = [Transcript(str(n), lm.tokenize(text)) for n, text in enumerate(texts)]
    read = read_transcripts(lm, rows, HOOKPOINT, 100_000)
    found = extend(base, read.activations, CONFIG, transcripts=read.transcripts, model=lm.ref)
    contexts = [
        Context(torch.tensor(row.tokens), torch.full((len(row.tokens),), n), ("",))
        for n, row in enumerate(rows[:5])
    ]
    before, after = (evaluate(lm, dictionary, contexts) for dictionary in (base, found))
    assert after.fvu.value < 0.5 * before.fvu.value
    assert after.dead_fraction.n == 96


def test_transcripts_are_read_as_the_model_wrote_them() -> None:
    lm = tiny("llama")
    tokens = lm.tokenize("the day was one that you and the word was with not one day")
    read = read_transcripts(lm, [Transcript("a", tokens)], HOOKPOINT, 1000)
    with torch.no_grad(), capture(lm, [HOOKPOINT]) as captured:
        lm.forward(torch.tensor([tokens]))
    kept = ~find_sinks(captured[HOOKPOINT])[0]
    torch.testing.assert_close(read.activations, captured[HOOKPOINT][0][kept])
    assert set(read.transcripts.tolist()) == {0}


def test_what_transcripts_share_is_kept_once() -> None:
    lm = tiny("llama")
    start = lm.tokenize("the day was one that you and")
    first, second = start + lm.tokenize("ing word"), start + lm.tokenize("not the day")
    rows = [Transcript("a", start), Transcript("a", first), Transcript("b", second)]
    read = read_transcripts(lm, [*rows, Transcript("c", second)], HOOKPOINT, 1000)
    shared = int((read.transcripts == SHARED).sum())
    # The last one is like the third, so that both are shared; what only "a" has stays its own.
    assert shared == len(second) - 1
    assert int((read.transcripts == 0).sum()) == len(first) - len(start)
    cut = read_transcripts(lm, rows, HOOKPOINT, len(start) + 1)
    assert len(cut.transcripts) == len(start)
    assert cut.sha256 != read.sha256


def test_documents_are_parted_and_opened_as_in_a_harvest(opening_lm: Any) -> None:
    (opening,) = opening_lm.opening
    text = Document("t", "s", text="the day was one that you " * 5)
    chat = Document("c", "s", messages=(Message("user", "the day"), Message("assistant", "was")))
    parts = list(document_transcripts(opening_lm, [text, chat], 16))
    assert {part.name for part in parts} == {"t", "c"}
    assert all(part.tokens[0] == opening and len(part.tokens) <= 16 for part in parts)
    assert all(opening not in part.tokens[1:-1] for part in parts)


def test_transcripts_that_cannot_be_read_are_named() -> None:
    lm = tiny("llama")
    with pytest.raises(DictionaryMismatchError, match=r"9999 in a.*--model"):
        read_transcripts(lm, [Transcript("a", [1, 9999])], HOOKPOINT, 10)
    with pytest.raises(CorpusError, match="more than one token"):
        read_transcripts(lm, [Transcript("a", [1])], HOOKPOINT, 10)
    with pytest.raises(CorpusError, match="more than one token"):
        read_transcripts(lm, [], HOOKPOINT, 10)
