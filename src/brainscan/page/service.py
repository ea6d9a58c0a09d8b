"""One model behind the page and the API: answers as streams of tokens, and readings of texts.

1. All that touches the model runs in the engine's thread (`stress.engine`), where the rows of all
   that ask are written together, each with edits of its own. Nothing else may run the model.
2. A stream gives a piece for each token as it is drawn. A piece's text is what the token adds to
   the answer: whole characters only, and nothing that a stop string would cut off.
3. Where concepts are watched, a token's are known only when the model has read it, one step after
   it was drawn: its piece waits until then. The last token is never read, and has none.
4. A stream that is closed, or whose task is cancelled, ends its row at the next token.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from brainscan.errors import UnknownDictionaryError, UsageError
from brainscan.models.generate import Generation, Sampling
from brainscan.models.rows import Alternative
from brainscan.page.edit_lines import EditLines
from brainscan.page.reading import Instruments, Reading, ReadToken, named, read_text
from brainscan.page.streams import TextStream
from brainscan.stress.engine import Engine, Request
from brainscan.stress.rolling import Drawn

if TYPE_CHECKING:
    from brainscan.dictionaries import Dictionary
    from brainscan.features.atlas import Atlas
    from brainscan.interventions import Edit
    from brainscan.models import LanguageModel
    from brainscan.monitoring.jumps import Alarm
    from brainscan.monitoring.scores import Detectors
    from brainscan.monitoring.watch import Watch

__all__ = ["Answer", "Ask", "Piece", "ReadToken", "Reading", "Service"]

T = TypeVar("T")

_HELD = 2**28


@dataclass(frozen=True)
class Ask:
    """An answer that is asked for."""

    prompt: tuple[int, ...]
    """The prompt's tokens, as the model is to see them."""
    sampling: Sampling
    """How tokens are drawn; its seed is not used."""
    seed: int = 0
    """Of the row's noise."""
    edits: tuple[Edit, ...] = ()
    """What is changed meanwhile."""
    watch: bool = False
    """Whether the concepts of each token are wanted."""
    roles: tuple[str, ...] = ()
    """The role of each of the prompt's tokens, for the watch."""
    alternatives: int = 0
    """How many of the most probable tokens are wanted at each step."""


@dataclass(frozen=True)
class Piece:
    """A token of an answer."""

    token: int
    """The token."""
    text: str
    """What it adds to the answer's text; the pieces' texts together are the answer's."""
    logprob: float
    """Of the token under the model, at temperature 1; the negative is its surprise."""
    concepts: Mapping[str, float] = field(default_factory=dict)
    """By concept, how strongly it is represented, in z; empty unless watched."""
    jump: float = math.nan
    """The statistic of a jump after this token; nan unless watched."""
    alternatives: tuple[Alternative, ...] = ()
    """The most probable tokens at this step, if they were asked for."""


@dataclass(frozen=True)
class Answer:
    """The last item of a stream."""

    generation: Generation
    """What was written."""
    alarms: tuple[Alarm, ...] = ()
    """What the watch noticed in it; empty unless watched. Tokens count from the prompt's first."""
    risks: tuple[str, ...] = ()
    """The dangers that were asked about, which are no jumps; empty unless watched."""


class Service:
    """A model that answers, streams and reads."""

    def __init__(
        self,
        load: Callable[[], LanguageModel],
        *,
        dictionary: str | None = None,
        detectors: Detectors | None = None,
        folder: Path,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            load: gives the model; called once.
            dictionary: the name or folder of the dictionary for readings and edits; the one that
                is shipped for the model, if there is one, when left out.
            detectors: of the concepts to watch; those that are found for the model when left out.
            folder: where edits are saved, and the only place that files are read from.
        """
        self.engine = Engine(load, held=_HELD)
        self.folder = folder
        self._dictionary_name = dictionary
        self._detectors = detectors
        self._lines = EditLines(folder)

    @property
    def lm(self) -> LanguageModel:
        """The model, loaded now if it was not yet."""
        return self.engine.lm

    @property
    def dictionary(self) -> Dictionary | None:
        """The dictionary, if there is one; `ready` loads it."""
        return self._instruments.dictionary

    @property
    def atlas(self) -> Atlas | None:
        """The dictionary's atlas, if it has one; `ready` opens it."""
        return self._instruments.atlas

    @property
    def detectors(self) -> Detectors | None:
        """The detectors of concepts, if there are any; `ready` loads them."""
        return self._instruments.detectors

    async def ready(self) -> LanguageModel:
        """The model, loaded with all that belongs to it; others are not held up.

        Raises:
            BrainscanError: one of them is not there, or they do not fit each other.
        """
        if "_instruments" not in self.__dict__:
            await self.engine.run(lambda lm: self._instruments)
        return self.lm

    async def edits(self, lines: Sequence[str]) -> tuple[Edit, ...]:
        """Edits from their lines, as `steer` takes them, or from names of saved ones.

        Args:
            lines: such as ``resid_post.15/1234=2x``, or the name of edits saved in the folder.

        Raises:
            BrainscanError: a line is neither, or what it names is not there or does not fit.
        """
        known = self._lines.known(lines)
        if known is not None:
            return known
        await self.ready()
        own = self.dictionary if self._dictionary_name else None
        return await self.engine.run(lambda lm: self._lines.read(lm, lines, own))

    def saved(self) -> tuple[str, ...]:
        """The names of the edits that are saved in the folder."""
        return self._lines.saved()

    async def stream(self, ask: Ask) -> AsyncGenerator[Piece | Answer, None]:
        """A piece for each token, and at last the answer.

        Args:
            ask: what is asked.

        Raises:
            UsageError: concepts are to be watched, and there are no detectors.
            BrainscanError: the prompt or the edits do not fit the model, or the service was closed.
        """
        lm = await self.ready()
        watch = self._watch(ask) if ask.watch else None
        drawn: asyncio.Queue[Drawn | None] = asyncio.Queue()
        acting = [e for e in ask.edits if getattr(e, "acts_on_prompt", True)]
        hold = watch is None and self._lines.keeps(acting)
        request = _request(ask, watch, hold, asyncio.get_running_loop(), drawn)
        task = asyncio.ensure_future(self.engine.answer(request))
        task.add_done_callback(lambda done: _end(done, drawn))
        try:
            text, held, at = TextStream(lm, ask.sampling.stop), None, len(ask.prompt)
            while (one := await drawn.get()) is not None:
                if held is not None:
                    yield self._seen(held, watch, at)
                    at += 1
                added = "" if one.last else text.add(one.token)
                held = Piece(one.token, added, one.logprob, alternatives=one.alternatives)
                if watch is None and not one.last:
                    yield held
                    held = None
            made = await task
            if made.stop_reason == "cancelled":
                raise UsageError("a model that is served", "one that was stopped", "serve it again")
            if held is not None:
                yield replace(held, text=held.text + text.finish(made.text))
            yield Answer(made) if watch is None else _watched(watch, ask, made)
        finally:
            request.cancelled.set()
            task.cancel()

    async def answer(self, ask: Ask) -> tuple[tuple[Piece, ...], Answer]:
        """All pieces of a stream, and its answer.

        Args:
            ask: what is asked.
        """
        pieces: list[Piece] = []
        async with aclosing(self.stream(ask)) as items:
            async for item in items:
                if isinstance(item, Answer):
                    return tuple(pieces), item
                pieces.append(item)
        raise RuntimeError("a stream ended without its answer")

    async def read(
        self,
        prompt: Sequence[int],
        edits: Sequence[Edit] = (),
        *,
        roles: Sequence[str] = (),
        written: int = 0,
    ) -> Reading:
        """Reads a text in one forward pass, and another for its latents.

        Args:
            prompt: its tokens.
            edits: what is changed meanwhile.
            roles: the role of each token; without them, the written ones are the assistant's and
                the others the user's.
            written: how many of the last tokens are an answer, for edits that act on answers.

        Raises:
            UsageError: the text is empty, or longer than the context window.
        """
        await self.ready()
        return await self.engine.run(
            lambda lm: read_text(lm, prompt, edits, self._instruments, roles=roles, written=written)
        )

    async def run(self, job: Callable[[LanguageModel], T]) -> T:
        """Runs something else on the model, between two tokens of what is being written.

        Args:
            job: gets the model; runs in the engine's thread.
        """
        return await self.engine.run(job)

    async def close(self) -> None:
        """Ends what runs at its next token, and waits for it."""
        await asyncio.to_thread(self.engine.close)

    @cached_property
    def _instruments(self) -> Instruments:
        """What texts are read with, opened now if it was not yet."""
        from brainscan.features.atlas import Atlas
        from brainscan.monitoring.storage import find_detectors

        dictionary = self._open_dictionary()
        atlas = None if dictionary is None else Atlas.find(dictionary)
        detectors = find_detectors(self.lm) if self._detectors is None else self._detectors
        return Instruments(dictionary, atlas, detectors)

    def _open_dictionary(self) -> Dictionary | None:
        from brainscan.dictionaries import Dictionary

        if self._dictionary_name is None:
            try:
                return Dictionary.for_model(self.lm)
            except UnknownDictionaryError:
                return None
        found = Dictionary.load(self._dictionary_name, device=self.lm.device)
        found.check_model(self.lm)
        return found

    def _watch(self, ask: Ask) -> Watch:
        from brainscan.monitoring.watch import Watch

        if self.detectors is None:
            raise UsageError(
                f"detectors of concepts for {self.lm.name}",
                "none",
                "make some, or ask without watching",
            )
        return Watch(self.detectors, ask.roles or ("user",) * len(ask.prompt))

    def _seen(self, piece: Piece, watch: Watch | None, at: int) -> Piece:
        """A piece with what the watch has seen of its token."""
        if watch is None or self.detectors is None or at >= len(watch.jumps):
            return piece
        concepts = named(self.detectors.names, watch.scores[at].tolist())
        return replace(piece, concepts=concepts, jump=watch.jumps[at])


def _request(
    ask: Ask,
    watch: Watch | None,
    hold: bool,
    loop: asyncio.AbstractEventLoop,
    drawn: asyncio.Queue[Drawn | None],
) -> Request:
    """What the engine is asked for; each token goes into the queue."""

    def on_token(one: Drawn) -> bool:
        try:
            loop.call_soon_threadsafe(drawn.put_nowait, one)
        except RuntimeError:  # the loop was closed
            return False
        return True

    return Request(
        prompt=ask.prompt,
        sampling=ask.sampling,
        seed=ask.seed,
        edits=ask.edits if watch is None else (*ask.edits, watch),
        logprobs=True,
        alternatives=ask.alternatives,
        on_token=on_token,
        hold=hold,
    )


def _watched(watch: Watch, ask: Ask, made: Generation) -> Answer:
    """With the alarms at the answer's tokens that are read for it; a row may run on for a while."""
    end = len(ask.prompt) + len(made.tokens) - 1
    alarms = tuple(alarm for alarm in watch.alarms if len(ask.prompt) <= alarm.token < end)
    return Answer(made, alarms, watch.risks)


def _end(task: asyncio.Future[Generation], drawn: asyncio.Queue[Drawn | None]) -> None:
    """Ends a queue; an error that nobody waits for any more is not complained of."""
    if not task.cancelled():
        task.exception()
    drawn.put_nowait(None)
