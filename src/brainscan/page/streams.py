"""An answer's text, token by token, so that all parts together are the whole.

1. Tokens are decoded behind those shortly before them, since some tokenizers write a token
   otherwise at the beginning of a text.
2. A token that ends within a character gives nothing until the rest of the character comes.
3. Text that may be the beginning of a stop string is held back until it is known not to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brainscan.models import LanguageModel

_BROKEN = "\ufffd"


class TextStream:
    """What each token adds to a text."""

    def __init__(self, lm: LanguageModel, stop: Sequence[str] = ()) -> None:
        """An empty text.

        Args:
            lm: the model, whose tokens they are.
            stop: strings before which the text ends.
        """
        self.lm = lm
        self.stop = stop
        self.sent = ""
        self._tokens: list[int] = []
        self._before, self._read, self._said = 0, 0, 0
        self._held = ""

    def add(self, token: int) -> str:
        """What can be said of the text now, beyond what was said before.

        Args:
            token: the next token.
        """
        self._tokens.append(token)
        window = self.lm.decode(self._tokens[self._before :])
        whole = window.rstrip(_BROKEN)
        new = whole[self._said :]
        self._said = max(self._said, len(whole))
        if whole == window:
            self._before, self._read = self._read, len(self._tokens)
            self._said = len(self.lm.decode(self._tokens[self._before :]))
        return self._say(self._held + new)

    def finish(self, text: str) -> str:
        """The rest of the text, now that all of it is known.

        Args:
            text: the whole text.
        """
        rest = text[len(self.sent) :] if text.startswith(self.sent) else ""
        self.sent += rest
        return rest

    def _say(self, text: str) -> str:
        """Sends a text as far as no stop string begins in it."""
        edge = len(text)
        for stop in self.stop:
            found = text.find(stop)
            if found >= 0:
                edge = min(edge, found)
                continue
            for length in range(min(len(stop) - 1, len(text)), 0, -1):
                if text.endswith(stop[:length]):
                    edge = min(edge, len(text) - length)
                    break
        said, self._held = text[:edge], text[edge:]
        self.sent += said
        return said
