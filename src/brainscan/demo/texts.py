"""The demo's own texts: a passage to scan, a concept, and prompts that have nothing to do with it.

The concept's words were written down before any latent was looked at, so that how often an answer
speaks of the concept is counted the same way for every arm. Prompts for choosing the latent and
its strength are never used for judging it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PASSAGE = (
    "Before sunrise the harbour smelled of salt and fresh bread. Marta counted the crates, signed "
    "the form for the bank, and watched the last boat leave for the open sea. Her brother, a "
    "doctor in the city, had called about money again. She wrote one line of Python to add up the "
    "month: sales minus fuel. The number was small, but the soup on the stove was hot, the engine "
    "was new, and for the first time since the war she felt certain that the winter would be kind."
)


@dataclass(frozen=True)
class Concept:
    """Something an answer can be about."""

    name: str
    """What it is called in the report."""
    query: str
    """What is searched for in the atlas."""
    words: tuple[str, ...]
    """An answer that holds one of these, in whole and in any case, speaks of the concept."""
    request: str
    """What is added to a prompt to ask for the concept in words."""

    def mentioned(self, text: str) -> bool:
        """Whether the text speaks of the concept."""
        words = "|".join(re.escape(word) for word in self.words)
        return re.search(rf"\b(?:{words})\b", text, re.IGNORECASE) is not None

    @classmethod
    def from_query(cls, query: str) -> Concept:
        """A concept of the user's: its words are those of the query and their plurals."""
        words = [word.lower() for word in re.findall(r"\w+", query)]
        plurals = [word + "s" for word in words if not word.endswith("s")]
        return cls(query, query, (*words, *plurals), f"Speak of this as well: {query}.")


FOOD = Concept(
    name="food",
    query="food eat cook dinner",
    words=(
        *("food", "foods", "eat", "eats", "eating", "ate", "cook", "cooks", "cooking", "cooked"),
        *("dinner", "lunch", "breakfast", "meal", "meals", "recipe", "recipes", "delicious"),
        *("tasty", "restaurant", "restaurants", "kitchen", "bread", "soup", "cheese", "meat"),
        *("fruit", "fruits", "vegetable", "vegetables", "hungry", "snack", "snacks", "dish"),
    ),
    request="Make your answer about food.",
)
"""Of ten concepts tried on the prompts for choosing, one of the three that worked best."""

CHOOSING_PROMPTS = (
    "Describe your morning.",
    "Write two sentences about a friend.",
    "What do you like to talk about?",
    "Tell me a short story.",
    "What makes a good teacher?",
    "Describe a room you know.",
    "What would you do with a free day?",
    "Write a short note to a neighbour.",
)

JUDGING_PROMPTS = (
    "Describe your day.",
    "Write two sentences about a house.",
    "What is on your mind?",
    "Tell me something interesting.",
    "What makes a good friend?",
    "Describe a person you admire.",
    "What would you like to learn?",
    "Write a short letter to a cousin.",
    "Give me some advice.",
    "Tell me about a memory.",
    "What did you do last weekend?",
    "Write the first lines of a novel.",
    "What makes people happy?",
    "Describe a perfect evening.",
    "Tell me about a dream.",
    "What should I do tomorrow?",
)
