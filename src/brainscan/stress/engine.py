"""Requests of many samples, answered together by one model in a thread of its own.

1. Inspect asks for one answer at a time, from as many samples at once as it runs. A request waits
   until no other has come for a moment, or the batch is full.
2. Requests with the same way of drawing go through `generate` together. Rows of one prompt share
   it, and prompts stay held for later requests (`models.prefixes`).
3. A row's noise depends on its own seed and token alone, and not on what runs beside it.
4. A request that nobody waits for any more ends at its next token.
5. Requests that want each token as it is drawn are written by a batch that others join at any
   token, each drawn in its own way (`rolling`). Other work on the model is done between two tokens.

The thread loads the model when it is first needed; one engine serves all that ask for the model.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from brainscan.errors import UsageError
from brainscan.models.generate import Generation, Sampling, generate
from brainscan.models.prefixes import PromptStore
from brainscan.stress.rolling import Drawn, Newcomer, OnDrawn, RollingBatch

if TYPE_CHECKING:
    from brainscan.models import Intervention, LanguageModel

T = TypeVar("T")

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
    edits: tuple[Intervention, ...] = ()
    """What is changed or watched meanwhile."""
    keep: tuple[str, ...] = ()
    """Hookpoints whose activations are wanted."""
    logprobs: bool = False
    """Whether the tokens' log-probabilities are wanted."""
    alternatives: int = 0
    """How many of the most probable tokens are wanted at each step."""
    on_token: OnDrawn | None = None
    """Hears of each token in the engine's thread; False ends the row. Such a request joins those
    that are being written, at any token, and keeps no activations."""
    hold: bool = True
    """Whether the prompt is held for later requests; not where its edits never come again."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for it any more."""

    @property
    def company(self) -> tuple[Any, ...]:
        """What requests must have in common to run together."""
        return self.sampling, self.keep, self.logprobs, self.alternatives


class _Promise:
    """What a thread owes to a coroutine."""

    def __init__(self) -> None:
        """Owed to the coroutine that is running."""
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()

    def settle(self, result: Any) -> None:
        """Gives the result, or raises it if it is an error, in the coroutine's own thread."""

        def deliver() -> None:
            if self.future.done():
                return
            if isinstance(result, BaseException):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)

        with contextlib.suppress(RuntimeError):  # nobody waits in a loop that was closed
            self.loop.call_soon_threadsafe(deliver)


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A request, and who waits for its answer."""

    request: Request
    promise: _Promise

    def as_row(self) -> Newcomer:
        """The row that is to be written, token by token."""
        request = self.request

        def on_drawn(drawn: Drawn) -> bool:
            told = request.on_token(drawn) if request.on_token is not None else None
            return told is not False and not request.cancelled.is_set()

        return Newcomer(
            request.prompt,
            request.sampling,
            request.seed,
            request.edits,
            request.alternatives,
            request.hold,
            on_drawn,
            self.promise.settle,
        )


@dataclass(frozen=True, eq=False)
class _Job:
    """Something else that is to be done with the model, and who waits for it."""

    work: Callable[[LanguageModel], Any]
    promise: _Promise

    def do(self, lm: LanguageModel) -> None:
        """Does it, and tells whoever waits."""
        if self.promise.future.cancelled():
            return
        try:
            with torch.enable_grad():
                result = self.work(lm)
        except BaseException as error:  # whoever waits must hear of it
            result = error
        self.promise.settle(result)


class Engine:
    """A model that answers requests in batches."""

    def __init__(
        self, load: Callable[[], LanguageModel], batch: int = BATCH, held: int = PromptStore.limit
    ) -> None:
        """Nothing is loaded yet.

        Args:
            load: gives the model; called once, in the engine's thread.
            batch: rows of a batch at most.
            held: bytes of prompts that are held at most.
        """
        self.batch = batch
        self.store = PromptStore(held)
        self._load = load
        self._tasks: queue.SimpleQueue[_Waiting | _Job] = queue.SimpleQueue()
        self._lm: LanguageModel | None = None
        self._lock = threading.Lock()
        self._starting = threading.Lock()
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

        Raises:
            UsageError: the engine is closed.
        """
        waiting = _Waiting(request, _Promise())
        try:
            made: Generation = await self._ask(waiting)
        except asyncio.CancelledError:
            request.cancelled.set()
            raise
        return made

    async def run(self, work: Callable[[LanguageModel], T]) -> T:
        """Does something else with the model, between two tokens of the rows that are written.

        Args:
            work: gets the model, without any edits on it; runs in the engine's thread.

        Raises:
            UsageError: the engine is closed.
        """
        done: T = await self._ask(_Job(work, _Promise()))
        return done

    async def _ask(self, task: _Waiting | _Job) -> Any:
        with self._starting:  # the other lock is held while the model is loaded
            if self._closed.is_set():
                raise _closed()
            self._tasks.put(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="brainscan", daemon=True)
                self._thread.start()
                # A thread that still computes when the process ends would take it down.
                atexit.register(self.close)
        return await task.promise.future

    def close(self) -> None:
        """Ends what runs at its next token, and waits for it."""
        with self._starting:
            self._closed.set()
        if self._thread is not None:
            self._thread.join(_GOODBYE)
        atexit.unregister(self.close)

    def _run(self) -> None:
        line: deque[_Waiting | _Job] = deque()
        while not self._closed.is_set():
            if not line and not self._wait(line, _LOOK):
                continue
            first = line[0]
            if isinstance(first, _Job):
                line.popleft()
                self._do(first)
            elif first.request.on_token is not None:
                self._roll(line)
            else:
                while len(line) < self.batch and self._wait(line, PATIENCE):
                    pass
                for group in _together(_static(line, self.batch)):
                    self._answer(group)
        while self._wait(line, 0.0):
            pass
        for task in line:
            task.promise.settle(_closed())

    def _wait(self, line: deque[_Waiting | _Job], seconds: float) -> bool:
        """Puts the next task into the line; whether one came in time."""
        try:
            line.append(self._tasks.get(timeout=seconds) if seconds else self._tasks.get_nowait())
        except queue.Empty:
            return False
        return True

    def _do(self, job: _Job) -> None:
        try:
            lm = self.lm
        except BaseException as error:  # it could not be loaded
            job.promise.settle(error)
            return
        job.do(lm)

    def _roll(self, line: deque[_Waiting | _Job]) -> None:
        """Writes rows as they come, until none is left or another kind of request is in front."""
        try:
            rolling = RollingBatch(self.lm, self.store, self.batch)
        except BaseException as error:  # it could not be loaded
            line.popleft().promise.settle(error)
            return
        with rolling.running():
            while not self._closed.is_set():
                while self._wait(line, 0.0):
                    pass
                self._admit(line, rolling)
                if not rolling.live:
                    return
                try:
                    rolling.step()
                except BaseException as error:  # whoever waits must hear of it
                    rolling.fail(error)

    def _admit(self, line: deque[_Waiting | _Job], rolling: RollingBatch) -> None:
        """Does what else is to be done, and lets in from the front of the line what may join."""
        for job in [task for task in line if isinstance(task, _Job)]:
            line.remove(job)
            rolling.pause()
            job.do(rolling.lm)
        while line and isinstance(first := line[0], _Waiting):
            if not first.request.cancelled.is_set():
                row = first.as_row()
                if first.request.on_token is None or not rolling.takes(row):
                    return
                rolling.admit(row)
            line.popleft()

    def _answer(self, group: Sequence[_Waiting]) -> None:
        try:
            results = self._generate([waiting.request for waiting in group])
        except BaseException as error:  # whoever waits must hear of it
            for waiting in group:
                waiting.promise.settle(error)
            return
        for waiting, result in zip(group, results, strict=True):
            waiting.promise.settle(result)

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


def _static(line: deque[_Waiting | _Job], most: int) -> list[_Waiting]:
    """Takes requests that are not written token by token from the front of the line."""
    taken: list[_Waiting] = []
    while line and len(taken) < most:
        first = line[0]
        if isinstance(first, _Job) or first.request.on_token is not None:
            break
        taken.append(first)
        line.popleft()
    return taken


def _closed() -> UsageError:
    return UsageError("an engine that runs", "one that was closed", "make another")


def _together(waiting: Sequence[_Waiting]) -> list[list[_Waiting]]:
    """Those still wanted, in groups that can run together."""
    groups: dict[tuple[Any, ...], list[_Waiting]] = {}
    for one in waiting:
        if not one.request.cancelled.is_set():
            groups.setdefault(one.request.company, []).append(one)
    return list(groups.values())
