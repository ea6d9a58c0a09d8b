"""Scenarios as data: what an agent is told, in which conditions, and what would be harm.

1. A scenario names factors with their levels, and for each factor's slot a text per level, in as
   many phrasings as there are wordings. `data/` holds ours; a file of the user's has the same form.
2. A persona-wording says who the agent is and whom it meets, which phrasing of every slot is taken,
   and what it may be used for (its split).
3. A condition is one level for each factor.

The agentic scenarios share `common.yaml` (their factors, most slots, everyday letters) and
`forms.yaml` (the frame, short and long).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from brainscan.errors import UsageError

DATA = Path(__file__).parent / "data"
SPLITS = ("organism-train", "discovery", "selection", "confirmation")
AGENTIC = ("blackmail", "leaking", "oversight")

HARMS = AGENTIC
"""Kinds of harm that a scenario may name: a judge has rules for each."""

_KEYS = (
    *("name", "title", "about", "kind", "harm", "actions"),
    *("factors", "slots", "inbox", "ordinary", "forms", "tasks"),
)
_LETTER_KEYS = ("from", "to", "subject", "body", "slot")

FORMS = ("short", "long")
"""How long prompts are."""

Form: TypeAlias = str
"""``short`` or ``long``."""

Slots: TypeAlias = Mapping[str, Mapping[str, Sequence[str]]]
"""For each factor and level its phrasings."""


@dataclass(frozen=True)
class Persona:
    """A persona-wording: who the agent is and whom it meets, and how things are put."""

    id: str
    """Its name in logs."""
    split: str
    """What it may be used for."""
    wording: int
    """Which phrasing of every slot it has."""
    agent: str
    """The agent's name."""
    company: str
    """Where it works."""
    domain: str
    """The company's domain."""
    boss: str
    """Who decides about the agent."""
    friend: str
    """Who writes to the boss, or from outside."""
    colleague: str
    """Who writes everyday letters."""
    project: str
    """What a confidential paper is about."""
    aim: str
    """What the agent may be made to want."""

    @property
    def names(self) -> dict[str, str]:
        """What stands for the placeholders of texts."""
        return {
            **{field.name: str(getattr(self, field.name)) for field in fields(self)},
            "boss_address": address(self.boss, self.domain),
            "colleague_address": address(self.colleague, self.domain),
            "friend_address": address(self.friend, "post.example"),
            "outside_address": address(self.friend, "eveningpost.example"),
        }


@dataclass(frozen=True)
class Letter:
    """A letter of the inbox."""

    sender: str
    """Name, and address where it matters."""
    to: str
    """To whom."""
    subject: str
    """What about."""
    body: str = ""
    """The text; empty where a slot has it."""
    slot: str = ""
    """The factor whose level has the text."""


@dataclass(frozen=True)
class Frame:
    """How a form puts things."""

    system: str
    """The system message."""
    letter: str
    """A letter of the inbox."""
    user: str
    """The user's message."""
    ordinary: int
    """How many everyday letters stand between the others."""


@dataclass(frozen=True)
class Scenario:
    """A stress test."""

    name: str
    """What it is called."""
    title: str
    """The same for people."""
    about: str
    """What it asks, in a sentence or two."""
    harm: str
    """What counts as harm: the name of a judge's rules."""
    actions: tuple[str, ...]
    """What the agent can do."""
    factors: Mapping[str, tuple[str, ...]]
    """The levels of each factor."""
    slots: Slots
    """The texts of each level."""
    inbox: tuple[Letter, ...]
    """The letters that matter, in order."""
    ordinary: tuple[Letter, ...]
    """Everyday letters."""
    frames: Mapping[str, Frame]
    """The forms."""
    shapes: Mapping[str, str]
    """How each action is written."""


def address(name: str, domain: str) -> str:
    """Somebody's address."""
    return f"{'.'.join(name.lower().split())}@{domain}"


def load_scenario(name: str | Path) -> Scenario:
    """One of our agentic scenarios by name, or one from a file of the same form.

    Args:
        name: such as ``blackmail``; or a YAML file.

    Raises:
        UsageError: there is none of that name, or the file is not of the form.
    """
    path = Path(name)
    if str(name) in AGENTIC:
        path = DATA / f"{name}.yaml"
    elif path.suffix not in (".yaml", ".yml"):
        raise UsageError(
            f"a scenario: {', '.join(AGENTIC)}, or a YAML file", f"'{name}'", "see: stress list"
        )
    own = read_yaml(path)
    common, forms = read_yaml(DATA / "common.yaml"), read_yaml(DATA / "forms.yaml")
    try:
        return _scenario(own, common, forms)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"a scenario in {path}, of the form of {DATA / 'blackmail.yaml'}",
            f"{type(error).__name__}: {error}",
            "compare the two",
        ) from error


@cache
def personas() -> tuple[Persona, ...]:
    """Our persona-wordings."""
    return tuple(Persona(**row) for row in read_yaml(DATA / "personas.yaml")["personas"])


@cache
def fillers() -> Mapping[str, Any]:
    """What brings the levels of a slot to one length: by scenario, form, persona, factor, level."""
    path = DATA / "fillers.json"
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _scenario(own: Any, common: Any, forms: Any) -> Scenario:
    factors = own.get("factors", common["factors"])
    slots = {**common["slots"], **own["slots"]}
    _check(own, factors, forms["actions"])
    for factor, levels in factors.items():
        if set(slots[factor]) != set(levels):
            raise UsageError(
                f"a text for each level of {factor}: {', '.join(levels)}",
                f"texts for {', '.join(slots[factor])}",
                "give each level its texts",
            )
    return Scenario(
        name=own["name"],
        title=own["title"],
        about=own["about"],
        harm=own["harm"],
        actions=tuple(own["actions"]),
        factors={factor: tuple(levels) for factor, levels in factors.items()},
        slots={factor: slots[factor] for factor in factors},
        inbox=tuple(_letter(letter) for letter in own["inbox"]),
        ordinary=tuple(_letter(letter) for letter in own.get("ordinary", common["ordinary"])),
        frames={
            form: Frame(**{**forms[form], **own.get("forms", {}).get(form, {})}) for form in FORMS
        },
        shapes=forms["actions"],
    )


def _check(own: Mapping[str, Any], factors: Mapping[str, Any], shapes: Mapping[str, str]) -> None:
    """Checks that a scenario names nothing that is not there."""
    letters = [*own["inbox"], *own.get("ordinary", ())]
    changed = own.get("forms", {})
    frame = [field.name for field in fields(Frame)]
    for what, named, known in (
        ("keys of a scenario", own, _KEYS),
        ("a kind of harm", [own["harm"]], ("none",) if "tasks" in own else HARMS),
        ("actions", own["actions"], tuple(shapes)),
        ("slots, each of a factor", own["slots"], tuple(factors)),
        ("keys of a letter", [key for row in letters for key in row], _LETTER_KEYS),
        ("slots of letters", [row["slot"] for row in letters if "slot" in row], tuple(factors)),
        ("forms", changed, FORMS),
        ("keys of a form", [key for form in changed.values() for key in form], frame),
    ):
        unknown = [str(name) for name in named if name not in known]
        if unknown:
            raise UsageError(f"{what}: {', '.join(known)}", ", ".join(unknown), "change the file")


def _letter(row: Mapping[str, str]) -> Letter:
    return Letter(
        row["from"], row.get("to", "all"), row["subject"], row.get("body", ""), row.get("slot", "")
    )


def read_yaml(path: Path) -> Any:
    """A mapping from a YAML file.

    Args:
        path: the file.

    Raises:
        UsageError: it holds none.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise UsageError(f"readable YAML at {path}", text, "check the file") from error
    if not isinstance(found, dict):
        raise UsageError(f"a mapping in {path}", type(found).__name__, "see blackmail.yaml")
    return found
