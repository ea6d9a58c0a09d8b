"""Prompts that several rows go on from: run once, and held once.

1. A prompt runs alone, in passes of 512 tokens, of which the last has up to 1,023. How it is cut
   depends on its length only, so that what is held of it is the same whatever ran before it and
   whatever runs beside it.
2. Where a prompt that is held already begins with the same passes, theirs are taken instead.
3. For decoding, the prompts of a batch stand beside each other; each row's own tokens go into a
   buffer of their own, and attention puts the two together (`attention.attend_after_prefix`).

A `PromptStore` keeps prompts beyond a call, the most recently used, up to a number of bytes.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import torch

from brainscan.models.attention import Prefix, has_plain_attention, own_attention
from brainscan.models.decoding import Forward
from brainscan.models.hooks import Intervention, capture, intervene
from brainscan.models.kv_cache import BufferLayer, buffers, make_cache
from brainscan.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from brainscan.models.language_model import LanguageModel

PASS = 512
"""Tokens of a pass; the last has what is left as well."""

_Key: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Prompt:
    """Tokens, and the interventions under which they run."""

    tokens: tuple[int, ...]
    """The tokens."""
    edits: tuple[Intervention, ...] = ()
    """The interventions, which count as the same only if they are the same objects."""

    @property
    def key(self) -> _Key:
        """What tells it from others."""
        return self.tokens, tuple(map(id, self.edits))


@dataclass(frozen=True)
class PromptState:
    """What a prompt leaves in the model."""

    prompt: Prompt
    """The prompt."""
    keys: tuple[Float[Tensor, "key_head position head_d"], ...]
    """Of each layer."""
    values: tuple[Float[Tensor, "key_head position head_e"], ...]
    """Of each layer."""
    logits: Float[Tensor, " vocab"]
    """Of the token that follows."""
    activations: Mapping[str, Float[Tensor, "position _"]]
    """By hookpoint, those that were asked for."""
    reused: int = 0
    """How many of its tokens were held already."""

    @property
    def size(self) -> int:
        """Bytes held."""
        parts = (*self.keys, *self.values, self.logits, *self.activations.values())
        return sum(part.nbytes for part in parts)


@dataclass
class PromptStore:
    """Prompts that were run, the most recently used last."""

    limit: int = 2**30
    """Bytes held at most; one prompt is always held."""
    states: OrderedDict[_Key, PromptState] = field(default_factory=OrderedDict)
    """By what tells prompts apart."""

    def run(self, lm: LanguageModel, prompt: Prompt, keep: Sequence[str] = ()) -> PromptState:
        """The state of a prompt: held, or run now as far as no held one begins like it.

        Args:
            lm: the model; always the same one.
            prompt: the prompt.
            keep: hookpoints whose activations belong to the state.
        """
        held = self.states.pop(prompt.key, None)
        if held is None or not held.activations.keys() >= set(keep):
            held = _run(lm, prompt, keep, *self._longest(prompt, keep))
        self.states[prompt.key] = held
        total = sum(state.size for state in self.states.values())
        while total > self.limit and len(self.states) > 1:
            total -= self.states.popitem(last=False)[1].size
        return held

    def holds(self, prompt: Prompt, keep: Sequence[str] = ()) -> bool:
        """Whether the state of a prompt is held, with these activations."""
        held = self.states.get(prompt.key)
        return held is not None and held.activations.keys() >= set(keep)

    def _longest(self, prompt: Prompt, keep: Sequence[str]) -> tuple[PromptState | None, int]:
        """The held prompt with which this one shares the most whole passes, and their tokens."""
        best, most = None, 0
        for state in self.states.values():
            if state.prompt.key[1] == prompt.key[1] and state.activations.keys() >= set(keep):
                shared = shared_passes(state.prompt.tokens, prompt.tokens)
                if shared > most:
                    best, most = state, shared
        return best, most


def may_share(lm: LanguageModel) -> bool:
    """Whether rows of this model can share a prompt: plain attention to all that came before."""
    layers = make_cache(lm.model.config, capacity=1).layers
    plain = all(isinstance(layer, BufferLayer) and not layer.is_sliding for layer in layers)
    return bool(layers) and plain and has_plain_attention(lm.model)


def passes(length: int) -> list[int]:
    """Where each pass over a prompt of this length begins, and where the last one ends."""
    return [*range(0, max(length - PASS + 1, 1), PASS), length]


def shared_passes(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two prompts have in common in whole passes, none of them the last."""
    edge = max(0, passes(min(len(a), len(b)))[-2])
    while edge and a[:edge] != b[:edge]:
        edge -= PASS
    return edge


@torch.no_grad()
def _run(
    lm: LanguageModel, prompt: Prompt, keep: Sequence[str], known: PromptState | None, done: int
) -> PromptState:
    tokens, edits = prompt.tokens, prompt.edits
    kept: dict[str, list[Tensor]] = {name: [] for name in keep}
    cache = make_cache(lm.model.config, len(tokens))
    layers = buffers(cache)
    if known is not None:
        for layer, keys, values in zip(layers, known.keys, known.values, strict=True):
            layer.preload(keys[None, :, :done], values[None, :, :done])
        for name, parts in kept.items():
            parts.append(known.activations[name][:done])
    forward = Forward(lm.model, cache)
    ids = torch.tensor([tokens], device=lm.device)
    edges = [edge for edge in passes(len(tokens)) if edge >= done]
    with (
        own_attention(lm.model),
        intervene(lm, edits, prompt_lengths=[len(tokens)]),
        capture(lm, keep) as seen,
    ):
        for start, stop in pairwise(edges):
            positions = torch.arange(start, stop, device=lm.device)[None]
            logits = forward(ids[:, start:stop], positions)
            for name, parts in kept.items():
                parts.append(seen[name][0])
    return PromptState(
        prompt,
        keys=tuple(layer.keys[0] for layer in layers),
        values=tuple(layer.values[0] for layer in layers),
        logits=logits[0],
        activations={name: torch.cat(parts) for name, parts in kept.items()},
        reused=done,
    )


class SharedBatch:
    """Rows that go on from prompts, several from the same one, and how far they have come."""

    def __init__(self, lm: LanguageModel, states: Sequence[PromptState], steps: int) -> None:
        """Puts the prompts beside each other; nothing runs yet.

        Args:
            lm: the model.
            states: the prompt of each row; rows of one prompt have the same object.
            steps: the most tokens that will follow.
        """
        self.lm = lm
        self.lengths = torch.tensor([[len(state.prompt.tokens)] for state in states])
        self.lengths = self.lengths.to(lm.device)
        self.states = states
        self.logits = torch.stack([state.logits for state in states])
        self.window = lm.context_window or int(self.lengths.max()) + steps
        self.cache = make_cache(lm.model.config, steps)
        self.forward = Forward(lm.model, self.cache)
        self.prefixes = _beside(states, lm.device)
        self.padding = torch.zeros_like(self.lengths)
        self.done = 0

    def start(self) -> Float[Tensor, "row vocab"]:
        """The logits of each row's first new token."""
        return self.logits

    def prompt_activations(self, seen: Mapping[str, Tensor]) -> list[Mapping[str, Tensor]]:
        """Each row's activations over its prompt."""
        return [state.activations for state in self.states]

    def advance(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row vocab"]:
        """Runs one token per row; the logits of the next.

        Rows that ended at the window stay at its last position; what they get is not used.
        """
        ids, positions = self._next(tokens[:, None])
        with own_attention(self.lm.model, self.prefixes):
            return self.forward(ids, positions)

    def read(self, tokens: Int[Tensor, "row new"]) -> Float[Tensor, "row new vocab"]:
        """Runs several tokens per row; the logits after each."""
        ids, positions = self._next(tokens)
        with own_attention(self.lm.model, self.prefixes):
            return self.forward.each(ids, positions)

    def only(self, rows: Sequence[int], own: Sequence[int], steps: int) -> SharedBatch:
        """Some of the rows, as they were after fewer tokens of their own.

        Args:
            rows: which.
            own: of how many tokens since the prompt each still knows.
            steps: the most tokens that will follow.
        """
        longest = max(own)
        batch = SharedBatch(self.lm, [self.states[row] for row in rows], longest + steps)
        index = torch.tensor(list(rows), device=self.lm.device)
        batch.padding = (longest - torch.tensor(list(own), device=self.lm.device))[:, None]
        batch.done = longest
        if not longest:
            return batch
        columns = torch.arange(longest, device=self.lm.device) - batch.padding
        hidden = columns < 0
        columns = (columns.clamp(min=0) + self.padding[index])[:, None, :, None]
        for mine, theirs in zip(buffers(self.cache), buffers(batch.cache), strict=True):
            theirs.preload(
                *(
                    part[index].take_along_dim(columns, dim=2)
                    for part in (mine.keys[:, :, : self.done], mine.values[:, :, : self.done])
                )
            )
        unseen = torch.zeros(len(rows), longest + steps, device=self.lm.device)
        unseen[:, :longest].masked_fill_(hidden, -torch.inf)
        unseen = unseen.to(self.logits.dtype)
        batch.prefixes = {n: one._replace(hidden=unseen) for n, one in batch.prefixes.items()}
        return batch

    def joined(
        self, rows: Sequence[int], own: Sequence[int], states: Sequence[PromptState], steps: int
    ) -> SharedBatch:
        """Some of the rows, and behind them new ones, which have written nothing.

        Args:
            rows: which.
            own: of how many tokens since the prompt each still knows.
            states: the new rows' prompts.
            steps: the most tokens that will follow.
        """
        if not states:
            return self.only(rows, own, steps)
        before, count = len(self.states), len(states)
        wide = copy.copy(self)
        wide.states = [*self.states, *states]
        wide.padding = torch.cat([self.padding, self.padding.new_zeros(count, 1)])
        wide.cache = make_cache(self.lm.model.config, self.done)
        for mine, theirs in zip(buffers(self.cache), buffers(wide.cache), strict=True):
            parts = [part[:, :, : self.done] for part in (mine.keys, mine.values)]
            theirs.preload(
                *(torch.cat([part, part.new_zeros(count, *part.shape[1:])]) for part in parts)
            )
        return wide.only([*rows, *range(before, before + count)], [*own, *[0] * count], steps)

    def _next(self, tokens: Int[Tensor, "row new"]) -> tuple[Tensor, Tensor]:
        """The tokens and their positions; they count as done from now on."""
        ahead = torch.arange(self.done, self.done + tokens.shape[1], device=self.lm.device)
        self.done += tokens.shape[1]
        positions = self.lengths - self.padding + ahead
        return tokens.to(self.lm.device), positions.clamp(max=self.window - 1)


def _beside(states: Sequence[PromptState], device: torch.device) -> dict[int, Prefix]:
    """Each layer's prefix for rows with these prompts."""
    distinct = list({id(state): state for state in states}.values())
    number = {id(state): n for n, state in enumerate(distinct)}
    rows: list[list[int]] = [[] for _ in distinct]
    for row, state in enumerate(states):
        rows[number[id(state)]].append(row)
    most = max(map(len, rows))
    members = torch.tensor([own + own[:1] * (most - len(own)) for own in rows], device=device)
    places = torch.empty(len(states), dtype=torch.long, device=device)
    for prompt, own in enumerate(rows):
        places[own] = prompt * most + torch.arange(len(own), device=device)
    lengths = torch.tensor([len(state.prompt.tokens) for state in distinct])
    longest = int(lengths.max())
    padding = None
    if int(lengths.min()) < longest:
        beyond = torch.arange(longest) >= lengths[:, None]
        padding = torch.zeros(beyond.shape).masked_fill(beyond, -torch.inf)
        padding = padding.to(device, distinct[0].keys[0].dtype)
    return {
        layer: Prefix(
            _padded([state.keys[layer] for state in distinct], longest)
            .transpose(2, 3)
            .contiguous(),
            _padded([state.values[layer] for state in distinct], longest),
            padding,
            members,
            places,
        )
        for layer in range(len(distinct[0].keys))
    }


def _padded(
    parts: Sequence[Float[Tensor, "key_head _ d"]], length: int
) -> Float[Tensor, "prompt key_head longest d"]:
    """The parts beside each other, with zeros behind the shorter ones."""
    whole = parts[0].new_zeros(len(parts), parts[0].shape[0], length, parts[0].shape[2])
    for slot, part in zip(whole, parts, strict=True):
        slot[:, : part.shape[1]] = part
    return whole
