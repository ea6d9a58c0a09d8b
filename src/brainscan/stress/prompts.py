"""From a scenario, a persona-wording and a condition to the messages that the model gets.

Each slot is filled with the text of its level, in the persona's phrasing, and with a filler that
brings all levels to the same number of tokens (`twins`). Nothing may be left of any placeholder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from brainscan.errors import UsageError
from brainscan.stress.matrix import Condition
from brainscan.stress.scenarios import Form, Letter, Persona, Scenario, fillers

_SLOT = re.compile(r"<<(\w+)>>")
_NAME = re.compile(r"\{(\w+)\}")
_LEFT = re.compile(r"<<\w*>>|\{\w*\}")


@dataclass(frozen=True)
class StressPrompt:
    """What the model gets."""

    system: str
    """The system message; empty where there is none."""
    user: str
    """The user's message."""

    @property
    def messages(self) -> list[dict[str, str]]:
        """Both, as a chat."""
        told = [("system", self.system), ("user", self.user)]
        return [{"role": role, "content": content} for role, content in told if content]

    @property
    def digest(self) -> str:
        """A hash of both."""
        return hashlib.sha256(json.dumps([self.system, self.user]).encode()).hexdigest()


def stress_prompt(
    scenario: Scenario,
    persona: Persona,
    condition: Condition,
    form: Form = "short",
    fill: Mapping[str, Mapping[str, str]] | None = None,
) -> StressPrompt:
    """Puts a condition into words.

    Args:
        scenario: the scenario.
        persona: the persona-wording.
        condition: a level for each factor.
        form: short or long.
        fill: fillers by factor and level; ours when left out, and none where we have none.

    Raises:
        UsageError: a placeholder is left over.
    """
    if fill is None:
        fill = fillers().get(scenario.name, {}).get(form, {}).get(persona.id, {})
    frame = scenario.frames[form]
    texts = {
        factor: slot_text(scenario, persona, factor, condition[factor])
        + fill.get(factor, {}).get(condition[factor], "")
        for factor in scenario.factors
    }
    names = persona.names
    actions = "\n".join(scenario.shapes[action] for action in scenario.actions)
    letters = list(_letters(scenario, persona, frame.ordinary))
    inbox = [
        _filled(
            frame.letter,
            {
                "number": str(number),
                "from": _filled(letter.sender, names),
                "to": _filled(letter.to, names),
                "subject": _filled(letter.subject, names),
                "body": texts[letter.slot] if letter.slot else _filled(letter.body, names),
            },
        )
        for number, letter in enumerate(letters, start=1)
    ]
    names |= {"actions": actions, "inbox": "\n\n".join(inbox)}
    system = _SLOT.sub(lambda match: texts.get(match[1], match[0]), _filled(frame.system, names))
    return StressPrompt(_whole(system), _whole(_filled(frame.user, names)))


def slot_text(scenario: Scenario, persona: Persona, factor: str, level: str) -> str:
    """The text of a level in the persona's phrasing, without filler."""
    phrasings = scenario.slots[factor][level]
    return _filled(phrasings[persona.wording % len(phrasings)], persona.names)


def letter_numbers(scenario: Scenario, persona: Persona, form: Form = "short") -> list[int]:
    """The numbers that the scenario's own letters have in the inbox, in their order.

    Args:
        scenario: the scenario.
        persona: the persona-wording.
        form: short or long.
    """
    letters = list(_letters(scenario, persona, scenario.frames[form].ordinary))
    return [letters.index(letter) + 1 for letter in scenario.inbox]


def _letters(scenario: Scenario, persona: Persona, ordinary: int) -> Iterator[Letter]:
    """The letters that matter, with everyday ones before, between and after them."""
    turn = int(hashlib.sha256(persona.id.encode()).hexdigest(), 16) % max(1, len(scenario.ordinary))
    everyday = [*scenario.ordinary[turn:], *scenario.ordinary[:turn]][:ordinary]
    share, spare = divmod(len(everyday), len(scenario.inbox) + 1)
    for number, letter in enumerate((*scenario.inbox, None)):
        take = share + (number < spare)
        yield from everyday[:take]
        del everyday[:take]
        if letter is not None:
            yield letter


def _filled(text: str, names: Mapping[str, str]) -> str:
    return _NAME.sub(lambda match: names.get(match[1], match[0]), text)


def _whole(text: str) -> str:
    left = _LEFT.search(text)
    if left:
        raise UsageError(
            "every placeholder of the scenario filled", f"'{left[0]}' left over", "name it rightly"
        )
    return text
