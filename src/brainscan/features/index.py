"""Building an atlas: what each latent of a dictionary fires on and does, from one pass over text.

1. Contexts of the corpus go through the model up to the dictionary's hookpoint, and its encoder;
   sinks are left out. The code is kept on disk until the end.
2. On the way, for all latents at once: how often each fires and how strongly at most, its
   strongest firings and a uniform sample of them (firings.py), and how much of its activation
   falls on each word and token (masses.py).
3. From the sample come quantiles and the examples of each band (examples.py); the kept code gives
   the activations around each example.
4. From the weights come the tokens that each latent promotes and suppresses, and its nearest
   latents (outputs.py).
5. A label of a few words is counted out for each latent (label.py).
6. All is written as Parquet tables (tables.py). Examples point into one copy of the text.

Memory grows with the text by eight bytes a token, for the ids; all else is bounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from brainscan import artifacts
from brainscan.activations import Context, Corpus, pack
from brainscan.activations.packing import DEFAULT_CONTEXT
from brainscan.errors import UsageError
from brainscan.features import tables
from brainscan.features.code_log import CodeLog
from brainscan.features.examples import Collector, Text, windows
from brainscan.features.firings import Firings, Ints
from brainscan.features.masses import Masses
from brainscan.features.outputs import Outputs, has_outputs, neighbours, outputs
from brainscan.features.reading import Reading, read
from brainscan.features.words import Words
from brainscan.memory import kept_memory
from brainscan.progress import progress

if TYPE_CHECKING:
    from brainscan.activations.documents import Split
    from brainscan.dictionaries import Dictionary
    from brainscan.models import LanguageModel

KIND = "atlas"
BATCH = 1
"""Contexts in a forward pass; more than one falls out of the processor's cache."""

OUTPUTS = 10
NEIGHBOURS = 6

_CODE = "code.tmp"


@dataclass(frozen=True)
class AtlasConfig:
    """What an atlas is made of."""

    tokens: int = 200_000
    """Tokens to read, rounded up to whole contexts; sinks count as read."""

    split: Split | None = "train"
    """The part of the corpus to read; None for all of it."""

    context: int = DEFAULT_CONTEXT
    """Tokens of a context."""

    seed: int = 0
    """Orders the corpus and draws the samples."""

    def __post_init__(self) -> None:
        """Checks that there is something to read."""
        if self.tokens < 1:
            raise UsageError("at least 1 token", str(self.tokens), "raise it")


def build_atlas(
    lm: LanguageModel,
    dictionary: Dictionary,
    corpus: Corpus,
    config: AtlasConfig | None = None,
    *,
    out: str | Path,
) -> Path:
    """Makes the atlas of a dictionary, as an artifact of kind "atlas".

    Args:
        lm: the model that the dictionary is of.
        dictionary: whose latents are described.
        corpus: the text.
        config: how much of it to read; the defaults when left out.
        out: the artifact's folder.

    Returns:
        The artifact's folder.

    Raises:
        DictionaryMismatchError: the dictionary does not fit the model.
        CorpusError: the corpus has no text.
    """
    config = config or AtlasConfig()
    dictionary.check_model(lm)
    settings = {"corpus": corpus.settings, "dictionary": dictionary.name, **asdict(config)}
    del settings["seed"]  # it has a place of its own in the manifest
    with artifacts.create(
        out,
        kind=KIND,
        model=lm.ref,
        parents={"dictionary": dictionary_digest(dictionary)},
        hookpoints=(dictionary.hookpoint,),
        settings=settings,
        seed=config.seed,
    ) as draft:
        survey = _Survey(lm, dictionary, config.seed, draft.path / _CODE)
        contexts = pack(lm, corpus.documents(config.split, config.seed), config.context)
        survey.read(contexts, -(-config.tokens // config.context), config.context)
        draft.figures.update(survey.write(draft.path))
    return Path(out)


def dictionary_digest(dictionary: Dictionary) -> str:
    """What an atlas names its dictionary by: the artifact's digest, or a hash of the weights."""
    if dictionary.manifest is not None:
        return dictionary.manifest.digest
    weights = hashlib.sha256()
    for tensor in (dictionary.W_enc, dictionary.b_enc, dictionary.W_dec, dictionary.b_dec):
        weights.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return weights.hexdigest()


class _Survey:
    """What has been seen of the text so far."""

    def __init__(self, lm: LanguageModel, dictionary: Dictionary, seed: int, code: Path) -> None:
        self.lm = lm
        self.dictionary = dictionary
        n = dictionary.n_latents
        self.log = CodeLog(code, n)
        self.collector = Collector(n, seed)
        self.words, self.by_word, self.by_token = Words(), Masses(), Masses()
        self.fired = np.zeros(n, np.int64)
        self.largest = np.zeros(n, np.float32)
        self.tokens: list[NDArray[np.int32]] = []
        self.documents: list[NDArray[np.int32]] = []
        self.n_read = self.n_sinks = self.context = 0

    def read(self, contexts: Iterator[Context], count: int, length: int) -> None:
        """Reads so many contexts, with a progress bar."""
        rows = islice(contexts, count)
        with kept_memory(), progress("atlas", count * length, "tokens") as advance:
            while group := list(islice(rows, BATCH)):
                advance(self.add(group))

    def add(self, contexts: list[Context]) -> int:
        """Reads some contexts; returns how many tokens that were."""
        tokens = torch.stack([context.tokens for context in contexts])
        documents = torch.stack([context.documents for context in contexts])
        reading = read(self.lm, tokens, self.dictionary.hookpoint)
        firings = self._firings(reading, documents.flatten().numpy())
        ids = tokens.flatten().numpy()
        here = firings.place - self.n_read
        self.log.append(firings, self.n_read)
        self.collector.add(firings)
        self.by_token.add(firings.latent, ids[here], firings.value)
        words = [self.words.number(self.lm.token_strings(row)) for row in tokens.tolist()]
        self.by_word.add(firings.latent, np.array(words).flatten()[here], firings.value)
        self.fired += np.bincount(firings.latent, minlength=len(self.fired))
        np.maximum.at(self.largest, firings.latent, firings.value)
        self.tokens.append(ids.astype(np.int32))
        self.documents.append(documents.flatten().numpy().astype(np.int32))
        self.context = tokens.shape[1]
        self.n_read += len(ids)
        self.n_sinks += int(reading.sinks.sum())
        return len(ids)

    def write(self, folder: Path) -> dict[str, int]:
        """Writes the tables; returns the figures."""
        dictionary = self.dictionary
        trained = dictionary.activation_max.float().cpu().numpy()
        maxima = np.where(trained > 0, trained, self.largest)
        text = Text(
            np.concatenate(self.tokens).astype(np.int64),
            np.concatenate(self.documents).astype(np.int64),
            self.context,
        )
        found = windows(*self.collector.examples(), text, self.log, maxima)
        self.log.path.unlink()
        facts = tables.Facts(
            fired=self.fired,
            maxima=maxima,
            quantiles=self.collector.quantiles(),
            n_tokens=self.n_read - self.n_sinks,
        )
        tables.write(
            folder,
            self.lm,
            text,
            found,
            facts,
            tables.Vocabulary(self.words, self.by_word.sums(), self.by_token.sums()),
            self._outputs(),
            neighbours(dictionary, NEIGHBOURS),
        )
        return {
            "tokens": facts.n_tokens,
            "sinks": self.n_sinks,
            "documents": int(text.documents.max()) + 1,
            "latents": len(self.fired),
            "never_fired": int((self.fired == 0).sum()),
        }

    def _firings(self, reading: Reading, documents: Ints) -> Firings:
        kept = reading.sinks.logical_not().flatten().nonzero()[:, 0]
        with torch.inference_mode():
            code = self.dictionary.encode(reading.values.flatten(0, 1)[kept])
        active = (code.values > 0).nonzero()
        row = kept.to(active.device)[active[:, 0]].cpu().numpy()
        latent = code.indices[active[:, 0], active[:, 1]].cpu().numpy()
        value = code.values[active[:, 0], active[:, 1]].float().cpu().numpy()
        return Firings(latent, value, row + self.n_read, documents[row])

    def _outputs(self) -> Outputs | None:
        if not has_outputs(self.lm, self.dictionary):
            return None
        return outputs(self.lm, self.dictionary, OUTPUTS)
