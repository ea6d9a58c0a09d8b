"""``brainscan steer``: an answer with and without edits, and what the edits cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainscan.cli.options import DictionaryName, Html, Json, Model, Seed
from brainscan.cli.output import console, note, print_json, visible, working, write_page
from brainscan.errors import UsageError
from brainscan.progress import progress

if TYPE_CHECKING:
    from brainscan.interventions import Control, Edit, Effects
    from brainscan.models import LanguageModel
    from brainscan.models.generate import Sampling

EXAMPLE = 'Example: brainscan steer "Describe your day." --set resid_post.15/1234=2x --json'

QUICK = 40
"""How many neutral passages and capability items the quick measure of cost takes."""

_WIDE = 90
_COST_WORDS = {
    "kl": "KL from the untouched model, nats per token of neutral text",
    "perplexity_ratio": "perplexity on neutral text, edited over untouched",
    "capability": "capability items answered rightly",
    "capability_baseline": "the same, untouched",
}


class Cost(StrEnum):
    """How thoroughly the cost of the edits is measured."""

    FULL = "full"
    QUICK = "quick"
    NONE = "none"


@dataclass(frozen=True)
class Steered:
    """Three answers to one prompt, and what the edits cost."""

    prompt: str
    """The prompt, as given."""
    model: str
    """The model's name."""
    edits: tuple[str, ...]
    """The edits, in words."""
    answers: tuple[str, str, str]
    """Without edits, with them, and with the control's."""
    control_edits: tuple[str, ...]
    """The control's edits, in words."""
    control: Control
    """The same edits on random features, at equal change of norm."""
    effects: tuple[Effects, Effects] | None
    """The cost of the edits and of the control; None when it was not measured."""
    seed: int
    """Of the sampling and of the control's features."""

    def to_json(self) -> dict[str, Any]:
        """The JSON object that the verb prints."""
        from brainscan.interventions import targets_of

        own, others = self.effects or (None, None)
        drawn = [target for edit in self.control.edits for target in targets_of(edit)]
        return {
            "prompt": self.prompt,
            "model": self.model,
            "edits": list(self.edits),
            "seed": self.seed,
            "baseline": self.answers[0],
            "steered": self.answers[1],
            "effects": own.to_json() if own else None,
            "control": {
                "text": self.answers[2],
                "edits": list(self.control_edits),
                "latents": [target for target in drawn if isinstance(target, str)],
                "change_of_norm": [
                    {"edit": match.change.to_json(), "control": match.control_change.to_json()}
                    for match in self.control.matched
                ],
                **(others.to_json() if others else {}),
            },
        }


Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a feature: ADDRESS=2x (clamp), =0, =*1.5 or =+1x."),
]
OtherEdits = Annotated[
    list[str] | None,
    typer.Option("--edit", help="Another edit: project_out:FILE, add:FILE=0.5, swap:A,B."),
]
SavedEdits = Annotated[Path | None, typer.Option("--edits", help="Edits that --save-edits wrote.")]
SaveEdits = Annotated[
    Path | None, typer.Option("--save-edits", help="Write the edits as an artifact.")
]


def steer(
    prompt: Annotated[str, typer.Argument(help="What the model is asked.")],
    settings: Settings = None,
    edit: OtherEdits = None,
    edits: SavedEdits = None,
    save_edits: SaveEdits = None,
    model: Model = None,
    dictionary: DictionaryName = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Continue the prompt as text instead of a chat.")
    ] = False,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Length of an answer at most.")
    ] = 96,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="0 takes the most probable token.")
    ] = 0.0,
    effects: Annotated[
        Cost,
        typer.Option("--effects", help=f"Cost on all texts, on {QUICK} of each, or not at all."),
    ] = Cost.QUICK,
    seed: Seed = 0,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Answer a prompt with and without edits, side by side, and say what the edits cost.

    Beside them stands a control: the same edits on random features, at equal change of norm. Where
    the control answers like the edit, the edit's effect is not the feature's. The quick measure
    takes a mixed sample of the neutral passages and of the capability items; the full one all 200.
    """
    if not (settings or edit or edits):
        raise UsageError("at least one edit", "none", "give --set, --edit or --edits")
    with working():
        from brainscan.cli.parts import open_edits
        from brainscan.models.generate import Sampling

        lm, chosen = open_edits(model, dictionary, [*(settings or ()), *(edit or ())], edits)
        if save_edits is not None:
            _save(save_edits, chosen, lm)
        ids = [*lm.opening, *lm.tokenize(prompt)] if plain else lm.chat_tokens(prompt)
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        result = _steered(lm, chosen, prompt, ids, sampling, effects)
        if html is not None:
            write_page(html, _page(result))
    if as_json:
        print_json(result.to_json())
    else:
        _print(result)


def _save(folder: Path, edits: Sequence[Edit], lm: LanguageModel) -> None:
    from brainscan.interventions import save_edits

    save_edits(folder, edits, model=lm.ref)
    note(f"edits written to {folder}")


def _steered(
    lm: LanguageModel,
    edits: tuple[Edit, ...],
    prompt: str,
    ids: list[int],
    sampling: Sampling,
    cost: Cost,
) -> Steered:
    from brainscan.cli.parts import edit_words
    from brainscan.interventions import random_latent_control
    from brainscan.models.generate import generate

    with progress("match the control", None):
        control = random_latent_control(lm, None, edits, sampling.seed)
    arms: list[tuple[Edit, ...]] = [(), edits, control.edits]
    with progress("answer", len(arms) * sampling.max_new_tokens, "tokens") as advance:
        answers = generate(
            lm,
            [ids] * len(arms),
            sampling,
            edits=arms,
            seeds=[sampling.seed] * len(arms),
            on_token=lambda row, token: advance(1),
        )
    return Steered(
        prompt=prompt,
        model=lm.name,
        edits=tuple(edit_words(edit) for edit in edits),
        answers=(answers[0].text, answers[1].text, answers[2].text),
        control_edits=tuple(edit_words(edit) for edit in control.edits),
        control=control,
        effects=_cost(lm, arms[1:], cost),
        seed=sampling.seed,
    )


def _cost(
    lm: LanguageModel, edit_sets: Sequence[Sequence[Edit]], cost: Cost
) -> tuple[Effects, Effects] | None:
    from brainscan.interventions import (
        capability_items,
        measure_effects_many,
        neutral_passages,
    )

    if cost is Cost.NONE:
        return None
    limit = QUICK if cost is Cost.QUICK else None
    own, control = measure_effects_many(
        lm, edit_sets, passages=neutral_passages(limit), items=capability_items(limit)
    )
    return own, control


def _figures(result: Steered) -> list[tuple[str, str, str]]:
    """What the edits and the control cost: name, figure, control's figure."""
    rows = [
        (f"change of norm, edit {number}", str(match.change), str(match.control_change))
        for number, match in enumerate(result.control.matched, start=1)
    ]
    if result.effects is not None:
        own, control = result.effects
        rows += [
            (words, str(getattr(own, name)), str(getattr(control, name)))
            for name, words in _COST_WORDS.items()
        ]
    return rows


def _print(result: Steered) -> None:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    out = console()
    titles = ("without the edit", "with " + ", ".join(result.edits), "control: random feature")
    styles = ("white", "green", "bright_black")
    panels = [
        Panel(Text(visible(answer.strip())), title=Text(title), border_style=style)
        for title, answer, style in zip(titles, result.answers, styles, strict=True)
    ]
    if out.width >= _WIDE:
        beside = Table.grid(expand=True)
        for _ in panels:
            beside.add_column(ratio=1)
        beside.add_row(*panels)
        out.print(beside)
    else:
        out.print(*panels, sep="\n")
    table = Table("cost", "the edit", "the control (" + ", ".join(result.control_edits) + ")")
    for row in _figures(result):
        table.add_row(*row)
    out.print(table)


def _page(result: Steered) -> str:
    from brainscan.views import GenerationView, Section, page, side_by_side, table

    titles = ("without the edit", "with " + ", ".join(result.edits), "random feature, equal norm")
    answers = [
        GenerationView(title, (answer,), control=number == 2)
        for number, (title, answer) in enumerate(zip(titles, result.answers, strict=True))
    ]
    cost = table(("", "the edit", "the control"), _figures(result))
    return page(
        "Steering",
        [
            Section("Answers", side_by_side(result.prompt, answers)),
            Section("What it costs", cost, "On neutral text and a small capability set."),
        ],
        facts=[
            ("model", result.model),
            ("edits", ", ".join(result.edits)),
            ("seed", f"{result.seed}"),
        ],
    )
