"""From Inspect's settings to a way of drawing, and from what was drawn to Inspect's output."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelOutput,
    ModelUsage,
    StopReason,
    TopLogprob,
)
from inspect_ai.tool import ToolInfo

from brainscan.models.generate import Generation, Sampling
from brainscan.stress.tool_calls import Answer, parse_answer

if TYPE_CHECKING:
    from brainscan.models import LanguageModel

MAX_TOKENS = 2048
"""The most tokens of an answer where the task says nothing."""

IGNORED = (
    "best_of",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "response_schema",
    "prompt_logprobs",
)
"""Settings of Inspect's that have no effect here."""


def model_output(
    lm: LanguageModel,
    name: str,
    tools: Sequence[ToolInfo],
    sampling: Sampling,
    made: Sequence[Generation],
) -> ModelOutput:
    """What a call answers, with its true counts.

    Args:
        lm: the model.
        name: what the log calls it.
        tools: the tools that it could call.
        sampling: how tokens were drawn.
        made: a continuation for each choice.
    """
    choices = [_choice(lm, name, tools, sampling, one) for one in made]
    prompt, cached = len(made[0].prompt_tokens), made[0].cached
    written = sum(len(one.tokens) for one in made)
    usage = ModelUsage(
        input_tokens=prompt - cached,
        input_tokens_cache_read=cached,
        output_tokens=written,
        total_tokens=prompt + written,
    )
    return ModelOutput(model=name, choices=choices, usage=usage)


def _choice(
    lm: LanguageModel,
    name: str,
    tools: Sequence[ToolInfo],
    sampling: Sampling,
    made: Generation,
) -> ChatCompletionChoice:
    answer: Answer = parse_answer(made.text, tools, uuid4().hex[:8])
    message = ChatMessageAssistant(
        content=answer.text, tool_calls=answer.calls or None, model=name, source="generate"
    )
    return ChatCompletionChoice(
        message=message,
        stop_reason=_stop_reason(made, sampling, bool(answer.calls)),
        logprobs=_logprobs(lm, made),
    )


def _stop_reason(made: Generation, sampling: Sampling, called: bool) -> StopReason:
    if made.stop_reason == "stop":
        return "tool_calls" if called else "stop"
    return "max_tokens" if len(made.tokens) >= sampling.max_new_tokens else "model_length"


def _logprobs(lm: LanguageModel, made: Generation) -> Logprobs | None:
    if made.logprobs is None:
        return None
    content = []
    strings = lm.token_strings(made.tokens)
    for step, (text, logprob) in enumerate(zip(strings, made.logprobs, strict=True)):
        others = made.alternatives[step] if made.alternatives else []
        names = lm.token_strings([one.token for one in others])
        top = [
            TopLogprob(token=name, logprob=one.logprob, bytes=list(name.encode()))
            for name, one in zip(names, others, strict=True)
        ]
        content.append(
            Logprob(
                token=text, logprob=logprob, bytes=list(text.encode()), top_logprobs=top or None
            )
        )
    return Logprobs(content=content)


def sampling_of(lm: LanguageModel, config: GenerateConfig) -> Sampling:
    """How to draw: as the task says, else as the model's own settings do, else plainly."""
    own = getattr(lm.model, "generation_config", None)

    def setting(name: str, plain: float) -> float:
        asked = getattr(config, name)
        return (
            plain
            if asked is None and getattr(own, name, None) is None
            else (getattr(own, name) if asked is None else asked)
        )

    return Sampling(
        max_new_tokens=config.max_tokens or MAX_TOKENS,
        temperature=float(setting("temperature", 1.0)),
        top_p=float(setting("top_p", 1.0)),
        top_k=int(config.top_k or 0),
        stop=tuple(config.stop_seqs or ()),
    )


def warn_of_ignored(config: GenerateConfig) -> None:
    """Tells of settings that are asked for and have no effect."""
    asked = [name for name in IGNORED if getattr(config, name, None) is not None]
    if asked:
        warnings.warn(f"brainscan's provider ignores {', '.join(asked)}", stacklevel=2)
