"""Requests of many samples, answered together by one model in a thread of its own.

1. Inspect asks for one answer at a time, from as many samples at once as it runs. A request waits
   until no other has come for a moment, or the batch is full.
2. Requests with the same way of drawing go through `generate` together. Rows of one prompt share
   it, and prompts stay held for later requests (`models.prefixes`).
3. A row's noise depends on its own seed and token alone, and not on what runs beside it.
4. A request that nobody waits for any more ends at its next token.

The model is loaded by the thread when it is first needed; one engine serves all that ask for the
same model.
"""

from __future__ import annotations

import asyncio
import atexit
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from brainscan.models.generate import Generation, Sampling, generate
from brainscan.models.prefixes import PromptStore

if TYPE_CHECKING:
    from brainscan.interventions import Edit
    from brainscan.models import LanguageModel

PATIENCE = 0.02
"""Seconds without a new request after which a batch begins."""

_LOOK, _GOODBYE = 0.5, 60.0
"""Seconds between looks for whether to end, and to wait for the end."""

BATCH = 32
"""Rows of a batch at most."""


@dataclass(frozen=True)
class Request:
    """One answer that is asked for."""

    prompt: tuple[int, ...]
    """The prompt's tokens."""
    sampling: Sampling
    """How tokens are drawn; its seed is not used."""
    seed: int
    """Of the row's noise."""
    edits: tuple[Edit, ...] = ()
    """What is changed meanwhile."""
    keep: tuple[str, ...] = ()
    """Hookpoints whose activations are wanted."""
    logprobs: bool = False
    """Whether the tokens' log-probabilities are wanted."""
    alternatives: int = 0
    """How many of the most probable tokens are wanted at each step."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for it any more."""

    @property
    def company(self) -> tuple[Any, ...]:
        """What requests must have in common to run together."""
        return self.sampling, self.keep, self.logprobs, self.alternatives


@dataclass(frozen=True)
class _Waiting:
    request: Request
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Generation]

    def settle(self, result: Generation | BaseException) -> None:
        """Gives the answer to whoever waits for it, in their own thread."""

        def deliver() -> None:
            if self.answer.done():
                return
            if isinstance(result, BaseException):
                self.answer.set_exception(result)
            else:
                self.answer.set_result(result)

        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(deliver)


class Engine:
    """A model that answers requests in batches."""

    def __init__(self, load: Callable[[], LanguageModel], batch: int = BATCH) -> None:
        """Nothing is loaded yet.

        Args:
            load: gives the model; called once, in the engine's thread.
            batch: rows of a batch at most.
        """
        self.batch = batch
        self.store = PromptStore()
        self._load = load
        self._requests: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        self._lm: LanguageModel | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @property
    def lm(self) -> LanguageModel:
        """The model, loaded now if it was not yet."""
        with self._lock:
            if self._lm is None:
                self._lm = self._load()
            return self._lm

    async def answer(self, request: Request) -> Generation:
        """The answer to a request; cancelled, its row ends at its next token.

        Args:
            request: what is asked.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, loop, loop.create_future())
        self._requests.put(waiting)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="brainscan", daemon=True)
                self._thread.start()
                # A thread that still computes when the process ends would take it down.
                atexit.register(self.close)
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            request.cancelled.set()
            raise

    def close(self) -> None:
        """Ends what runs at its next token, and waits for it."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(_GOODBYE)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                waiting = [self._requests.get(timeout=_LOOK)]
            except queue.Empty:
                continue
            while len(waiting) < self.batch:
                try:
                    waiting.append(self._requests.get(timeout=PATIENCE))
                except queue.Empty:
                    break
            for group in _together(waiting):
                self._answer(group)

    def _answer(self, group: Sequence[_Waiting]) -> None:
        try:
            results = self._generate([waiting.request for waiting in group])
        except BaseException as error:  # whoever waits must hear of it
            for waiting in group:
                waiting.settle(error)
            return
        for waiting, result in zip(group, results, strict=True):
            waiting.settle(result)

    def _generate(self, requests: Sequence[Request]) -> list[Generation]:
        first = requests[0]
        return generate(
            self.lm,
            [request.prompt for request in requests],
            first.sampling,
            edits=[request.edits for request in requests],
            seeds=[request.seed for request in requests],
            on_token=lambda row, token: (
                not (requests[row].cancelled.is_set() or self._closed.is_set())
            ),
            logprobs=first.logprobs,
            alternatives=first.alternatives,
            keep=first.keep,
            store=self.store,
        )


def _together(waiting: Sequence[_Waiting]) -> list[list[_Waiting]]:
    """Those still wanted, in groups that can run together."""
    groups: dict[tuple[Any, ...], list[_Waiting]] = {}
    for one in waiting:
        if not one.request.cancelled.is_set():
            groups.setdefault(one.request.company, []).append(one)
    return list(groups.values())
