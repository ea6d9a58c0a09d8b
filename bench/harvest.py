"""How fast activations are read, against a plain matmul and against SAELens.

1. The yardstick: the products that the 16 layers' weights make (q, k, v, o, gate, up, down) for a
   batch of tokens, as plain `torch.mm` in bf16 into buffers that are there already. It gives the
   rate at which this core multiplies.
2. `brainscan.activations.stream` at the residual after layer 15, at a context of 128 (SAELens'
   default) and of 1,024 (brainscan's).
3. The share: the products of the weights and of causal attention that a context needs, at that
   rate, over the time that the harvest took. The share without attention's stands beside it.
4. SAELens' store on the same tokens, fp32 and bf16, at a context of 128.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from bench import setting
from bench.measure import (
    REPEATS,
    Check,
    Result,
    Row,
    arguments,
    cpu_seconds,
    finish,
    interleaved,
    one_thread,
    ratios,
)
from bench.peers.client import INSTALL, SAELens, saelens_python

if TYPE_CHECKING:
    from torch import Tensor

    from brainscan.models import LanguageModel

CONTEXTS = (128, 1024)
SHARE = 0.6
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main() -> None:
    quick = arguments(__doc__ or "")
    one_thread()
    lm = setting.load()
    passes = 1 if quick else 4
    tokens = {length: some_tokens(lm, length, passes) for length in CONTEXTS}
    arms: dict[str, Callable[[], float]] = {"plain bf16 matmul": matmul(lm, passes)}
    for length, rows in tokens.items():
        arms[f"brainscan bf16, context {length}"] = partial(streamed, lm, rows)
    with ExitStack() as stack:
        if saelens_python() is not None:
            file = setting.token_file(lm, n_contexts(128, passes), 128)
            for kind in ("bf16", "fp32"):
                peer = stack.enter_context(SAELens(kind, file, 128))
                count = passes if kind == "bf16" else max(1, passes // 4)
                peer.ask("harvest", passes=1)
                name = f"SAELens {peer.versions['version']} {kind}, context 128"
                arms[name] = partial(peer.rate, "harvest", passes=count)
        for warm in list(arms.values())[:3]:
            warm()
        values = interleaved(arms, 1 if quick else REPEATS)
    finish(report(values, {length: attention(lm, length) for length in CONTEXTS}))


def report(values: dict[str, list[float]], more: dict[int, float]) -> Result:
    """What was found; ``more`` is each context's work with attention over that without."""
    result = Result("harvest", "layers 0 to 15, residual after layer 15, one thread")
    result.rows = [Row(name, found, "tokens / CPU s") for name, found in values.items()]
    plain = values["plain bf16 matmul"]
    for length in CONTEXTS:
        share = ratios(values[f"brainscan bf16, context {length}"], plain)
        result.rows.append(Row(f"share by the weights alone, context {length}", share, "ratio"))
        whole = [more[length] * part for part in share]
        result.checks.append(Check(f"share of the plain matmul, context {length}", whole, SHARE))
    if saelens_python() is None:
        result.skipped = INSTALL
    return result


def n_contexts(length: int, passes: int) -> int:
    return passes * setting.PASS // length


def some_tokens(lm: LanguageModel, length: int, passes: int) -> Tensor:
    n = n_contexts(length, passes)
    return setting.read_tokens(setting.token_file(lm, n, length))


def streamed(lm: LanguageModel, rows: Tensor) -> float:
    """Tokens per second of a stream over rows."""
    from brainscan.activations import stream

    def read() -> None:
        for _ in stream(lm, setting.contexts(rows), [setting.HOOKPOINT]):
            pass

    return rows.numel() / cpu_seconds(read)


def attention(lm: LanguageModel, length: int) -> float:
    """The products of weights and causal attention, over those of the weights."""
    layer = lm.model.model.layers[0]
    weights = sum(module.weight.numel() for module in projections(layer))
    width = layer.self_attn.o_proj.weight.shape[1]
    # A token attends to half of the context on average, with its query and with its weights.
    return 1 + 2 * width * (length + 1) / 2 / weights


def projections(layer: Any) -> list[Any]:
    named = layer.named_modules()
    return [module for name, module in named if name.rpartition(".")[2] in PROJECTIONS]


def matmul(lm: LanguageModel, passes: int) -> Callable[[], float]:
    """Measures the plain products of the layers' weights for the same tokens."""
    import torch

    layers = list(lm.model.model.layers)[: setting.LAYER + 1]
    weights = [module.weight.detach() for layer in layers for module in projections(layer)]
    inputs = {w.shape[1]: torch.randn(setting.PASS, w.shape[1]).bfloat16() for w in weights}
    outputs = {w.shape[0]: torch.empty(setting.PASS, w.shape[0]).bfloat16() for w in weights}

    def multiply() -> None:
        for _ in range(passes):
            for weight in weights:
                torch.mm(inputs[weight.shape[1]], weight.T, out=outputs[weight.shape[0]])

    def rate() -> float:
        with torch.inference_mode():
            return passes * setting.PASS / cpu_seconds(multiply)

    return rate


if __name__ == "__main__":
    main()
