"""``brainscan calibrate``: a detector for each concept, made for one model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainscan.cli.options import Json, Model, Seed
from brainscan.cli.output import console, note, print_json, visible, working

if TYPE_CHECKING:
    from brainscan.monitoring import Detectors
    from brainscan.stats import Estimate

EXAMPLE = "Example: brainscan calibrate --model smollm2-135m-instruct"

_RULE = ("statistic", "threshold", "kappa", "clip")
_SHOWN = ("auroc", "auroc near", "tpr at 1%", "auroc: bag of words", "auroc: embedding")


Concepts = Annotated[
    list[str] | None,
    typer.Option(
        "--concept", help="A concept of the bank, or a YAML file; repeatable. Default: all."
    ),
]
At = Annotated[
    list[str] | None,
    typer.Option("--at", help="Hookpoint to read at; repeatable. Default: three residuals."),
]
Dictionaries = Annotated[
    list[str] | None,
    typer.Option(
        "--dictionary",
        "-d",
        help="Dictionary whose latents are read too, beside those shipped; repeatable.",
    ),
]
Answers = Annotated[
    int, typer.Option("--answers", min=0, help="The model's own benign answers to write.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder for the detectors. Default: the user's cache."),
]


def calibrate(
    model: Model = None,
    concept: Concepts = None,
    at: At = None,
    dictionary: Dictionaries = None,
    answers: Answers = 200,
    out: Out = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Make a detector for each concept of the bank, calibrated for one model, and a rule for jumps.

    `watch` and `serve` take the detectors from where they are put. Each is judged on texts that it
    was not made on, beside keywords, a bag of words, an embedding and shuffled labels.
    """
    with working():
        from brainscan.cli.parts import open_model
        from brainscan.monitoring import (
            CalibrationConfig,
            detectors_folder,
            load_concept,
            load_concepts,
        )
        from brainscan.monitoring import calibrate as run

        concepts = [load_concept(name) for name in concept] if concept else load_concepts()
        lm = open_model(model)
        folder = out or detectors_folder(lm)
        config = CalibrationConfig(
            hookpoints=tuple(at or ()),
            dictionaries=tuple(dictionary or ()),
            answers=answers,
            seed=seed,
        )
        found = run(lm, folder, concepts, config)
        note(f"detectors written to {folder}")
    if as_json:
        print_json({"path": str(folder), **detectors_json(found)})
    else:
        print_detectors(found)


def detectors_json(found: Detectors) -> dict[str, Any]:
    """Detectors as a JSON object, with what was measured of them."""
    rule = found.rule
    return {
        "model": found.model.id,
        "detectors": [
            {**card, "figures": {k: v.to_json() for k, v in card["figures"].items()}}
            for card in found.cards()
        ],
        "rule": rule and {name: getattr(rule, name) for name in _RULE},
        "jumps": {
            name: {k: v.to_json() for k, v in own.items()}
            for name, own in found.jump_figures.items()
        },
    }


def print_detectors(found: Detectors) -> None:
    """Prints what each detector and the rule are worth."""
    from rich.table import Table
    from rich.text import Text

    table = Table("concept", "reads", *_SHOWN)
    for card in found.cards():
        name = card["concept"] + (" (danger)" if card["danger"] else "")
        reads = f"{card['hookpoint']}, {card['method']}, {card['aggregate']}"
        table.add_row(Text(visible(name)), reads, *_cells(card["figures"], _SHOWN))
    console().print(table)
    if found.rule is None:
        return
    columns = ("auroc", "tpr at 1%", "alarms: benign", "delay")
    jumps = Table("jumps by", *columns)
    for name, own in found.jump_figures.items():
        if "auroc" in own:
            chosen = " (the rule)" if name == found.rule.statistic else ""
            jumps.add_row(name + chosen, *_cells(own, columns))
    console().print(jumps)
    evasion = Table("way to slip by", "missed")
    for name, figure in found.jump_figures.get("evasion", {}).items():
        evasion.add_row(name.removeprefix("missed: "), _short(figure))
    console().print(evasion)


def _cells(figures: Mapping[str, Estimate], names: tuple[str, ...]) -> list[str]:
    return [_short(figures[name]) if name in figures else "" for name in names]


def _short(figure: Estimate) -> str:
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"
