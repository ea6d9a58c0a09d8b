"""What verbs work on, found from what the user named or the built-in defaults."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from brainscan.cli.options import DEFAULT_MODEL
from brainscan.errors import ArtifactError, CorpusError, UsageError

if TYPE_CHECKING:
    from brainscan.dictionaries import Dictionary
    from brainscan.dictionaries.transcripts import Transcript
    from brainscan.interventions import Edit
    from brainscan.models import LanguageModel


class Pair(NamedTuple):
    """A model and a dictionary of it."""

    lm: LanguageModel
    dictionary: Dictionary


def open_model(name: str | None) -> LanguageModel:
    """The model of that name, or the default one."""
    from brainscan.models import load

    return load(name or DEFAULT_MODEL)


def open_pair(model: str | None, dictionary: str | None) -> Pair:
    """A model and a dictionary that fits it; each is found from the other when left out.

    Raises:
        DictionaryMismatchError: the dictionary is of activations of another shape.
    """
    from brainscan.dictionaries import Dictionary

    if dictionary is None:
        lm = open_model(model)
        return Pair(lm, Dictionary.for_model(lm))
    found = Dictionary.load(dictionary)
    lm = open_model(model or (found.model.id if found.model else None))
    found.check_model(lm)
    return Pair(lm, found.to(lm.device))


def open_edits(
    model: str | None, dictionary: str | None, lines: Sequence[str], folder: Path | None
) -> tuple[LanguageModel, tuple[Edit, ...]]:
    """The model, and the edits that were asked for with the dictionary they are of.

    Args:
        model: the model's name; None for the default one.
        dictionary: the dictionary's name; None for those that come with the model.
        lines: edits as `steer` takes them.
        folder: saved edits.

    Raises:
        UsageError: one is no edit, or the dictionary is named and no edit is of it.
    """
    from brainscan.interventions import load_edits, parse_edit, with_dictionary

    parsed = [parse_edit(line) for line in lines]
    if dictionary is None:
        lm, known = open_model(model), None
    else:
        lm, known = open_pair(model, dictionary)
    if folder is not None:
        parsed.extend(load_edits(folder, [known] if known else []))
    edits = with_dictionary(parsed, known)
    if known is not None and not any(_reads(edit, known) for edit in edits):
        raise UsageError(
            f"an edit of a latent of {known.name}, such as {known.hookpoint}/0=2x",
            f"{', '.join(map(edit_words, edits)) or 'no edit'}, to which --dictionary says nothing",
            "name one of its latents, or leave --dictionary out",
        )
    return lm, edits


def edit_words(edit: Edit) -> str:
    """An edit as one types it, or its kind where the grammar has no words for it."""
    from brainscan.interventions import format_edit

    try:
        return format_edit(edit)
    except UsageError:
        return type(edit).__name__


def _reads(edit: Edit, dictionary: Dictionary) -> bool:
    """Whether an edit, or its condition, is of a latent of this dictionary."""
    its = (edit.dictionary, getattr(edit.positions, "dictionary", None))
    return any(own is dictionary for own in its)


def open_dictionary(model: str | None, name: str | None) -> Dictionary:
    """The dictionary of that name, or the one shipped for the model, without loading the model."""
    from brainscan.dictionaries import Dictionary
    from brainscan.dictionaries.base import shipped_name

    return Dictionary.load(name or shipped_name(model or DEFAULT_MODEL))


def open_transcripts(
    lm: LanguageModel, place: str, context: int, seed: int
) -> Iterator[Transcript]:
    """The transcripts of a stress run's folder, or else the documents of a text, shuffled.

    Args:
        lm: the model that is to read them.
        place: a folder with recordings of model calls below it, or what a corpus is opened from.
        context: tokens of a document's part at most; recordings are read whole.
        seed: their order.
    """
    from brainscan.activations import open_corpus
    from brainscan.dictionaries.transcripts import document_transcripts

    recordings = sorted(Path(place).expanduser().rglob("*.safetensors"))
    if recordings:
        random.Random(seed).shuffle(recordings)
        return _recorded(lm, recordings)
    return document_transcripts(lm, open_corpus(place).documents(seed=seed), context)


def _recorded(lm: LanguageModel, recordings: Sequence[Path]) -> Iterator[Transcript]:
    """The calls that were recorded, each named by its sample."""
    from brainscan.dictionaries.transcripts import Transcript
    from brainscan.stress.recordings import read_recording

    warned = False
    for path in recordings:
        try:
            call = read_recording(path)
        except KeyError as error:
            raise ArtifactError(
                "recordings of model calls, each with 'prompt' and 'response'",
                f"{path} without {error}",
                "name the folder of a stress run",
            ) from error
        if not warned and call.facts.get("weights", lm.ref.weights) != lm.ref.weights:
            warned = True
            warnings.warn(
                f"{path} is of {call.facts.get('model')}, and {lm.name} reads it; "
                "--model names another",
                stacklevel=2,
            )
        name = path.parent.name if call.facts.get("sample") else path.stem
        yield Transcript(name, [*call.prompt.tolist(), *call.response.tolist()])


def read_text(path: Path) -> str:
    """A text file's content.

    Raises:
        CorpusError: there is no such file, it is not UTF-8, or it is empty.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(
            f"a text file at {path}", (error.strerror or "an error").lower(), "check the path"
        ) from error
    return decode_text(data, str(path))


def decode_text(data: bytes, source: str) -> str:
    """Bytes as text.

    Raises:
        CorpusError: they are not UTF-8, or they hold no text.
    """
    from brainscan.activations.files import decoded

    return checked_text("".join(decoded([data], source)), source)


def checked_text(text: str, source: str) -> str:
    """The text itself, if there is any.

    Raises:
        CorpusError: there is none.
    """
    if not text.strip():
        raise CorpusError(f"some text from {source}", "none", "give at least one word")
    return text
