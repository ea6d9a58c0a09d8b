"""One dictionary in training: its parameters, its optimiser, and the step.

1. Inputs are scaled to unit RMS; ``b_dec`` starts at the mean of the first chunk, decoder rows at
   random with unit norm, encoder rows at 0.58 of the decoder's.
2. A step: latents are chosen by a bf16 product, values and gradients computed over the support
   only (`brainscan.dictionaries.sparse`); squared error, plus over latents that have not fired
   for a while the auxiliary loss of Gao et al. 2024; Adam; decoder rows back to unit norm.
3. The learning rate warms up briefly and falls to zero; its peak is scaled to the run's length.
4. In the last fifth of the run each latent's largest activation and firing rate are recorded.
5. At the end the scaling is folded into the weights.

Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders"; EleutherAI sparsify.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from brainscan.artifacts import ModelRef
from brainscan.dictionaries.autoencoder import Autoencoder
from brainscan.dictionaries.losses import dead_latent_loss, fraction_of_variance_unexplained
from brainscan.dictionaries.sparse import Support, selected_preactivations, sparse_decode
from brainscan.dictionaries.sparsifiers import SPARSIFIERS, topk
from brainscan.errors import UsageError
from brainscan.shapes import Float, Tensor

_ENCODER_SCALE = 0.58
_STATISTICS_SHARE = 0.2
_PARAMETERS = ("W_enc", "b_enc", "W_dec", "b_dec")
_BUFFERS = ("mean", "last_fired", "activation_max", "fired")


@dataclass(frozen=True)
class TrainingConfig:
    """How a dictionary is trained."""

    n_latents: int = 4096
    """Number of latents."""

    k: int = 32
    """Active latents per token (on average, for BatchTopK)."""

    sparsifier: str = "topk"
    """"topk" or "batch-topk"."""

    tokens: int = 1_000_000
    """Length of the run in tokens; cut to what a store holds."""

    batch: int = 2048
    """Tokens per step."""

    lr: float | None = None
    """Peak learning rate; None scales it to the run's length."""

    aux_coefficient: float = 1 / 32
    """Weight of the auxiliary loss."""

    dead_after: int = 250_000
    """A latent is dead when it has not fired for so many tokens."""

    seed: int = 0
    """Seed of the start and of the order."""

    def __post_init__(self) -> None:
        """Checks the fields against one another."""
        if self.sparsifier not in SPARSIFIERS:
            raise UsageError(
                f"a sparsifier: {' or '.join(SPARSIFIERS)}", repr(self.sparsifier), "choose one"
            )
        if not 0 < self.k <= self.n_latents:
            raise UsageError(
                f"k from 1 to the number of latents, {self.n_latents}", str(self.k), "change --k"
            )

    @property
    def peak_lr(self) -> float:
        """The peak learning rate."""
        if self.lr is not None:
            return self.lr
        steps = max(1.0, self.tokens / self.batch)
        return min(4e-3, 4e-3 * float((87 / steps) ** 0.4))


class Step(NamedTuple):
    """What one step measured."""

    fvu: float
    dead: int


class Trainer:
    """One dictionary in training.

    Attributes:
        W_enc, b_enc, W_dec, b_dec: the parameters, in units of scaled input.
        tokens: tokens seen.
        fvu: fraction of variance unexplained, averaged over the last 50 steps or so.
    """

    def __init__(self, config: TrainingConfig, d: int, device: torch.device | str = "cpu") -> None:
        """Random decoder rows, the same rows shrunk as encoder, no scale yet.

        Args:
            config: how to train.
            d: width of the hookpoint.
            device: where to train.
        """
        self.config = config
        generator = torch.Generator().manual_seed(config.seed)
        rows = torch.randn(config.n_latents, d, generator=generator).to(device)
        rows = torch.nn.functional.normalize(rows)
        self.W_dec = torch.nn.Parameter(rows)
        self.W_enc = torch.nn.Parameter(_ENCODER_SCALE * rows)
        self.b_enc = torch.nn.Parameter(rows.new_zeros(config.n_latents))
        self.b_dec = torch.nn.Parameter(rows.new_zeros(d))
        self.optimizer = torch.optim.Adam(self._parameters(), lr=config.peak_lr, fused=True)
        self.scale = 1.0
        self.mean = rows.new_zeros(d)
        self.tokens = self.counted = 0
        self.threshold = 0.0
        self.fvu = 1.0
        self.last_fired = torch.zeros(config.n_latents, dtype=torch.int64, device=device)
        self.fired = torch.zeros_like(self.last_fired)
        self.activation_max = rows.new_zeros(config.n_latents)
        # The bias is one more input that is always one: cheaper than adding it afterwards.
        self._half = rows.new_zeros(config.n_latents, d + 1, dtype=torch.bfloat16)
        self._input = self._half.new_empty(0, d + 1)
        self._pre = self._half.new_empty(0, config.n_latents)
        self._spare = torch.empty_like(rows)

    @classmethod
    @torch.no_grad()
    def started(cls, config: TrainingConfig, first: Float[Tensor, "token d"]) -> Trainer:
        """A trainer with mean and scale of the first chunk of what is to be reconstructed."""
        trainer = cls(config, first.shape[1], first.device)
        x = first.float()
        mean = x.mean(0)
        trainer.scale = float((x - mean).square().mean().sqrt())
        trainer.mean.copy_(mean / trainer.scale)
        trainer.b_dec.copy_(trainer.mean)
        return trainer

    @classmethod
    def resumed(
        cls, config: TrainingConfig, state: Mapping[str, Tensor], device: torch.device | str = "cpu"
    ) -> Trainer:
        """A trainer that goes on from a state."""
        trainer = cls(config, state["b_dec"].numel(), device)
        trainer.restore(state)
        return trainer

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [getattr(self, name) for name in _PARAMETERS]

    def learning_rate(self) -> float:
        """Warm-up over the first 2% of the run, then a linear fall to zero."""
        done = self.tokens / self.config.tokens
        return self.config.peak_lr * min(1.0, done / 0.02 + 0.05, max(0.0, (1 - done) / 0.98))

    def step(
        self, x: Float[Tensor, "token d"], target: Float[Tensor, "token d"] | None = None
    ) -> Step:
        """One step on a batch.

        Args:
            x: raw activations.
            target: what is to be reconstructed from them, of the scale that the trainer was
                started with; None for ``x`` itself.
        """
        x = x.float() / self.scale
        target = x if target is None else target.float() / self.scale
        centred = x - self.b_dec.detach()
        support = self._support(centred)
        pre = selected_preactivations(centred, self.W_enc, self.b_enc, support, self.b_dec)
        values = pre.relu()
        x_hat = sparse_decode(values, self.W_dec, support) + self.b_dec
        fvu = fraction_of_variance_unexplained(target, x_hat, self.mean)
        loss = fvu
        dead = (self.tokens - self.last_fired > self.config.dead_after).nonzero().flatten()
        if dead.numel():
            error_hat = self._from_dead(centred, dead)
            auxiliary = dead_latent_loss((target - x_hat).detach(), error_hat)
            loss = fvu + self.config.aux_coefficient * auxiliary
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._update()
        self._record(support, values.detach(), x.shape[0])
        self.fvu += 0.02 * (float(fvu.detach()) - self.fvu)
        return Step(float(fvu.detach()), dead.numel())

    @torch.no_grad()
    def _support(self, centred: Float[Tensor, "token d"]) -> Support:
        tokens = centred.shape[0]
        if self._pre.shape[0] < tokens:
            self._pre = self._pre.new_empty(tokens, self.config.n_latents)
            self._input = self._input.new_ones(tokens, centred.shape[1] + 1)
        self._input[:tokens, :-1] = centred
        self._half[:, :-1] = self.W_enc
        self._half[:, -1] = self.b_enc
        pre = torch.mm(self._input[:tokens], self._half.T, out=self._pre[:tokens])
        return SPARSIFIERS[self.config.sparsifier](pre, self.config.k)

    def _from_dead(
        self, centred: Float[Tensor, "token d"], dead: Tensor
    ) -> Float[Tensor, "token d"]:
        """What the dead latents alone make of the error; at most d / 2 of them at once."""
        weight = self.W_enc[dead]
        pre = torch.addmm(self.b_enc[dead], centred, weight.T)
        k = min(centred.shape[1] // 2, dead.numel())
        support = topk(pre.detach(), k)
        values = pre.gather(1, support.latents.view(-1, k)).flatten().relu()
        return sparse_decode(values, self.W_dec[dead], support)

    @torch.no_grad()
    def _update(self) -> None:
        rows, grad = self.W_dec, self.W_dec.grad
        if grad is not None:
            along = torch.mul(grad, rows, out=self._spare).sum(1, keepdim=True)
            grad.addcmul_(along, rows, value=-1)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True))

    @torch.no_grad()
    def _record(self, support: Support, values: Tensor, tokens: int) -> None:
        self.tokens += tokens
        active = support.latents[values > 0]
        self.last_fired[active] = self.tokens
        if self.config.sparsifier == "batch-topk" and active.numel():
            smallest = float(values[values > 0].min())
            self.threshold += 0.01 * (smallest - self.threshold) if self.threshold else smallest
        if self.tokens >= (1 - _STATISTICS_SHARE) * self.config.tokens:
            self.counted += tokens
            self.fired += torch.bincount(active, minlength=self.config.n_latents)
            self.activation_max.scatter_reduce_(0, support.latents, values, "amax")

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on."""
        tensors = {name: getattr(self, name).detach() for name in _PARAMETERS + _BUFFERS}
        for name, parameter in zip(_PARAMETERS, self._parameters(), strict=True):
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{name}.{key}"] = value
        counters = [self.tokens, self.counted, self.scale, self.threshold, self.fvu]
        tensors["counters"] = torch.tensor(counters, dtype=torch.float64)
        return {key: value.contiguous() for key, value in tensors.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes back to a state."""
        for name in _PARAMETERS + _BUFFERS:
            getattr(self, name).copy_(tensors[name])
        for name, parameter in zip(_PARAMETERS, self._parameters(), strict=True):
            moments = {
                key: tensors[f"adam.{name}.{key}"].to(parameter.device).clone()
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
            self.optimizer.state[parameter] = moments
        tokens, counted, *others = tensors["counters"].tolist()
        self.scale, self.threshold, self.fvu = others
        self.tokens, self.counted = int(tokens), int(counted)

    @torch.no_grad()
    def finish(
        self, hookpoint: str, model: ModelRef | None, settings: Mapping[str, Any]
    ) -> Autoencoder:
        """The trained dictionary, scaling folded in: it takes and gives raw activations."""
        scale = self.scale
        batch_topk = self.config.sparsifier == "batch-topk"
        bias = self.b_enc - self.W_enc @ self.b_dec
        return Autoencoder(
            hookpoint=hookpoint,
            k=self.config.k,
            W_enc=self.W_enc.detach().clone(),
            b_enc=bias * scale,
            W_dec=self.W_dec.detach().clone(),
            b_dec=self.b_dec * scale,
            activation_max=self.activation_max * scale,
            firing_rate=self.fired / max(1, self.counted),
            threshold=self.threshold * scale if batch_topk else None,
            model=model,
            settings=settings,
        )
