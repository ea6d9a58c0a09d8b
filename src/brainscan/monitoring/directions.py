"""The direction of a concept at a hookpoint: the difference of means of its texts and of others.

Each text counts once: its mean over tokens, sinks left out. The others are texts that only look
like the concept and texts of all other concepts, half of the weight each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from brainscan.dictionaries.transcripts import Transcript, read_transcripts
from brainscan.interventions import Direction
from brainscan.models import LanguageModel
from brainscan.monitoring.bank import Concept, Text
from brainscan.shapes import Float, Tensor

_ALL = 10**9


@torch.no_grad()
def concept_directions(
    lm: LanguageModel, concepts: Sequence[Concept], hookpoint: str
) -> dict[str, Direction]:
    """A direction for each concept, from the texts of the split ``train``; by the concept's name.

    Args:
        lm: the model.
        concepts: at least two.
        hookpoint: where.

    Raises:
        CorpusError: there are no texts.
    """
    kept = {
        (one.name, field): [text for text in getattr(one, field) if text.split == "train"]
        for one in concepts
        for field in ("texts", "near")
    }
    texts = [text for own in kept.values() for text in own]
    means = dict(zip(texts, text_means(lm, texts, hookpoint), strict=True))

    def mean(chosen: Sequence[Text]) -> Tensor:
        return torch.stack([means[text] for text in chosen]).mean(0)

    found = {}
    for one in concepts:
        others = [
            text for other in concepts if other is not one for text in kept[other.name, "texts"]
        ]
        apart = (mean(kept[one.name, "near"]) + mean(others)) / 2
        vector = mean(kept[one.name, "texts"]) - apart
        found[one.name] = Direction(hookpoint, vector, name=f"concept {one.name}")
    return found


@torch.no_grad()
def text_means(lm: LanguageModel, texts: Sequence[Text], hookpoint: str) -> Float[Tensor, "text d"]:
    """The mean activation of each text's tokens, sinks left out.

    Args:
        lm: the model.
        texts: the texts, no two the same.
        hookpoint: where.
    """
    rows = [Transcript(str(n), [*lm.opening, *lm.tokenize(t.text)]) for n, t in enumerate(texts)]
    read = read_transcripts(lm, rows, hookpoint, _ALL)
    own = read.transcripts >= 0
    owners, values = read.transcripts[own], read.activations[own.to(read.activations.device)].cpu()
    sums = torch.zeros(len(texts), values.shape[1]).index_add_(0, owners, values)
    counts = owners.bincount(minlength=len(texts)).clamp_min(1)
    return sums / counts[:, None]
