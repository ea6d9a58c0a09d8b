"""A key-value cache that is allocated once.

The caches of transformers grow by concatenation, which copies all that was seen at each new token.
Here a layer's keys and values are written into a buffer of the final length and read as views of
it.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

from brainscan.shapes import Int, Tensor


class BufferLayer(DynamicLayer):
    """Keys and values of one attention layer, in a buffer of a known length."""

    keys: Tensor
    values: Tensor

    def __init__(self, capacity: int, sliding_window: int | None = None) -> None:
        super().__init__()
        self.capacity = capacity
        self.sliding_window = sliding_window
        self.is_sliding = sliding_window is not None
        self.length = 0

    def preload(self, key_states: Tensor, value_states: Tensor) -> None:
        """Begins with states that were computed before, instead of with none."""
        self.lazy_initialization(key_states, value_states)
        self.keys = self._buffer(key_states, len(key_states))
        self.values = self._buffer(value_states, len(value_states))
        self.length = key_states.shape[-2]
        self.keys[:, :, : self.length] = key_states
        self.values[:, :, : self.length] = value_states

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Adds the states of new tokens; returns those of all tokens that these may attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys = self._buffer(key_states, len(key_states))
            self.values = self._buffer(value_states, len(value_states))
        start, past = self._first_seen(), self.length
        self.length = past + key_states.shape[-2]
        self.keys[:, :, past : self.length] = key_states
        self.values[:, :, past : self.length] = value_states
        if past == 0:
            return key_states, value_states
        return self.keys[:, :, start : self.length], self.values[:, :, start : self.length]

    def get_seq_length(self) -> int:
        """How many tokens were seen."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys the next tokens see, and the index of the first."""
        start = self._first_seen()
        return self.length + query_length - start, start

    def batch_select_indices(self, indices: Int[Tensor, " row"]) -> None:
        """Makes the rows named, in that order, from those there are; rows may repeat."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = self._buffer(old, len(indices))
            new[:, :, : self.length] = old[indices.to(old.device), :, : self.length]
            setattr(self, name, new)

    def rewind(self, length: int) -> None:
        """Forgets all but the first tokens; what comes is written over the others."""
        self.length = length

    def _first_seen(self) -> int:
        return max(0, self.length + 1 - self.sliding_window) if self.sliding_window else 0

    def _buffer(self, like: Tensor, rows: int) -> Tensor:
        return like.new_empty((rows, like.shape[1], self.capacity, like.shape[3]))


class _ReadOnlyLayer(BufferLayer):
    """Another layer's keys and values, which new ones follow in tensors of their own."""

    def __init__(self, layer: BufferLayer) -> None:
        super().__init__(layer.capacity, layer.sliding_window)
        self.length = layer.length
        if layer.is_initialized:
            self.keys, self.values = layer.keys, layer.values
            self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The states of all tokens that the new ones may attend to; called once."""
        start, past = self._first_seen(), self.length
        self.length = past + key_states.shape[-2]
        if past == 0:
            return key_states, value_states
        return (
            torch.cat([self.keys[:, :, start:past], key_states], dim=2),
            torch.cat([self.values[:, :, start:past], value_states], dim=2),
        )


def read_only(cache: DynamicCache) -> DynamicCache:
    """A cache for one forward pass that goes on from another of `BufferLayer`.

    Gradients flow through what the pass adds, and the other cache stays as it is.
    """
    new = copy.copy(cache)
    new.layers = [_ReadOnlyLayer(layer) for layer in buffers(cache)]
    return new


def buffers(cache: DynamicCache) -> list[BufferLayer]:
    """The layers of a cache that are `BufferLayer`."""
    return [layer for layer in cache.layers if isinstance(layer, BufferLayer)]


def make_cache(config: PreTrainedConfig, capacity: int) -> DynamicCache:
    """The model's cache, with its plain attention layers allocated for ``capacity`` tokens."""
    cache = DynamicCache(config=config)
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[index] = BufferLayer(capacity)
        elif type(layer) is DynamicSlidingWindowLayer:
            cache.layers[index] = BufferLayer(capacity, layer.sliding_window)
    return cache


def is_plain(cache: DynamicCache) -> bool:
    """Whether the cache holds keys and values only, so that rows may be padded and repeated."""
    return bool(cache.layers) and all(
        isinstance(layer, BufferLayer | DummyLayer) for layer in cache.layers
    )
