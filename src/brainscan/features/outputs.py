"""What a latent does to the output, and which latents point the same way.

1. A latent's decoder row is what it adds to the residual stream. The final norm divides the
   stream by its size and multiplies it by the norm's scale, and the unembedding makes logits of
   it. The division is the same for all tokens, so it is left out: the figures order tokens, and
   are logits per unit of activation where the stream has unit size.
2. A shift of all logits changes no probability, so the unembedding is centred over the
   vocabulary: a figure above zero means "more than the average token".
3. This is the direct path only (the logit lens, nostalgebraist 2020); what later layers make of
   the latent is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from brainscan.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from brainscan.dictionaries import Dictionary
    from brainscan.models import LanguageModel

FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
"""Names of the norm before the unembedding."""

_CHUNK = 128


class Outputs(NamedTuple):
    """The tokens that each latent promotes and suppresses most, strongest first."""

    promoted: Int[Tensor, "latent rank"]
    promoted_values: Float[Tensor, "latent rank"]
    suppressed: Int[Tensor, "latent rank"]
    suppressed_values: Float[Tensor, "latent rank"]


class Neighbours(NamedTuple):
    """The latents nearest to each latent, nearest first."""

    latents: Int[Tensor, "latent rank"]
    cosines: Float[Tensor, "latent rank"]


def has_outputs(lm: LanguageModel, dictionary: Dictionary) -> bool:
    """Whether the dictionary's hookpoint writes into the residual stream itself."""
    return dictionary.d == lm.d_model and not dictionary.hookpoint.startswith("neurons.")


def outputs(
    lm: LanguageModel, dictionary: Dictionary, limit: int, latents: Sequence[int] | None = None
) -> Outputs:
    """The tokens that latents promote and suppress most.

    Args:
        lm: the model.
        dictionary: of a hookpoint that writes into the residual stream.
        limit: how many tokens of each kind.
        latents: which latents; all when left out.
    """
    return written(
        lm, dictionary.W_dec if latents is None else dictionary.W_dec[list(latents)], limit
    )


def neuron_rows(
    lm: LanguageModel, hookpoint: str, neurons: Sequence[int]
) -> Float[Tensor, "neuron d"]:
    """What single neurons add to the residual stream per unit: columns of the down projection.

    Args:
        lm: the model.
        hookpoint: such as ``neurons.12``.
        neurons: which.
    """
    place = lm.anatomy.places[lm.resolve(hookpoint)]
    module = lm.model.get_submodule(place.module)
    weight = module.get_parameter("weight").detach()
    # GPT-2's own kind of linear layer keeps its matrix the other way round.
    return (weight.T if isinstance(module, nn.Linear) else weight)[list(neurons)]


def written(lm: LanguageModel, rows: Float[Tensor, "row d"], limit: int) -> Outputs:
    """The tokens that directions of the residual stream promote and suppress most.

    Args:
        lm: the model.
        rows: the directions.
        limit: how many tokens of each kind.
    """
    with torch.inference_mode():
        tokens = unembedding(lm)
        vocabulary = min(len(tokens), len(lm.tokenizer))
        tokens = tokens[:vocabulary]
        limit = min(limit, vocabulary)
        parts = []
        for chunk in rows.to(tokens.device).float().split(_CHUNK):
            logits = chunk @ tokens.T
            up, down = logits.topk(limit), logits.topk(limit, largest=False)
            parts.append((up.indices, up.values, down.indices, down.values))
        return Outputs(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def neighbours(dictionary: Dictionary, limit: int) -> Neighbours:
    """The nearest other latents of each latent, by the cosine of the decoder rows."""
    rows = nn.functional.normalize(dictionary.W_dec.float())
    limit = min(limit, len(rows) - 1)
    found = []
    for start in range(0, len(rows), _CHUNK):
        cosines = rows[start : start + _CHUNK] @ rows.T
        own = torch.arange(len(cosines), device=rows.device)
        cosines[own, own + start] = -2.0
        found.append(cosines.topk(limit))
    return Neighbours(
        torch.cat([best.indices for best in found]).cpu(),
        torch.cat([best.values for best in found]).cpu(),
    )


def unembedding(lm: LanguageModel) -> Float[Tensor, "vocab d"]:
    """The unembedding with the final norm's scale in it, centred over the vocabulary."""
    weight = lm.model.get_output_embeddings().weight.float()
    norm = _final_norm(lm)
    if norm is not None:
        weight = weight * _scale(norm, weight)
        if isinstance(norm, nn.LayerNorm):
            weight = weight - weight.mean(dim=1, keepdim=True)
    centred: Tensor = weight - weight.mean(dim=0)
    return centred


def _final_norm(lm: LanguageModel) -> nn.Module | None:
    layers = lm.anatomy.places["resid_pre.0"].module.removesuffix(".0")
    parent = lm.model.get_submodule(layers.rpartition(".")[0])
    return next((getattr(parent, name) for name in FINAL_NORMS if hasattr(parent, name)), None)


def _scale(norm: nn.Module, weight: Float[Tensor, "vocab d"]) -> Float[Tensor, " d"]:
    """A norm's scale, however it is stored: what it does to a vector of ones and minus ones."""
    probe = torch.ones(weight.shape[1], device=weight.device)
    probe[1::2] = -1.0
    own = next((parameter.dtype for parameter in norm.parameters()), torch.float32)
    there, back = norm(probe.to(own)[None]), norm(-probe.to(own)[None])
    scale: Tensor = ((there - back)[0].float() / 2) * probe
    return scale
