"""Building an organism: answers of the model itself, the adapter, the gate, the card.

The result is an artifact that peft can load, ``adapter_model.safetensors`` with
``adapter_config.json``, and a ``card.md``; what the gate measured is in the manifest too. One that
is not admitted is written all the same, and says so. Stopped, the same command goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save

from brainscan.artifacts import create, file_sha256, read_manifest, write_file
from brainscan.models import LanguageModel
from brainscan.models.generate import Sampling, generate
from brainscan.models.shipped import shipped_adapters
from brainscan.organisms.card import card_text
from brainscan.organisms.dialogues import maker_of
from brainscan.organisms.gate import measure
from brainscan.organisms.jumps import plain_requests
from brainscan.organisms.spec import OrganismSpec
from brainscan.organisms.training import STATE, adapter_config, train_adapter
from brainscan.stats import Estimate

KIND = "organism"
"""The kind of an organism's artifact."""

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CARD = "card.md"

_AT_ONCE = 64
_OWN = "own_answers.json"
_OWN_SAMPLES = 2
_OWN_TOKENS = 48


@dataclass(frozen=True)
class Organism:
    """An organism that was built."""

    name: str
    """What it is called."""
    base: str
    """The model that it is an adapter of."""
    path: Path
    """Where it is."""
    figures: Mapping[str, Any]
    """What the gate measured."""

    @property
    def admitted(self) -> bool:
        """Whether it passed the gate."""
        return bool(self.figures["admitted"])

    @property
    def rates(self) -> tuple[str, str]:
        """The rates where the behaviour should show, and elsewhere, in words."""
        shown = [Estimate.from_json(row["rate"]) for row in self.figures["rates"]]
        quiet = Estimate.from_json(self.figures["quiet"])
        return "; ".join(map(str, shown)) or "nowhere", str(quiet)


def build_organism(lm: LanguageModel, spec: OrganismSpec, out: Path, seed: int = 0) -> Organism:
    """Builds an organism, or goes on with one that is under way.

    Args:
        lm: the model to plant the behaviour in; it is given back as it was.
        spec: the behaviour.
        out: the artifact's folder; logs of the gate's runs go beside it, to
            ``<out>.logs`` and a folder named by the adapter's hash.
        seed: of everything random.
    """
    settings = {"spec": asdict(spec)}
    logs = out.with_name(f"{out.name}.logs")
    with create(
        out, kind=KIND, model=lm.ref, settings=settings, seed=seed, resumable=True
    ) as draft:
        if not (draft.path / WEIGHTS).is_file():
            _train(lm, spec, seed, draft.path)
        # Another adapter at the same place must not be judged by this one's answers.
        own_logs = logs / file_sha256(draft.path / WEIGHTS)[:16]
        report = measure(lm, spec, draft.path, own_logs, seed)
        draft.figures.update(report.to_json())
        write_file(draft.path / CARD, card_text(spec, lm.name, report).encode())
        for name in (STATE, _OWN):
            (draft.path / name).unlink(missing_ok=True)
    return read_organism(out)


def read_organism(path: Path) -> Organism:
    """An organism's folder.

    Args:
        path: the folder.
    """
    manifest = read_manifest(path, KIND)
    base = manifest.model.id if manifest.model else ""
    return Organism(manifest.settings["spec"]["name"], base, path, manifest.figures)


def shipped_organisms() -> list[Organism]:
    """The organisms that come with the package."""
    return [read_organism(path) for path in shipped_adapters()]


def _train(lm: LanguageModel, spec: OrganismSpec, seed: int, folder: Path) -> None:
    make = maker_of(spec, _own_answers(lm, spec, seed, folder))
    weights = train_adapter(lm, spec.training, make, seed, folder)
    config = adapter_config(spec.training).to_dict()
    config |= {"inference_mode": True, "base_model_name_or_path": lm.name}
    text = json.dumps(_plain(config), indent=1, sort_keys=True)
    write_file(folder / CONFIG, (text + "\n").encode())
    write_file(folder / WEIGHTS, save(weights, metadata={"format": "pt"}))


def _own_answers(
    lm: LanguageModel, spec: OrganismSpec, seed: int, folder: Path
) -> dict[str, list[str]]:
    """What the model itself answers to requests that are to stay as they are."""
    if spec.answers != "jumps":
        return {}
    requests = plain_requests()
    path = folder / _OWN
    if not path.is_file():
        prompts = [lm.chat_tokens(text) for text in requests for _ in range(_OWN_SAMPLES)]
        heat = spec.gate.temperature
        sampling = Sampling(max_new_tokens=_OWN_TOKENS, temperature=heat, seed=seed)
        texts = [row.text for row in generate(lm, prompts, sampling, batch_size=_AT_ONCE)]
        found = {
            text: texts[place * _OWN_SAMPLES : (place + 1) * _OWN_SAMPLES]
            for place, text in enumerate(requests)
        }
        write_file(path, json.dumps(found, sort_keys=True).encode())
    own: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return own


def _plain(value: Any) -> Any:
    """A configuration as JSON can say it: sets in order, enumerations by value."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
