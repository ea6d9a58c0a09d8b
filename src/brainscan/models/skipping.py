"""Going on from the middle of a forward pass: kept states, and layers that do not run.

While layers are skipped, the ``forward`` of each hands its input on, and that of the last returns a
residual that was kept. What a layer returns beside the residual is returned as it was, so it may
only be placeholders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from brainscan.models.attention import packed_attention
from brainscan.models.decoding import Forward, PromptBatch, is_watched
from brainscan.models.families import order
from brainscan.models.kv_cache import BufferLayer, buffers, make_cache, read_only
from brainscan.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from brainscan.models.language_model import LanguageModel

AGREEMENT, AGREEMENT_IN_HALF = 1e-3, 0.1
"""How far the first batch, run again, may be from its logits, in their norm: in fp32, and in types
of 16 bits."""


class LayersBelow:
    """The layers that a hookpoint's activation does not need once the residual is known."""

    modules: list[nn.Module]
    """The layers, from the first."""

    entry: str | None
    """The hookpoint whose activation is the residual after them; None where there are none."""

    def __init__(self, lm: LanguageModel, hookpoint: str) -> None:
        """Finds them; ``resid_post.L`` has layer L among them.

        Args:
            lm: the model.
            hookpoint: by its canonical name.
        """
        number, _ = order(hookpoint)
        is_output = hookpoint == f"resid_post.{number}"
        places = [lm.anatomy.places[f"resid_pre.{n}"] for n in range(number + is_output)]
        self.modules = [lm.model.get_submodule(place.module) for place in places]
        before = f"resid_pre.{number}" if number else None
        self.entry = hookpoint if is_output else before
        self._beside: list[tuple[Any, ...] | None] = [None] * len(self.modules)

    @property
    def watched(self) -> bool:
        """Whether anyone's hooks are on them or within."""
        return any(is_watched(module) for module in self.modules)

    @property
    def replaceable(self) -> bool:
        """Whether they returned nothing but the residual when they were examined."""
        return all(part is None for beside in self._beside for part in beside or ())

    @contextmanager
    def examined(self) -> Iterator[None]:
        """While entered, what the layers return is looked at."""

        def look(number: int) -> Callable[[nn.Module, Any, Any], None]:
            def keep(module: nn.Module, args: Any, output: Any) -> None:
                self._beside[number] = output[1:] if isinstance(output, tuple) else None

            return keep

        with ExitStack() as stack:
            for number, module in enumerate(self.modules):
                stack.callback(module.register_forward_hook(look(number)).remove)
            yield

    @contextmanager
    def skipped(self, residual: Float[Tensor, "row position d"] | None) -> Iterator[None]:
        """While entered, they do not run.

        Args:
            residual: what the last of them returns; None where there are none.
        """
        own = [vars(module).get("forward") for module in self.modules]
        try:
            for module, beside in zip(self.modules, self._beside, strict=True):
                last = module is self.modules[-1]
                vars(module)["forward"] = _returning(residual if last else None, beside)
            yield
        finally:
            for module, forward in zip(self.modules, own, strict=True):
                del vars(module)["forward"]
                if forward is not None:
                    vars(module)["forward"] = forward


def _returning(residual: Tensor | None, beside: tuple[Any, ...] | None) -> Callable[..., Any]:
    """A layer's ``forward`` that returns a residual, or its own input."""

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        # A clone, since layers may add to their input in place.
        value = hidden_states if residual is None else residual.clone()
        return value if beside is None else (value, *beside)

    return forward


@dataclass(frozen=True)
class KeptBatch:
    """What the last columns of a batch need to run again."""

    below: LayersBelow
    """The layers that will not run."""
    forward: Forward
    """With the cache of the others."""
    residual: Float[Tensor, "row column d"] | None
    """What the layers below return."""
    ids: Int[Tensor, "row column"]
    """The columns' tokens."""
    positions: Int[Tensor, "row column"]
    """Each one's place in its own sequence."""
    mask: Int[Tensor, "row all"]
    """0 for padding, over all columns of the batch."""

    @property
    def size(self) -> int:
        """Bytes held."""
        parts: list[Tensor | None] = [self.residual, self.ids, self.positions, self.mask]
        for layer in buffers(self.forward.cache):
            parts += [layer.keys, layer.values] if layer.is_initialized else []
        return sum(part.nbytes for part in parts if part is not None)

    def run(self) -> Float[Tensor, "row vocab"]:
        """The logits after the last column, as the model now is.

        Without gradients the columns' keys and values are written over those of the run before.
        """
        for layer in buffers(self.forward.cache):
            layer.rewind(self.mask.shape[1] - self.ids.shape[1])
        forward = self.forward
        if torch.is_grad_enabled():
            forward = Forward(forward.model, read_only(forward.cache))
        with self.below.skipped(self.residual), packed_attention(forward.model):
            return forward(self.ids, self.positions, self.mask)


def keep(
    below: LayersBelow, batch: PromptBatch, residual: Tensor | None, columns: int
) -> KeptBatch | None:
    """What a batch that ran is to keep; None if it cannot go on from there.

    Args:
        below: the layers that will not run, as they were examined in that run.
        batch: the batch; its cache is taken over.
        residual: what came out of those layers, at all columns; None where there are none.
        columns: how many of the last columns will run again.
    """
    layers = buffers(batch.cache)
    is_whole = below.replaceable and all(layer.is_initialized for layer in layers)
    if not is_whole or (residual is not None and residual.ndim != 3):
        return None
    for number, layer in enumerate(layers[: len(below.modules)]):
        batch.cache.layers[number] = BufferLayer(layer.capacity, layer.sliding_window)
    back = torch.arange(columns, 0, -1, device=batch.device)
    return KeptBatch(
        below,
        batch.forward,
        None if residual is None else residual[:, -columns:].clone(),
        batch.ids[:, -columns:].to(batch.device),
        (batch.lengths - back).clamp(min=0),
        batch.mask,
    )


def may_rewind(lm: LanguageModel) -> bool:
    """Whether each layer of the model remembers keys and values of its own and nothing else."""
    cache = make_cache(lm.model.config, capacity=1)
    return len(buffers(cache)) == len(cache.layers) == lm.n_layers


def agree(replayed: Float[Tensor, "row vocab"], first: Float[Tensor, "row vocab"]) -> bool:
    """Whether logits of a batch run again, without edits, are those it had at first."""
    bound = AGREEMENT if torch.finfo(first.dtype).bits > 16 else AGREEMENT_IN_HALF
    distance = (replayed.float() - first.float()).norm()
    return bool(distance <= bound * first.float().norm())
