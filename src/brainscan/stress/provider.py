r"""An Inspect model provider: any task on a local model, with edits and capture.

    inspect eval TASK --model brainscan/smollm2-135m-instruct \
        -M edits=FOLDER -M capture=resid_post.15

After the provider's name comes whatever `brainscan.load` takes. Model arguments:

    edits    an edit as `steer` takes it, a folder of saved edits or its manifest.json, or a list
    capture  hookpoints whose activations are kept, with the edits' changes
    store    where calls are recorded; default: the folder `brainscan` beside the log
    device, dtype, batch

1. Messages and tools become tokens by the model's own template (`tool_calls`).
2. Requests of all samples run in one engine, which batches them and runs prompts once (`engine`).
3. A row's noise comes from the seed, the sample, its epoch and the turn. So epochs differ, a sample
   that is run again draws the same, and two models or edits differ by what they are alone.
4. Each call's tokens and activations go into a file keyed by the sample's uuid; the answer's
   metadata names it with its hash (`recordings`).

Inspect makes a provider several times in a run: it loads nothing itself, and all those of one model
share its engine.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlparse
from uuid import uuid4

from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelCall,
    ModelInfo,
    ModelOutput,
    get_model,
    set_model_info,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from brainscan.artifacts import cache_dir
from brainscan.errors import UsageError
from brainscan.models.generate import Generation
from brainscan.stress.engine import BATCH, Engine, Request
from brainscan.stress.recordings import FOLDER, read_recording, write_recording
from brainscan.stress.responses import MAX_TOKENS, model_output, sampling_of, warn_of_ignored
from brainscan.stress.tool_calls import as_turns, describe_tools, in_words, tool_schemas

if TYPE_CHECKING:
    from brainscan.interventions import Edit
    from brainscan.models import LanguageModel

ARGUMENTS = ("edits", "capture", "store", "device", "dtype", "batch")
"""The model arguments there are."""

_engines: dict[tuple[Any, ...], Engine] = {}


class Caller(NamedTuple):
    """The sample on whose behalf a call is made."""

    uuid: str
    sample: str
    epoch: int
    log: str


class BrainscanAPI(ModelAPI):
    """``brainscan/NAME`` for Inspect."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (Inspect's own default)
        **arguments: Any,
    ) -> None:
        """Checks the arguments; the model is loaded at the first call."""
        super().__init__(model_name, base_url, api_key, [], config)
        unknown = [name for name in arguments if name not in ARGUMENTS]
        if unknown:
            raise UsageError(
                f"model arguments among {', '.join(ARGUMENTS)}",
                ", ".join(unknown),
                "change what follows -M",
            )
        self.edit_lines = _listed(arguments.get("edits"))
        self.capture = tuple(_listed(arguments.get("capture")))
        self.store = arguments.get("store")
        where = (arguments.get("device"), arguments.get("dtype"))
        batch = int(arguments.get("batch", BATCH))
        key = (model_name, *where, batch)
        self.engine = _engines.setdefault(key, Engine(lambda: _load(model_name, *where), batch))
        self._edits: tuple[Edit, ...] | None = None
        self._alike: Counter[str] = Counter()
        set_model_info(f"brainscan/{model_name}", ModelInfo(organization="brainscan"))

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput | tuple[ModelOutput | Exception, ModelCall]:
        """The model's answer to messages."""
        caller = _caller()
        lm, edits = await asyncio.to_thread(self._ready)
        warn_of_ignored(config)
        offered = [] if tool_choice == "none" else tools
        prompt = render(lm, input, offered)
        window = lm.context_window
        sampling = sampling_of(lm, config)
        requests = [
            Request(
                prompt=tuple(prompt),
                sampling=sampling,
                seed=self._seed(config.seed or 0, caller, len(input), choice, prompt),
                edits=edits,
                keep=self.capture,
                logprobs=bool(config.logprobs),
                alternatives=(config.top_logprobs or 0) if config.logprobs else 0,
            )
            for choice in range(config.num_choices or 1)
        ]
        if window is not None and len(prompt) >= window:
            made = [Generation(prompt, [], "", "length", None) for _ in requests]
        else:
            made = await asyncio.gather(*(self.engine.answer(request) for request in requests))
        records = [
            await asyncio.to_thread(self._record, lm, request, one, caller)
            for request, one in zip(requests, made, strict=True)
        ]
        output = model_output(lm, self.model_name, offered, sampling, made)
        output.metadata = {"brainscan": records[0] if len(records) == 1 else records}
        return output

    def max_tokens(self) -> int:
        """The most tokens of an answer where the task says nothing."""
        return MAX_TOKENS

    def max_connections(self) -> int:
        """As many requests at once as make a batch."""
        return self.engine.batch

    def connection_key(self) -> str:
        """Requests of one model wait in one line."""
        return self.model_name

    async def tokenize(self, text: str) -> list[int]:
        """The text's tokens, by the model's own tokenizer."""
        lm, _ = await asyncio.to_thread(self._ready)
        return lm.tokenize(text)

    async def count_text_tokens(self, text: str) -> int:
        """The text's number of tokens."""
        return len(await self.tokenize(text))

    async def count_tokens(
        self, input: str | list[ChatMessage], config: GenerateConfig | None = None
    ) -> int:
        """The number of tokens of a text, or of messages by the model's template."""
        if isinstance(input, str):
            return await self.count_text_tokens(input)
        lm, _ = await asyncio.to_thread(self._ready)
        return len(render(lm, input, []))

    def _ready(self) -> tuple[LanguageModel, tuple[Edit, ...]]:
        """The model and the edits, loaded when first asked for."""
        lm = self.engine.lm
        if self._edits is None:
            self._edits = _read_edits(self.edit_lines)
            for name in self.capture:
                lm.resolve(name)
            for edit in self._edits:
                edit.attach(lm)
        return lm, self._edits

    def _seed(
        self, seed: int, caller: Caller | None, turn: int, choice: int, prompt: Sequence[int]
    ) -> int:
        """The seed of a row's noise; alike calls outside of any sample are counted."""
        if caller is not None:
            what = [seed, caller.sample, caller.epoch, turn, choice]
        else:
            digest = hashlib.sha256(json.dumps(list(prompt)).encode()).hexdigest()
            what = [seed, digest, self._alike[digest]]
            self._alike[digest] += 1
        return int.from_bytes(hashlib.sha256(json.dumps(what).encode()).digest()[:7])

    def _record(
        self, lm: LanguageModel, request: Request, made: Generation, caller: Caller | None
    ) -> dict[str, Any]:
        """Writes a call down; returns what the log is to say of it."""
        call = uuid4().hex
        place = Path(self.store).absolute() if self.store else _beside(caller)
        told: dict[str, Any] = {
            "call": call,
            "seed": request.seed,
            "edits": self.edit_lines,
            "prompt_tokens": len(made.prompt_tokens),
            "response_tokens": len(made.tokens),
        }
        if place is None:
            return told
        path = place / (caller.uuid if caller else "no-sample") / f"{call}.safetensors"
        facts = {
            "model": lm.name,
            "weights": lm.ref.weights,
            "seed": str(request.seed),
            "edits": json.dumps(self.edit_lines),
            "temperature": str(request.sampling.temperature),
            "top_p": str(request.sampling.top_p),
            "top_k": str(request.sampling.top_k),
            "max_new_tokens": str(request.sampling.max_new_tokens),
            "dtype": str(lm.dtype).removeprefix("torch."),
            "sample": caller.sample if caller else "",
            "epoch": str(caller.epoch) if caller else "",
        }
        sha256 = write_recording(path, made, facts)
        if not self.store and place.name == FOLDER:
            path = path.relative_to(place.parent)
        return {**told, "path": str(path), "sha256": sha256, "hookpoints": list(made.activations)}


def render(
    lm: LanguageModel, messages: Sequence[ChatMessage], tools: Sequence[ToolInfo]
) -> list[int]:
    """The tokens of messages and tools by the model's template.

    Args:
        lm: the model.
        messages: Inspect's messages.
        tools: the tools the model may call.
    """
    turns = as_turns(messages)
    if "tools" in (lm.tokenizer.chat_template or ""):
        return lm.chat_tokens(turns, tools=tool_schemas(tools))
    return lm.chat_tokens(in_words(turns, describe_tools(tools) if tools else ""))


def _caller() -> Caller | None:
    """The sample that Inspect is running in this task; None outside of an evaluation."""
    try:
        from inspect_ai.log._samples import sample_active

        active = sample_active()
        if active is None:
            return None
        return Caller(
            str(active.sample_uuid),
            str(active.sample.id),
            int(active.epoch),
            str(active.log_location),
        )
    except (ImportError, AttributeError) as error:  # a private place, which may move
        warnings.warn(
            f"this Inspect does not say which sample runs ({error}): calls are not recorded, and "
            "noise hangs on the prompt; install a version that constraints.txt names",
            stacklevel=2,
        )
        return None


def recorded_response(output: ModelOutput) -> tuple[LanguageModel, list[int]] | None:
    """The running sample's model and the tokens of its answer; None where they are not recorded.

    Args:
        output: what the model answered.
    """
    note, caller = (output.metadata or {}).get("brainscan"), _caller()
    if caller is None or not isinstance(note, Mapping) or "path" not in note:
        return None
    api, place = get_model().api, _beside(caller)
    path = Path(note["path"]) if place is None else place.parent / note["path"]
    if not isinstance(api, BrainscanAPI) or not path.is_file():
        return None
    return api.engine.lm, read_recording(path).response.tolist()


def _beside(caller: Caller | None) -> Path | None:
    """The folder of recordings beside the sample's log; in the cache for a log elsewhere."""
    if caller is None:
        return None
    where = urlparse(caller.log)
    if where.scheme in ("", "file"):
        return Path(unquote(where.path) if where.scheme else caller.log).parent / FOLDER
    return cache_dir() / "recordings"


def _listed(value: Any) -> list[str]:
    """One value, several parted by commas as Inspect's command line gives them, or none."""
    if value is None:
        return []
    if isinstance(value, Mapping) or not isinstance(value, str | Path | Sequence):
        raise UsageError("a text or a list of texts", repr(value), "change what follows -M")
    return [str(value)] if isinstance(value, str | Path) else [str(one) for one in value]


def _read_edits(lines: Sequence[str]) -> tuple[Edit, ...]:
    from brainscan.interventions import load_edits, parse_edit

    edits: list[Edit] = []
    for line in lines:
        path = Path(line)
        if path.is_file():  # one of the files of a folder of saved edits, such as its manifest
            path = path.parent
        edits.extend(load_edits(path) if path.is_dir() else [parse_edit(line)])
    return tuple(edits)


def _load(name: str, device: str | None, dtype: str | None) -> LanguageModel:
    from brainscan.models import load

    return load(name, device=device, dtype=dtype)
