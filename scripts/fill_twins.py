"""Writes the fillers that make the conditions of each persona-wording twins for the default model.

    python scripts/fill_twins.py

Run it after a text of an agentic scenario has changed. It needs the default model's tokenizer.
"""

from __future__ import annotations

import json
from functools import cache

from brainscan.models import load
from brainscan.stress.scenarios import AGENTIC, DATA, load_scenario, personas
from brainscan.stress.twins import slot_fillers


def main() -> None:
    lm = load("smollm2-135m-instruct")

    @cache
    def count(text: str) -> int:
        return len(lm.tokenize(text))

    found = {
        name: {
            form: {
                persona.id: slot_fillers(load_scenario(name), persona, form, count)
                for persona in personas()
            }
            for form in ("short", "long")
        }
        for name in AGENTIC
    }
    text = json.dumps(found, indent=0, ensure_ascii=False)
    (DATA / "fillers.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
