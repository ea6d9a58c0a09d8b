"""A language model as brainscan sees it: the user's own transformers module, and its hookpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from brainscan.artifacts import ModelRef
from brainscan.errors import UsageError
from brainscan.models import families
from brainscan.models.hooks import Intervention, intervene
from brainscan.shapes import Bool, Float, Int, Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from brainscan.models.generate import Generation, Sampling

Messages: TypeAlias = str | Sequence[Mapping[str, Any]]
"""A conversation: messages with "role" and "content", or the text of one user's message."""

_WORD_START = "▁"
_BYTE_CHARACTERS = [*range(33, 127), *range(161, 173), *range(174, 256)]


class LanguageModel:
    """A causal language model, its tokenizer, and the places where it can be read and changed."""

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        ref: ModelRef,
    ) -> None:
        """Wraps a model without changing it.

        Args:
            name: what it is called.
            model: the transformers module, used as it is.
            tokenizer: its tokenizer, with a chat template if it has one.
            ref: its identity, for artifacts.
        """
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.ref = ref
        self.anatomy = families.examine(model)
        self._strings: dict[int, str] = {}

    def __repr__(self) -> str:
        size = f"{self.n_layers} layers, d_model {self.d_model}"
        return f"LanguageModel('{self.name}', {size}, {self.dtype} on {self.device})"

    @property
    def device(self) -> torch.device:
        """Where the model's input goes."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the model's activations."""
        return self.model.dtype

    @property
    def n_layers(self) -> int:
        """How many layers there are."""
        return self.anatomy.n_layers

    @property
    def d_model(self) -> int:
        """The residual stream's width."""
        return self.width("resid_pre.0")

    @cached_property
    def vocab_size(self) -> int:
        """How many logits there are."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def hookpoints(self) -> tuple[str, ...]:
        """Every hookpoint of this model."""
        return tuple(self.anatomy.places)

    def resolve(self, hookpoint: str) -> str:
        """The canonical name of a hookpoint; understands TransformerLens' names."""
        return families.resolve(self.anatomy, hookpoint)

    def width(self, hookpoint: str) -> int:
        """The last dimension of the activation at a hookpoint."""
        return self.anatomy.places[self.resolve(hookpoint)].width

    @cached_property
    def opening(self) -> tuple[int, ...]:
        """The tokens that the tokenizer itself puts before a text, such as ``<bos>``; often none.

        A chat template writes its own; what is read as plain text needs these before it.
        """
        plain, whole = self.tokenize("a"), list(self.tokenizer("a")["input_ids"])
        starts = range(len(whole) - len(plain) + 1)
        before = next((n for n in starts if whole[n : n + len(plain)] == plain), 0)
        return tuple(whole[:before])

    def tokenize(self, text: str) -> list[int]:
        """The text's tokens; no special tokens are added."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    @cached_property
    def context_window(self) -> int | None:
        """How many tokens the model was made for; None where its configuration does not say."""
        window = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return None if window is None else int(window)

    def chat_tokens(
        self,
        messages: Messages,
        *,
        generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[int]:
        """A conversation's tokens through the model's chat template; see `chat_text`."""
        text = self.chat_text(messages, generation_prompt=generation_prompt, tools=tools)
        return self.tokenize(text)

    def chat_text(
        self,
        messages: Messages,
        *,
        generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """A conversation's text through the model's chat template.

        Args:
            messages: the conversation; a string is one user's message. A model without a template
                gets plain text, a paragraph per message led by its role.
            generation_prompt: end with the beginning of the assistant's turn.
            tools: JSON schemas of functions, for a template that knows of tools.
        """
        import jinja2

        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        if not self.tokenizer.chat_template:
            return _plain_chat(turns, generation_prompt)
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(turn) for turn in turns],
                tokenize=False,
                add_generation_prompt=generation_prompt,
                tools=[dict(tool) for tool in tools] or None,
            )
        except jinja2.TemplateError as error:
            raise UsageError(
                f"messages that the chat template of {self.name} can render",
                f"{[turn['role'] for turn in turns]}: {error}",
                "change the roles, for example put the system message into the user's",
            ) from error
        return str(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones included."""
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        r"""Each token's text; bytes that are only part of a character read ``\xe2\x9c``."""
        for token in {*ids} - self._strings.keys():
            self._strings[token] = self._token_string(int(token))
        return [self._strings[token] for token in ids]

    def forward(
        self,
        ids: Int[Tensor, "batch position"],
        mask: Int[Tensor, "batch position"] | Bool[Tensor, "batch position"] | None = None,
        *,
        grad: bool = False,
    ) -> Float[Tensor, "batch position vocab"]:
        """The logits after each token.

        Args:
            ids: tokens; moved to the model's device.
            mask: 1 for tokens, 0 for padding on either side. Positions are counted without it.
            grad: build the graph, to differentiate through.
        """
        inputs: dict[str, Any] = {"input_ids": ids.to(self.device), "use_cache": False}
        if mask is not None:
            mask = mask.to(self.device)
            inputs["attention_mask"] = mask
            inputs["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
        with torch.set_grad_enabled(grad):
            logits: Tensor = self.model(**inputs).logits
        return logits

    def edit(self, *interventions: Intervention) -> AbstractContextManager[None]:
        """Changes the model while the block runs."""
        return intervene(self, interventions)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling | None = None,
        **options: Any,
    ) -> list[Generation]:
        """Continues prompts in batches; the options are those of `generate.generate`."""
        from brainscan.models import generate

        return generate.generate(self, prompts, sampling, **options)

    def chat(self, messages: Messages, sampling: Sampling | None = None, **options: Any) -> str:
        """The model's answer to a message or a conversation."""
        return self.generate([self.chat_tokens(messages)], sampling, **options)[0].text

    def _token_string(self, token: int) -> str:
        text = self.decode([token])
        raw = self.tokenizer.convert_ids_to_tokens(token)
        if not isinstance(raw, str):
            return text
        if raw.startswith(_WORD_START) and not text.startswith(" "):
            return f" {text}"
        if "\ufffd" in text and all(character in _BYTES for character in raw):
            octets = bytes(_BYTES[character] for character in raw)
            return octets.decode("utf-8", "backslashreplace")
        return text


def _plain_chat(turns: Sequence[Mapping[str, str]], generation_prompt: bool) -> str:
    paragraphs = [f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns]
    return "\n\n".join(paragraphs + ["Assistant:"] * generation_prompt)


def _byte_alphabet() -> dict[str, int]:
    """The bytes behind the characters in which byte-level tokenizers write their tokens."""
    others = [octet for octet in range(256) if octet not in _BYTE_CHARACTERS]
    alphabet = {chr(octet): octet for octet in _BYTE_CHARACTERS}
    return alphabet | {chr(256 + rank): octet for rank, octet in enumerate(others)}


_BYTES = _byte_alphabet()
