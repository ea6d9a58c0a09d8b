"""Detectors for every concept of the bank, made for one model.

1. The bank's texts and neutral passages are read once, at several hookpoints (`corpus`).
2. On the split ``train`` each hookpoint gives a logistic probe and a difference of means, and where
   there is a dictionary a sparse probe; all hookpoints together give a joint one (`probes`).
3. On ``select`` each concept takes the best of these (a danger the joint one) and of four
   aggregates, is calibrated, and gets a threshold (`choosing`).
4. On ``test`` it is judged, beside keywords, a bag of words, an embedding and probes with shuffled
   labels (`cards`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from brainscan.dictionaries import Dictionary
from brainscan.dictionaries.base import shipped_dictionaries
from brainscan.errors import UsageError
from brainscan.models import LanguageModel
from brainscan.monitoring.bank import SPLITS, Concept, Split
from brainscan.monitoring.baselines import baseline_scores
from brainscan.monitoring.cards import card, shuffled_scores, text_weights
from brainscan.monitoring.choosing import Choice, choose
from brainscan.monitoring.corpus import (
    Corpus,
    Sample,
    label_samples,
    make_samples,
    read_samples,
    with_any_danger,
)
from brainscan.monitoring.dialogues import Dialogue
from brainscan.monitoring.probes import (
    Candidate,
    centred,
    dense_candidates,
    joint_candidate,
    shuffled_labels,
    sparse_candidate,
    token_weights,
)
from brainscan.monitoring.scores import Detectors

_DEPTHS = (0.52, 0.75, 0.9)
"""Where to read, as shares of the layers: for 30 of them 15, 22 and 27."""


@dataclass(frozen=True)
class CalibrationConfig:
    """How detectors are made."""

    hookpoints: tuple[str, ...] = ()
    """Where to read; none for three residuals at shares of the model's depth."""
    dictionaries: tuple[str, ...] = ()
    """Dictionaries, by name or folder, whose latents are read too, each at its hookpoint; those
    that are shipped for the model are read without being named."""
    neutral: int | None = None
    """How many neutral passages; None for all."""
    answers: int = 200
    """How many of the model's own answers to benign requests are written."""
    answer_tokens: int = 64
    """Their length at most."""
    seed: int = 0
    """Of the shuffled labels and of the answers."""

    def __post_init__(self) -> None:
        if self.answers < 0 or self.answer_tokens < 1:
            raise UsageError(
                "answers of 0 or more, of at least 1 token",
                f"{self.answers} and {self.answer_tokens}",
                "raise them",
            )


def default_hookpoints(lm: LanguageModel) -> tuple[str, ...]:
    """Where detectors read unless told otherwise.

    Args:
        lm: the model.
    """
    layers = [min(lm.n_layers - 1, int(share * lm.n_layers)) for share in _DEPTHS]
    return tuple(dict.fromkeys(f"resid_post.{layer}" for layer in layers))


def settled(lm: LanguageModel, config: CalibrationConfig) -> CalibrationConfig:
    """The settings with every hookpoint that is read and where each dictionary is.

    Args:
        lm: the model.
        config: the settings as they were given.

    Raises:
        UsageError: two dictionaries are of one hookpoint.
        UnknownDictionaryError: there is none of a name.
        DictionaryMismatchError: one is of a model of another shape.
    """
    own: dict[str, str] = {}
    for name in config.dictionaries:
        place = name if name in shipped_dictionaries() else str(Path(name).resolve())
        dictionary = Dictionary.load(place)
        dictionary.check_model(lm)
        if own.setdefault(dictionary.hookpoint, place) != place:
            raise UsageError(
                "one dictionary for a hookpoint", f"two at {dictionary.hookpoint}", "leave one out"
            )
    names = tuple(map(lm.resolve, config.hookpoints)) or default_hookpoints(lm)
    return replace(
        config,
        hookpoints=tuple(dict.fromkeys((*names, *own))),
        dictionaries=tuple(own.values()),
    )


def make_detectors(
    lm: LanguageModel,
    concepts: Sequence[Concept],
    config: CalibrationConfig,
    dialogues: Sequence[tuple[Split, Dialogue]],
    kept: Path | None,
) -> Detectors:
    """Detectors for concepts, with their figures; no rule for jumps yet.

    Several dangers get one more, for any of them.

    Args:
        lm: the model.
        concepts: at least two.
        config: how.
        dialogues: benign requests with their answers.
        kept: a file that holds what was read, if it was read before; written otherwise.

    Raises:
        UsageError: there are fewer than two concepts, or one lacks texts in some split.
    """
    if len(concepts) < 2:
        raise UsageError("at least two concepts", str(len(concepts)), "name more")
    config = settled(lm, config)
    samples = make_samples(concepts, config.neutral, dialogues)
    corpus = _read(lm, samples, config.hookpoints, kept)
    with torch.no_grad():  # probes switch gradients on where they fit
        return _detectors(lm, with_any_danger(concepts), config, corpus)


def _detectors(
    lm: LanguageModel, concepts: Sequence[Concept], config: CalibrationConfig, corpus: Corpus
) -> Detectors:
    labels = label_samples(corpus.samples, concepts)
    train, select, test = (
        token_weights(corpus, concepts, corpus.of(split), labels) for split in SPLITS
    )
    dictionaries = _dictionaries(lm, tuple(corpus.values), config.dictionaries)
    candidates = _candidates(corpus, dictionaries, train, labels.own)
    chosen = choose(corpus, concepts, candidates, labels, select)
    dealt = shuffled_labels(labels, corpus, config.seed)
    middle = list(corpus.values)[len(corpus.values) // 2]
    control = token_weights(corpus, concepts, corpus.of("train"), dealt)
    baselines = {
        **baseline_scores(corpus.samples, concepts, text_weights(corpus, train), labels.own),
        "shuffled labels": shuffled_scores(
            corpus, dense_candidates(corpus, middle, control, dealt.own)[0]
        ),
    }
    figures = {
        concept.name: card(corpus, number, choice, labels, test, baselines)
        for number, (concept, choice) in enumerate(zip(concepts, chosen, strict=True))
    }
    return Detectors(
        lm.ref,
        tuple(choice.detector for choice in chosen),
        {hookpoint: dictionaries[hookpoint].name for hookpoint in _sparse_at(chosen)},
        figures=figures,
    )


def _candidates(
    corpus: Corpus,
    dictionaries: dict[str, Dictionary],
    weights: torch.Tensor,
    labels: torch.Tensor,
) -> list[Candidate]:
    found = []
    for hookpoint in corpus.values:
        found += dense_candidates(corpus, hookpoint, weights, labels)
        if hookpoint in dictionaries:
            found.append(sparse_candidate(corpus, dictionaries[hookpoint], weights, labels))
    logistic = [one for one in found if one.method == "logistic"]
    if len(logistic) > 1:
        found.append(joint_candidate(logistic))
    return [centred(corpus, one) for one in found]


def _sparse_at(chosen: Sequence[Choice]) -> list[str]:
    """Where some detector reads latents."""
    return sorted({one.detector.hookpoint for one in chosen if one.detector.latents})


def _dictionaries(
    lm: LanguageModel, hookpoints: Sequence[str], own: Sequence[str]
) -> dict[str, Dictionary]:
    """The model's shipped dictionaries at hookpoints that are read, by hookpoint, or one's own."""
    base = lm.name.partition("+")[0]
    found = {}
    for name in shipped_dictionaries():
        model, _, hookpoint = name.rpartition("/")
        if model == base and hookpoint in hookpoints:
            found[hookpoint] = Dictionary.load(name)
            found[hookpoint].check_model(lm)
    return found | {one.hookpoint: one for one in map(Dictionary.load, own)}


def _read(
    lm: LanguageModel, samples: Sequence[Sample], hookpoints: Sequence[str], kept: Path | None
) -> Corpus:
    """The samples' activations, read now or taken from a file."""
    from safetensors.torch import load_file, save_file

    if kept is not None and kept.is_file():
        tensors = load_file(kept)
        owners = tensors.pop("owners")
        return Corpus(tuple(samples), owners, {name: tensors[name] for name in hookpoints})
    corpus = read_samples(lm, samples, hookpoints)
    if kept is not None:
        draft = kept.with_suffix(".tmp")
        save_file({"owners": corpus.owners, **corpus.values}, draft)
        draft.rename(kept)
    return corpus
