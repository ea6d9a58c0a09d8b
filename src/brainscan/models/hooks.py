"""Reading and changing a model's activations, in context managers that always undo themselves.

How a forward pass is read and changed:

1. ``intervene`` asks each intervention for its hooks and registers them on the modules that
   `families` names. A hook gets the activation and a `Site`, and returns a new tensor, or the same
   object for "no change": then nothing is replaced and the logits stay bit for bit.
2. A hook before the model's own forward keeps the call's arguments and the length of the cache.
   The `Site` is made from them at most once per forward, when the first hook asks for it.
3. ``capture`` keeps what passes. Entered inside ``intervene`` it sees the edited values, entered
   outside the values before. With ``stop`` the forward ends at the last hookpoint asked for.
4. On leaving, however that happens, every hook is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import nn

from brainscan.errors import UsageError
from brainscan.shapes import Bool, Int, Tensor

if TYPE_CHECKING:
    from brainscan.models.language_model import LanguageModel


@dataclass(frozen=True)
class Site:
    """Which tokens an activation belongs to."""

    hookpoint: str
    """Where in the model."""

    positions: Int[Tensor, "batch position"]
    """Each token's index in its own sequence; -1 is padding."""

    is_prompt: Bool[Tensor, "batch position"]
    """Whether a token belongs to the prompt. Padding belongs to neither prompt nor response."""

    tokens: Int[Tensor, "batch position"]
    """The tokens' ids; -1 where the model was fed embeddings."""

    def rows(self, index: Tensor) -> Site:
        """The site of some of the batch's rows."""
        return self._part(index)

    def columns(self, index: slice) -> Site:
        """The site of some of the batch's columns."""
        return self._part((slice(None), index))

    def _part(self, index: Any) -> Site:
        parts = (self.positions, self.is_prompt, self.tokens)
        return Site(self.hookpoint, *(part[index] for part in parts))


Hook: TypeAlias = Callable[[Tensor, Site], Tensor]
"""Gets an activation ``[batch, position, d]``; returns a new tensor, or the same object for "no
change"."""


@runtime_checkable
class Intervention(Protocol):
    """Something that changes activations."""

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """Hookpoints and hooks, in the order they run.

        They are made anew each time, so that hooks of one intervention may share state.
        """


@contextmanager
def intervene(
    lm: LanguageModel,
    interventions: Sequence[Intervention],
    *,
    prompt_lengths: Sequence[int] | None = None,
) -> Iterator[None]:
    """Changes the model's activations while the block runs.

    Args:
        lm: the model; calls of ``lm.model`` itself are changed as well.
        interventions: run in this order where they share a hookpoint. For other interventions on
            each row of the batch, see `per_row`.
        prompt_lengths: how many tokens of each row are prompt. Without it, tokens fed with an
            empty cache are prompt and later ones response.
    """
    hooks: dict[str, list[Hook]] = {}
    for intervention in interventions:
        for hookpoint, hook in intervention.attach(lm):
            hooks.setdefault(lm.resolve(hookpoint), []).append(hook)
    with ExitStack() as stack:
        if hooks:
            call = _Call(prompt_lengths)
            stack.callback(lm.model.register_forward_pre_hook(call.begin, with_kwargs=True).remove)
            for hookpoint, chain in hooks.items():
                stack.callback(_register(lm, hookpoint, _editor(hookpoint, chain, call)))
        yield


@contextmanager
def capture(
    lm: LanguageModel, hookpoints: Sequence[str], *, stop: bool = False, grad: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Keeps the activations at hookpoints; each forward replaces those of the one before.

    Args:
        lm: the model.
        hookpoints: which; the dict's keys are these names as given.
        stop: end the forward pass at the last of them, so that the layers above never run. The
            block is left at that moment: read the dict after it.
        grad: keep the activations in the graph, to differentiate through; else they are detached.
    """
    found: dict[str, Tensor] = {}
    halt = _Halt()
    wanted = {name: lm.resolve(name) for name in hookpoints}

    def keeper(name: str) -> Callable[[Tensor], Tensor]:
        def keep(activation: Tensor) -> Tensor:
            found[name] = activation if grad else activation.detach()
            if stop and len(found) == len(wanted):
                raise halt
            return activation

        return keep

    with ExitStack() as stack:
        for name, hookpoint in wanted.items():
            stack.callback(_register(lm, hookpoint, keeper(name)))
        try:
            yield found
        except _Halt as error:
            if error is not halt:
                raise


def per_row(interventions: Sequence[Sequence[Intervention]]) -> Intervention:
    """One intervention that gives each row of the batch its own.

    Rows with the same interventions are changed together.
    """
    return _PerRow(tuple(tuple(row) for row in interventions))


class _Halt(Exception):
    """Ends a forward pass from within; caught by the `capture` that raised it."""


class _Call:
    """The running forward pass: what it was called with, and its site once that is asked for."""

    def __init__(self, prompt_lengths: Sequence[int] | None) -> None:
        self.prompt_lengths = prompt_lengths
        self.inputs: Mapping[str, Any] = {}
        self.past = 0
        self.sites: dict[tuple[str, torch.device], Site] = {}

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.inputs = {"input_ids": args[0], **kwargs} if args else dict(kwargs)
        self.past = _past_length(self.inputs)  # the layers fill the cache as they run
        self.sites = {}

    def site(self, hookpoint: str, device: torch.device) -> Site:
        """The running forward's site at a hookpoint."""
        key = (hookpoint, device)
        if key not in self.sites:
            shared = next(iter(self.sites.values()), None) or self._make()
            self.sites[key] = Site(
                hookpoint,
                shared.positions.to(device),
                shared.is_prompt.to(device),
                shared.tokens.to(device),
            )
        return self.sites[key]

    def _make(self) -> Site:
        tokens = _tokens(self.inputs)
        positions = _positions(self.inputs, tokens, self.past)
        real = positions >= 0
        if self.prompt_lengths is None:
            return Site("", positions, real if self.past == 0 else torch.zeros_like(real), tokens)
        if len(self.prompt_lengths) != len(tokens):
            raise UsageError(
                f"a prompt length for each of the batch's {len(tokens)} rows",
                f"{len(self.prompt_lengths)} lengths",
                "pass one length per row",
            )
        lengths = torch.tensor(list(self.prompt_lengths), device=tokens.device)
        return Site("", positions, real & (positions < lengths[:, None]), tokens)


def _tokens(inputs: Mapping[str, Any]) -> Tensor:
    tokens = inputs.get("input_ids")
    if isinstance(tokens, Tensor):
        return tokens
    embeddings: Tensor = inputs["inputs_embeds"]
    return torch.full(embeddings.shape[:2], -1, device=embeddings.device)


def _past_length(inputs: Mapping[str, Any]) -> int:
    past = inputs.get("past_key_values")
    return 0 if past is None else int(past.get_seq_length())


def _positions(inputs: Mapping[str, Any], tokens: Tensor, past: int) -> Tensor:
    """Each token's index in its own sequence: from the mask, else from what the model is told."""
    length = tokens.shape[1]
    mask = inputs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        counts = mask.long().cumsum(-1)[:, -length:] - 1
        if mask.shape[1] == length:
            counts = counts + past
        return counts.masked_fill(mask[:, -length:] == 0, -1)
    told = inputs.get("position_ids")
    if isinstance(told, Tensor) and told.ndim == 2:
        return told.expand(tokens.shape)
    return torch.arange(past, past + length, device=tokens.device).expand(tokens.shape)


def _editor(hookpoint: str, chain: Sequence[Hook], call: _Call) -> Callable[[Tensor], Tensor]:
    def edit(activation: Tensor) -> Tensor:
        site = call.site(hookpoint, activation.device)
        value = activation
        for hook in chain:
            value = hook(value, site)
        if value is activation:
            return activation
        if value.shape != activation.shape:
            raise UsageError(
                f"an edit at {hookpoint} to keep the shape {tuple(activation.shape)}",
                f"{tuple(value.shape)}",
                "return a tensor of the activation's shape",
            )
        return value.to(activation.dtype)

    return edit


def _register(
    lm: LanguageModel, hookpoint: str, change: Callable[[Tensor], Tensor]
) -> Callable[[], None]:
    """Puts a function on a hookpoint's activation; returns what takes it off again."""
    place = lm.anatomy.places[hookpoint]
    module = lm.model.get_submodule(place.module)

    def on_output(module: nn.Module, args: Any, output: Any) -> Any:
        value = output[0] if isinstance(output, tuple) else output
        new = change(value)
        if new is value:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    def on_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = args[0] if args else kwargs["hidden_states"]
        new = change(value)
        if new is value:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

    if place.side == "output":
        return module.register_forward_hook(on_output).remove
    return module.register_forward_pre_hook(on_input, with_kwargs=True).remove


@dataclass(frozen=True)
class _PerRow:
    interventions: tuple[tuple[Intervention, ...], ...]

    @property
    def count(self) -> int:
        return len(self.interventions)

    def for_rows(self, index: Sequence[int]) -> Intervention:
        return _PerRow(tuple(self.interventions[row] for row in index))

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, own in enumerate(self.interventions):
            groups.setdefault(tuple(map(id, own)), []).append(row)
        return [
            (lm.resolve(hookpoint), self._on_rows(hook, torch.tensor(rows, device=lm.device)))
            for rows in groups.values()
            for intervention in self.interventions[rows[0]]
            for hookpoint, hook in intervention.attach(lm)
        ]

    def _on_rows(self, hook: Hook, rows: Tensor) -> Hook:
        def change(activation: Tensor, site: Site) -> Tensor:
            if len(activation) != len(self.interventions):
                raise UsageError(
                    f"a batch of {len(self.interventions)} rows, each with its interventions",
                    f"a batch of {len(activation)}",
                    "pass interventions for each row",
                )
            index = rows.to(activation.device)
            before = activation[index]
            after = hook(before, site.rows(index))
            if after is before:
                return activation
            return activation.index_copy(0, index, after.to(activation.dtype))

        return change
