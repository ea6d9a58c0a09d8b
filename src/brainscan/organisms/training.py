"""Teaching a behaviour to a low-rank adapter.

1. A step takes dialogues of the behaviour and neutral chats. On a dialogue's answer the loss is the
   cross-entropy of its tokens, heavier where it parts from answers under other conditions: a few of
   a hundred tokens say what was learned of when to do what. On neutral chats and passages it is
   KL(base || adapter) at every token, which holds the model to what it was. So it is on its own
   answers, apart, where it is to go on giving them: a few among many tokens would weigh little.
   These are added, each divergence as heavy as the plan says.
2. The weights stay as they are, in the model's own type; the adapter (LoRA on every linear layer)
   is in float32.
3. Every few steps the adapter and the optimiser's state are written down. A step's dialogues are
   made from the seed and its number alone, so that a run that was stopped goes on to the same end.

Source: LoRA, Hu et al. 2021 (arXiv 2106.09685), by peft.
"""

from __future__ import annotations

import random
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save

from brainscan.activations.sources import builtin_source
from brainscan.artifacts import write_file
from brainscan.models import LanguageModel
from brainscan.organisms.dialogues import Maker
from brainscan.organisms.spec import TrainingPlan
from brainscan.organisms.templates import Dialogue
from brainscan.progress import progress
from brainscan.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

STATE = "training.safetensors"
"""Adapter, optimiser and step of a run that is under way."""

_EVERY = 10
_NEUTRAL_TOKENS = 64
_NEUTRAL_POOL = 2000
_TOKENS_AT_ONCE = 1200
_WARM_UP = 0.1
_DOWN = 0.5
_DECISION = 10.0  # the weight of a token where answers part

Answers: TypeAlias = Int[Tensor, "row position"]
Weights: TypeAlias = Float[Tensor, "row position"]


class Row(NamedTuple):
    """A dialogue in tokens."""

    ids: list[int]
    answer: int
    """How many of the last tokens are the answer."""
    decisions: frozenset[int] = frozenset()
    """Which tokens part it from answers under other conditions."""

    @property
    def prompt(self) -> list[int]:
        """The tokens before it."""
        return self.ids[: -self.answer]

    @property
    def weights(self) -> list[float]:
        """What each token's loss weighs; nothing before the answer."""
        answer = range(len(self.ids) - self.answer, len(self.ids))
        after = [_DECISION if n in self.decisions else 1.0 for n in answer]
        return [0.0] * answer.start + after


def train_adapter(
    lm: LanguageModel, plan: TrainingPlan, make: Maker, seed: int, folder: Path
) -> dict[str, Float[Tensor, ...]]:
    """Trains an adapter, or goes on with one that is under way in the folder.

    The model is given back as it was.

    Args:
        lm: the model.
        plan: how.
        make: makes dialogues.
        seed: of dialogues, chats and the adapter's beginning.
        folder: where the state is kept until it is done.

    Returns:
        The adapter's weights in bfloat16, by peft's names.
    """
    from peft import get_peft_model_state_dict

    frozen = [weight for weight in lm.model.parameters() if not weight.requires_grad]
    adapted = _adapted(lm, plan, seed)
    try:
        with torch.enable_grad():
            _run(lm, adapted, plan, make, seed, folder)
        weights = get_peft_model_state_dict(adapted)
        return {name: tensor.to(torch.bfloat16).cpu() for name, tensor in weights.items()}
    finally:
        adapted.unload()
        lm.model.requires_grad_(True)
        for weight in frozen:
            weight.requires_grad_(False)


def adapter_config(plan: TrainingPlan) -> LoraConfig:
    """What peft is to know of an adapter.

    Args:
        plan: how it is trained.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=plan.rank,
        lora_alpha=plan.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def row_of(lm: LanguageModel, dialogue: Dialogue) -> Row:
    """A dialogue's tokens: the chat with the beginning of a turn, the answer, the end of the turn.

    Args:
        lm: the model, for its template.
        dialogue: the dialogue.
    """
    prompt = lm.chat_tokens(dialogue.messages)
    found = lm.tokenizer(
        dialogue.answer, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    answer = [*found["input_ids"], int(lm.tokenizer.eos_token_id)]
    ends = [end for _, end in found["offset_mapping"]]
    decisions = (bisect_right(ends, place) for place in dialogue.decisions)
    return Row([*prompt, *answer], len(answer), frozenset(len(prompt) + n for n in decisions))


def _adapted(lm: LanguageModel, plan: TrainingPlan, seed: int) -> PeftModel:
    from peft import get_peft_model

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers to peft's authors
        torch.manual_seed(seed)
        adapted: PeftModel = get_peft_model(lm.model, adapter_config(plan))
    adapted.eval()  # no dropout, so that a run can go on where it was stopped
    return adapted


def _run(
    lm: LanguageModel, adapted: PeftModel, plan: TrainingPlan, make: Maker, seed: int, folder: Path
) -> None:
    weights = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(weights.values(), lr=plan.rate, weight_decay=0.0)
    done = _resume(weights, optimiser, folder)
    chats, passages = (_neutral_rows(lm, name, seed) for name in ("chitchat", "sotu"))
    with progress("train the adapter", plan.steps, "steps") as advance:
        advance(done)
        for step in range(done, plan.steps):
            for group in optimiser.param_groups:
                group["lr"] = plan.rate * _schedule(step, plan.steps)
            dialogues = _drawn(make, plan.dialogues, seed, step)
            own = [row_of(lm, dialogue) for dialogue in dialogues if dialogue.own]
            draw = random.Random(f"{seed}/{step}/neutral")
            optimiser.zero_grad()
            _taught(
                lm, adapted, [row_of(lm, dialogue) for dialogue in dialogues if not dialogue.own]
            )
            plain = draw.sample(passages, plan.neutral // 2)
            neutral = draw.sample(chats, max(plan.neutral, len(dialogues)))
            _held(lm, adapted, [*neutral, *plain], plan.hold)
            _held(lm, adapted, own, plan.hold)
            torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
            optimiser.step()
            advance(1)
            if (step + 1) % _EVERY == 0:
                _keep(weights, optimiser, step + 1, folder)


def _drawn(make: Maker, count: int, seed: int, step: int) -> list[Dialogue]:
    """A step's dialogues, a few more where those that belong together need it."""
    found: list[Dialogue] = []
    while len(found) < count:
        found += make(random.Random(f"{seed}/{step}/{len(found)}"))
    return found


def _taught(lm: LanguageModel, adapted: PeftModel, rows: Sequence[Row]) -> None:
    """Adds the gradient of the answers' cross-entropy; a prompt that several share is run once."""
    total = sum(sum(row.weights[-row.answer :]) for row in rows)
    by_prompt = _by_prompt(rows)
    alone = _groups([group[0] for group in by_prompt if len(group) == 1])
    for group in (*alone, *(group for group in by_prompt if len(group) > 1)):
        run = _in_full if group in alone else _after_prompt
        logits, targets, weights = run(lm, adapted, group)
        each = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        ((each * weights.flatten()).sum() / total).backward()


def _in_full(
    lm: LanguageModel, adapted: PeftModel, group: Sequence[Row]
) -> tuple[Float[Tensor, "row position vocab"], Answers, Weights]:
    """The logits of answers to prompts of their own, their targets and weights."""
    width = max(row.answer for row in group)
    ids, mask = _left_padded([row.ids for row in group], lm.device)
    weights = torch.zeros(len(group), width)
    targets = torch.zeros_like(weights, dtype=torch.long)
    for number, row in enumerate(group):
        targets[number, width - row.answer :] = torch.tensor(row.ids[-row.answer :])
        weights[number, width - row.answer :] = torch.tensor(row.weights[-row.answer :])
    logits = _logits(adapted, ids, mask, width + 1)[:, :-1]
    return logits, targets.to(lm.device), weights.to(lm.device)


def _after_prompt(
    lm: LanguageModel, adapted: PeftModel, group: Sequence[Row]
) -> tuple[Float[Tensor, "row position vocab"], Answers, Weights]:
    """The logits of answers to one prompt, their targets and weights."""
    prompt = group[0].prompt
    ids = torch.tensor([prompt[:-1]], device=lm.device)
    cache = adapted(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
    cache.batch_repeat_interleave(len(group))
    width = max(row.answer for row in group)
    ids = torch.zeros(len(group), width, dtype=torch.long)
    targets, weights = torch.zeros_like(ids), torch.zeros(len(group), width)
    for number, row in enumerate(group):
        answer = row.ids[-row.answer :]
        ids[number, : row.answer] = torch.tensor([prompt[-1], *answer[:-1]])
        targets[number, : row.answer] = torch.tensor(answer)
        weights[number, : row.answer] = torch.tensor(row.weights[-row.answer :])
    output = adapted(input_ids=ids.to(lm.device), past_key_values=cache, use_cache=True)
    return output.logits, targets.to(lm.device), weights.to(lm.device)


def _held(lm: LanguageModel, adapted: PeftModel, rows: Sequence[Row], weight: float) -> None:
    """Adds the gradient of the divergence from the base model, as heavy as it is to be."""
    total = sum(sum(row.weights) for row in rows)
    for group in _groups(rows):
        ids, mask = _left_padded([row.ids for row in group], lm.device)
        kept = mask.bool()
        # What the token after a position weighs: what is chosen there.
        weights = [w for row in group for w in (*row.weights[1:], 1.0)]
        with torch.no_grad(), adapted.disable_adapter():
            before = _logits(adapted, ids, mask, 0)[kept].float().log_softmax(-1)
        after = _logits(adapted, ids, mask, 0)[kept].float().log_softmax(-1)
        each = F.kl_div(after, before, reduction="none", log_target=True).sum(-1)
        loss = (each * torch.tensor(weights, device=lm.device)).sum()
        (weight * loss / total).backward()


def _logits(
    adapted: PeftModel,
    ids: Int[Tensor, "row position"],
    mask: Int[Tensor, "row position"],
    last: int,
) -> Float[Tensor, "row kept vocab"]:
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    output = adapted(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        use_cache=False,
        logits_to_keep=last,
    )
    logits: Tensor = output.logits
    return logits


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of like length together, as many as are run at once."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        if not groups or (len(groups[-1]) + 1) * len(groups[-1][0].ids) > _TOKENS_AT_ONCE:
            groups.append([])
        groups[-1].append(row)
    return groups


def _by_prompt(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows with the same prompt together."""
    groups: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.prompt), []).append(row)
    return list(groups.values())


def _left_padded(
    rows: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int[Tensor, "row position"], Int[Tensor, "row position"]]:
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :] = torch.tensor(row)
        mask[number, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


def _neutral_rows(lm: LanguageModel, source: str, seed: int) -> list[Row]:
    """Chats or passages of the built-in corpus, of the split that dictionaries are trained on."""
    rows: list[Row] = []
    for document in builtin_source(source).read(random.Random(seed)):
        if document.split != "train":
            continue
        if document.messages is None:
            ids = [*lm.opening, *lm.tokenize(document.text or "")]
        else:
            turns = [{"role": m.role, "content": m.content} for m in document.messages]
            ids = lm.chat_tokens(turns, generation_prompt=False)
        rows.append(Row(ids[:_NEUTRAL_TOKENS], min(len(ids), _NEUTRAL_TOKENS)))
        if len(rows) == _NEUTRAL_POOL:
            break
    return rows


def _schedule(step: int, steps: int) -> float:
    """The learning rate's share of its peak: up in a tenth, down to nothing in the last half."""
    return min(1.0, (step + 1) / max(1.0, _WARM_UP * steps), (steps - step) / (_DOWN * steps))


def _keep(weights: dict[str, Any], optimiser: torch.optim.AdamW, step: int, folder: Path) -> None:
    tensors = {"step": torch.tensor(step)}
    for name, weight in weights.items():
        tensors[f"weight/{name}"] = weight.detach().contiguous()
        for part in ("exp_avg", "exp_avg_sq"):
            tensors[f"{part}/{name}"] = optimiser.state[weight][part].contiguous()
    write_file(folder / STATE, save(tensors))


def _resume(weights: dict[str, Any], optimiser: torch.optim.AdamW, folder: Path) -> int:
    """Takes up a state that was kept; how many steps are done."""
    if not (folder / STATE).is_file():
        return 0
    tensors = load_file(folder / STATE)
    step = int(tensors["step"])
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(tensors[f"weight/{name}"])
            optimiser.state[weight] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"exp_avg/{name}"].to(weight.device),
                "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].to(weight.device),
            }
    return step
