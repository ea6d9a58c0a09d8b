"""Where a model's hookpoints are, found by its structure and never by its name.

1. Go down from the model through the wrappers in ``DECODERS`` to the module that holds the list of
   layers. Vision and audio towers are not on that way.
2. ``resid_pre.L`` is the layer's input, ``resid_post.L`` its output.
3. ``attn_out.L`` and ``mlp_out.L`` are the vectors added to the residual: the output of the last
   part on each branch, which is a norm or a dropout where the layer has one there. A layer with a
   part that is not in the tables may add something else, so it gets neither.
4. ``neurons.L`` is the input of the MLP's down projection. A mixture of experts has no such place,
   since each token passes through other weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import nn

from brainscan.errors import UnknownHookpointError, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DECODERS = ("language_model", "text_model", "model", "transformer", "gpt_neox", "decoder")
"""Names of the modules on the way from the model to its layers, inner wrappers first."""

LAYERS = ("layers", "h", "blocks")
"""Names of the list of layers."""

ATTENTION = ("self_attn", "linear_attn", "attention", "attn")
"""Names of the part that mixes tokens."""

MLP = ("mlp", "feed_forward", "block_sparse_moe")
"""Names of the part that works on each token."""

DOWN = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out")
"""Names of the MLP's last matrix, whose inputs are the neurons."""

ATTENTION_ADDED = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
    ("post_attention_dropout", "post_mlp_dropout"),
    ("resid_attn_dropout", "resid_mlp_dropout"),
    *((name, name) for name in ATTENTION),
)
"""Whose output the attention branch adds: the first row whose two names are both in the layer."""

MLP_ADDED = (
    "post_feedforward_layernorm",
    "post_mlp_layernorm",
    "post_mlp_dropout",
    "resid_mlp_dropout",
    *MLP,
)
"""Whose output the MLP branch adds: the first name that is in the layer."""

BESIDE = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "ln_1",
    "ln_2",
    "resid_dropout",
    "dropout",
)
"""Further parts of a layer whose two branches add just what the tables say."""

SCALES = ("residual_multiplier", "layer_scalar", "resid_scale")
"""Attributes of layers that scale what a branch adds, or the sum."""

SITES = ("resid_pre", "resid_post", "attn_out", "mlp_out", "neurons")
"""The kinds of hookpoints."""

COMPUTED = ("resid_pre", "attn_out", "neurons", "mlp_out", "resid_post")
"""The same kinds, in the order in which a layer computes them."""

_TRANSFORMER_LENS = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_post": "neurons",
}
_OURS = re.compile(rf"({'|'.join(SITES)})\.(\d+)")
_THEIRS = re.compile(rf"blocks\.(\d+)\.({'|'.join(map(re.escape, _TRANSFORMER_LENS))})")


class Place(NamedTuple):
    """A place in the model to read or write."""

    module: str
    """The module's path inside the model."""

    side: Literal["input", "output"]
    """Which side of the module."""

    width: int
    """The activation's last dimension."""


class Anatomy(NamedTuple):
    """A model's hookpoints, and why those that it lacks are not there."""

    n_layers: int
    """How many layers there are."""

    places: Mapping[str, Place]
    """Each hookpoint and its place."""

    missing: Mapping[str, str]
    """Each hookpoint that this model lacks, and the reason."""


def canonical(hookpoint: str) -> str | None:
    """Our name of a hookpoint given by our name or TransformerLens'; None if it is neither."""
    if match := _OURS.fullmatch(hookpoint):
        return f"{match[1]}.{int(match[2])}"
    if match := _THEIRS.fullmatch(hookpoint):
        return f"{_TRANSFORMER_LENS[match[2]]}.{int(match[1])}"
    return None


def examine(model: PreTrainedModel) -> Anatomy:
    """Finds the hookpoints of a model."""
    path, layers = _find_layers(model)
    d_model = int(model.config.get_text_config().hidden_size)
    places: dict[str, Place] = {}
    missing: dict[str, str] = {}
    for number, layer in enumerate(layers):
        root = f"{path}.{number}"
        places[f"resid_pre.{number}"] = Place(root, "input", d_model)
        places[f"resid_post.{number}"] = Place(root, "output", d_model)
        branches = _added(layer)
        for site, child in zip(("attn_out", "mlp_out"), branches or (), strict=False):
            places[f"{site}.{number}"] = Place(f"{root}.{child}", "output", d_model)
        if branches is None:
            reason = f"{type(layer).__name__} adds to the residual in a way that is not known"
            missing |= {f"attn_out.{number}": reason, f"mlp_out.{number}": reason}
        down = _down_projection(layer)
        if isinstance(down, str):
            missing[f"neurons.{number}"] = down
        else:
            places[f"neurons.{number}"] = Place(f"{root}.{down.module}", "input", down.width)
    return Anatomy(len(layers), places, missing)


def resolve(anatomy: Anatomy, hookpoint: str) -> str:
    """The canonical name of a hookpoint that the model has; else an error that lists them."""
    name = canonical(hookpoint) or hookpoint
    if name in anatomy.places:
        return name
    if name in anatomy.missing:
        raise UnknownHookpointError(
            f"a hookpoint of this model: {summary(anatomy)}",
            f"'{hookpoint}', which it lacks: {anatomy.missing[name]}",
            "choose one that is listed",
        )
    raise UnknownHookpointError(
        f"a hookpoint of this model: {summary(anatomy)}",
        f"'{hookpoint}'",
        f"choose one that is listed, for example '{next(iter(anatomy.places))}'",
    )


def order(hookpoint: str) -> tuple[int, int]:
    """Where a hookpoint, by its canonical name, stands in the order of computation."""
    site, layer = hookpoint.rsplit(".", 1)
    return int(layer), COMPUTED.index(site)


def summary(anatomy: Anatomy) -> str:
    """The model's hookpoints in short: ``resid_pre.0..29, resid_post.0..29, ...``."""
    kinds = []
    for site in SITES:
        numbers = [n for n in range(anatomy.n_layers) if f"{site}.{n}" in anatomy.places]
        if numbers == list(range(anatomy.n_layers)) and len(numbers) > 1:
            kinds.append(f"{site}.0..{numbers[-1]}")
        else:
            kinds += [f"{site}.{n}" for n in numbers]
    return ", ".join(kinds)


def _find_layers(model: nn.Module) -> tuple[str, Sequence[nn.Module]]:
    path, module = "", model
    while True:
        children = dict(module.named_children())
        for name in LAYERS:
            if isinstance(found := children.get(name), nn.ModuleList) and len(found):
                return f"{path}{name}", list(found)
        inner = next((name for name in DECODERS if name in children), None)
        if inner is None:
            raise UsageError(
                "a decoder-only transformer, whose layers are one list",
                f"{type(model).__name__}, in which no such list was found",
                "use a causal language model of transformers",
            )
        path, module = f"{path}{inner}.", children[inner]


def _added(layer: nn.Module) -> tuple[str, str] | None:
    """The children whose outputs the layer adds to the residual, if its parts are all known."""
    children = {name for name, _ in layer.named_children()}
    pairs = [pair for pair in ATTENTION_ADDED if children.issuperset(pair)]
    mlps = [name for name in MLP_ADDED if name in children]
    known = {*ATTENTION, *MLP_ADDED, *BESIDE, *(name for pair in ATTENTION_ADDED for name in pair)}
    if not pairs or not mlps or children - known or any(hasattr(layer, s) for s in SCALES):
        return None
    return pairs[0][0], mlps[0]


class _Down(NamedTuple):
    module: str
    width: int


def _down_projection(layer: nn.Module) -> _Down | str:
    """The down projection of a layer's MLP, or the reason why there is none."""
    for name in MLP:
        mlp = getattr(layer, name, None)
        if not isinstance(mlp, nn.Module):
            continue
        if hasattr(mlp, "experts"):
            return "it is a mixture of experts, where single neurons have no one place"
        for inner in DOWN:
            down = getattr(mlp, inner, None)
            width = getattr(down, "in_features", getattr(down, "nx", None))
            if width is not None:
                return _Down(f"{name}.{inner}", int(width))
    return f"no down projection was found in {type(layer).__name__}"
