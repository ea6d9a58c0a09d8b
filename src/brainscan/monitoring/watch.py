"""Watching a row as the model reads and writes it.

A `Watch` is an intervention that changes nothing. It reads each token at the detectors' hookpoints
as it passes, and knows the token's log-odds before the next token is drawn. When an alarm is
raised, edits that were given to it act from then on: in the layers above on the token itself, in
those below from the next token on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from brainscan.errors import UsageError
from brainscan.interventions.sinks import sinks_at
from brainscan.models import Hook, Intervention, LanguageModel, Site
from brainscan.models.families import order
from brainscan.monitoring.jumps import Alarm, Jumps, asked_for, risks_of
from brainscan.monitoring.roles import ASSISTANT, TEMPLATE, message_numbers
from brainscan.monitoring.scores import Detectors, Follower
from brainscan.shapes import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Watch:
    """Follows one row; an intervention of its own for each row.

    Attributes:
        scores: the log-odds of each token read so far, by concept; not numbers for the template's.
        jumps: the rule's statistic after each of them; not a number outside of the answer.
        alarms: those raised in this answer so far.
    """

    acts_on_prompt = True

    def __init__(
        self,
        detectors: Detectors,
        roles: Sequence[str],
        on_alarm: Sequence[Intervention] = (),
    ) -> None:
        """Nothing is read yet.

        Args:
            detectors: what is looked for.
            roles: the role of each of the prompt's tokens, as `marked_chat` has them: a message is
                a run of one role. What follows is the model's answer.
            on_alarm: what acts once an alarm was raised.
        """
        rule = detectors.rule
        if on_alarm and rule is None:
            raise UsageError(
                "detectors with a rule for jumps", "none", "run `brainscan calibrate` again"
            )
        self.scores: list[NDArray[np.float32]] = []
        self.jumps: list[float] = []
        self._detectors = detectors
        self._roles = list(roles)
        self._messages = message_numbers(self._roles)
        self._follower = Follower(detectors)
        self._jumps = None if rule is None else Jumps(rule, detectors.names)
        self._on_alarm = tuple(on_alarm)
        self._special: frozenset[int] = frozenset()

    @property
    def alarms(self) -> list[Alarm]:
        """The alarms raised in this answer so far; those of answers before it count no more."""
        found = [] if self._jumps is None else self._jumps.alarms
        return [alarm for alarm in found if alarm.token >= len(self._roles)]

    @property
    def risks(self) -> tuple[str, ...]:
        """The dangers that the prompt asked about; these are no jumps."""
        rule, read = self._detectors.rule, min(len(self.scores), len(self._roles))
        if rule is None:
            return ()
        asked = asked_for(
            rule,
            self._detectors.names,
            self.scores[:read],
            self._roles[:read],
            self._messages[:read],
        )
        return risks_of(self._detectors, asked)

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hooks that read, and those of the edits that wait for an alarm."""
        self._special = frozenset(lm.tokenizer.all_special_ids)
        hookpoints = sorted(map(lm.resolve, self._detectors.hookpoints), key=order)
        seen: dict[str, Tensor] = {}

        def reader(hookpoint: str) -> Hook:
            def read(x: Tensor, site: Site) -> Tensor:
                seen[hookpoint] = x
                if hookpoint == hookpoints[-1]:
                    self._read(seen, site)
                return x

            return read

        waiting = [
            (hookpoint, self._once_alarmed(hook))
            for edit in self._on_alarm
            for hookpoint, hook in edit.attach(lm)
        ]
        return [*((name, reader(name)) for name in hookpoints), *waiting]

    def _once_alarmed(self, hook: Hook) -> Hook:
        return lambda x, site: hook(x, site) if self.alarms else x

    @torch.no_grad()
    def _read(self, seen: dict[str, Tensor], site: Site) -> None:
        """Takes in the tokens of a pass, once all hookpoints have seen them."""
        rows = len(site.positions)
        if rows != 1:
            raise UsageError("one row to a watch", f"a batch of {rows}", "make one for each row")
        new = site.positions[0] >= len(self.scores)
        if not new.any():
            return
        sinks = torch.zeros_like(new)
        if site.positions.shape[1] > 1 or site.positions[0, 0] == 0:
            for x in seen.values():
                sinks |= sinks_at(x, site.positions.to(x.device))[0].to(sinks.device)
        raw = self._detectors.raw({name: x[0, new.to(x.device)] for name, x in seen.items()})
        tokens, skipped = site.tokens[0, new].tolist(), sinks[new].tolist()
        for scores, token, sink in zip(raw, tokens, skipped, strict=True):
            self._take(scores, token, sink)

    def _take(self, raw: NDArray[np.float32], token: int, sink: bool) -> None:
        at = len(self.scores)
        if at < len(self._roles):
            role, message = self._roles[at], self._messages[at]
        else:
            role = TEMPLATE if token in self._special else ASSISTANT
            message = len(self._roles)
        z = np.full_like(raw, np.nan) if sink else self._follower.step(raw, role, message)
        self.scores.append(z)
        jump = float("nan")
        if self._jumps is not None:
            role = TEMPLATE if np.isnan(z[0]) else role
            jump = self._jumps.step(raw, role, message)
        self.jumps.append(jump)
