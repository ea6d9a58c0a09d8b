"""A batch of prompts in the model: its cache, its padding, and the next token of each row."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from brainscan.models.kv_cache import is_plain, make_cache
from brainscan.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

    from brainscan.models.language_model import LanguageModel


class Forward:
    """Forward passes of a model with a cache; of the logits the last position's, unless asked."""

    def __init__(self, model: PreTrainedModel, cache: DynamicCache) -> None:
        """Nothing runs yet.

        Args:
            model: the model.
            cache: where it finds what came before, and puts what comes.
        """
        self.model: Any = model
        self.cache = cache
        accepted = inspect.signature(self.model.forward).parameters
        self.takes_positions = "position_ids" in accepted
        self.options: dict[str, Any] = {"use_cache": True, "return_dict": True}
        if "logits_to_keep" in accepted:
            # An index copies the last states; of a slice torch makes a product for each row where
            # the output matrix needs no gradient, which takes a hundred times as long in bf16.
            self.options["logits_to_keep"] = torch.tensor([-1], device=model.device)

    def __call__(
        self,
        ids: Int[Tensor, "row new"],
        positions: Int[Tensor, "row new"],
        mask: Int[Tensor, "row all"] | None = None,
    ) -> Float[Tensor, "row vocab"]:
        """The logits after the last of some new tokens.

        Args:
            ids: the tokens.
            positions: each one's place in its own sequence.
            mask: 0 for padding, over all tokens in the cache and the new ones.
        """
        return self._run(ids, positions, mask, self.options)[:, -1]

    def each(
        self, ids: Int[Tensor, "row new"], positions: Int[Tensor, "row new"]
    ) -> Float[Tensor, "row new vocab"]:
        """The logits after each of some new tokens.

        Args:
            ids: the tokens.
            positions: each one's place in its own sequence.
        """
        options = {k: v for k, v in self.options.items() if k != "logits_to_keep"}
        return self._run(ids, positions, None, options)

    def _run(
        self, ids: Tensor, positions: Tensor, mask: Tensor | None, options: Mapping[str, Any]
    ) -> Tensor:
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=self.cache,
            **({"position_ids": positions} if self.takes_positions else {}),
            **options,
        )
        logits: Tensor = output.logits
        return logits


class PromptBatch:
    """Prompts padded on the left, and how far the model has gone with them."""

    def __init__(
        self, lm: LanguageModel, prompts: list[list[int]], steps: int, *, share: bool
    ) -> None:
        """Lays out the batch; nothing runs yet.

        Args:
            lm: the model.
            prompts: one per row.
            steps: the most tokens that will follow.
            share: run a prompt that several rows have in common once.
        """
        self.device = lm.device
        distinct = list(dict.fromkeys(map(tuple, prompts))) if share else [*map(tuple, prompts)]
        lengths = torch.tensor([len(prompt) for prompt in distinct])
        self.width = int(lengths.max()) + _spare_columns(lm)
        self.ids = torch.full((len(distinct), self.width), lm.tokenizer.pad_token_id or 0)
        mask = torch.ones((len(distinct), self.width + steps), dtype=torch.long)
        for slot, prompt in enumerate(distinct):
            start = self.width - len(prompt)
            self.ids[slot, start:] = torch.tensor(prompt)
            mask[slot, :start] = 0
        self.mask = mask.to(self.device)
        self.lengths = lengths[:, None].to(self.device)
        self.window = lm.context_window or self.width + steps
        self.cache = make_cache(lm.model.config, self.width + steps)
        self.forward = Forward(lm.model, self.cache)
        self.row_of: Tensor | None = None
        if len(distinct) < len(prompts):
            slots = {prompt: slot for slot, prompt in enumerate(distinct)}
            self.row_of = torch.tensor([slots[tuple(prompt)] for prompt in prompts])

    def start(self) -> Float[Tensor, "row vocab"]:
        """Runs the prompts; the logits of each row's first new token."""
        back = torch.arange(self.width, 0, -1, device=self.device)
        logits = self._forward(self.ids.to(self.device), (self.lengths - back).clamp(min=0))
        if self.row_of is None:
            return logits
        self.cache.batch_select_indices(self.row_of)
        self.mask = self.mask[self.row_of]
        self.lengths = self.lengths[self.row_of]
        return logits[self.row_of]

    def prompt_activations(self, seen: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Each row's activations over its prompt, from those captured as the prompts ran."""
        slots = range(len(self.lengths)) if self.row_of is None else self.row_of.tolist()
        return [
            {name: found[slot, -length:].clone() for name, found in seen.items()}
            for slot, length in zip(slots, self.lengths[:, 0].tolist(), strict=True)
        ]

    def advance(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row vocab"]:
        """Runs one token per row; the logits of the next.

        Rows that ended at the window stay at its last position; what they get is not used.
        """
        self.width += 1
        self.lengths = self.lengths + 1
        positions = (self.lengths - 1).clamp(max=self.window - 1)
        return self._forward(tokens[:, None].to(self.device), positions)

    def _forward(
        self, ids: Int[Tensor, "row new"], positions: Int[Tensor, "row new"]
    ) -> Float[Tensor, "row vocab"]:
        return self.forward(ids, positions, self.mask[:, : self.width])


def _spare_columns(lm: LanguageModel) -> int:
    """How much every row is padded at least: by a column on the CPU.

    Without padding transformers drops the mask, and torch then takes a kernel for grouped queries
    that is five times slower in bfloat16. With it all batches go the same way.
    """
    return int(lm.device.type == "cpu" and may_pad(lm))


def may_pad(lm: LanguageModel) -> bool:
    """Whether the model remembers keys and values only, so that rows may be padded and repeated."""
    return is_plain(make_cache(lm.model.config, capacity=1))


def is_watched(model: nn.Module) -> bool:
    """Whether anyone's hooks are on the model, and expect to see every row of a batch."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout and the like are off while the block runs."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
