"""From text to activations: corpora, packing, and harvests as a stream or a store."""

from __future__ import annotations

from brainscan.activations.corpus import Corpus, open_corpus
from brainscan.activations.documents import Document, Message
from brainscan.activations.harvest import HarvestConfig, find_sinks, harvest, stream
from brainscan.activations.packing import Context, pack
from brainscan.activations.store import Activations, ActivationStore

__all__ = [
    "ActivationStore",
    "Activations",
    "Context",
    "Corpus",
    "Document",
    "HarvestConfig",
    "Message",
    "find_sinks",
    "harvest",
    "open_corpus",
    "pack",
    "stream",
]
