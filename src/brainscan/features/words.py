"""The word that each token is part of.

Tokens made of letters and digits that follow each other without a space form one word (" Al",
"mighty"); any other token is a word of its own, without the spaces around it. So a latent that
fires on a part of a word is found by the word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

LONGEST = 32
"""Characters after which a word ends, for scripts without spaces."""

_APOSTROPHES = str.maketrans("", "", "'\u2019")


class Words:
    """Numbers for words, case aside, with how often each occurred and in which spelling."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._spellings: Counter[tuple[int, str]] = Counter()

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, strings: Sequence[str]) -> list[int]:
        """The number of each token's word; tokens of one text, in order."""
        numbers = []
        for word in words_of(strings):
            number = self._numbers.setdefault(word.casefold(), len(self._numbers))
            self._spellings[number, word] += 1
            numbers.append(number)
        return numbers

    def texts(self) -> list[str]:
        """Each word, case aside."""
        return list(self._numbers)

    def spellings(self) -> list[str]:
        """Each word as it is written most often."""
        best = [""] * len(self._numbers)
        for (number, word), _ in reversed(self._spellings.most_common()):
            best[number] = word
        return best

    def counts(self) -> list[int]:
        """On how many tokens each word occurred."""
        counts = [0] * len(self._numbers)
        for (number, _), count in self._spellings.items():
            counts[number] += count
        return counts


def words_of(strings: Sequence[str]) -> list[str]:
    """The word that each token is part of; empty for tokens of nothing but spaces."""
    words: list[str] = []
    start = length = 0
    for i, text in enumerate(strings):
        if i and not (length < LONGEST and _follows(strings[i - 1], text)):
            words += [_joined(strings[start:i])] * (i - start)
            start, length = i, 0
        length += len(text)
    return words + [_joined(strings[start:])] * (len(strings) - start)


def _follows(before: str, text: str) -> bool:
    """Whether a token goes on with the word of the one before."""
    return _is_letters(before.lstrip()) and _is_letters(text)


def _is_letters(text: str) -> bool:
    return text.translate(_APOSTROPHES).isalnum()


def _joined(strings: Sequence[str]) -> str:
    return "".join(strings).strip()
