"""The tables of docs/cli/calibrate.md and docs/cli/watch.md, from what detectors say of themselves.

python scripts/show_detectors.py FOLDER
"""

from __future__ import annotations

import sys

from brainscan.monitoring import load_detectors
from brainscan.monitoring.dialogues import FAMILIES
from brainscan.stats import Estimate

_CARD = ("auroc", "auroc near", "tpr at 1%", "tpr at 0.1%", "calibration error", "false alarms")
_PLAIN = ("auroc: keywords", "auroc: bag of words", "auroc: embedding", "auroc: shuffled labels")
_LEAD = "lead: embedding"
_JUMP = ("auroc", "tpr at 1%", "delay", "before the word")


def main() -> None:
    """Prints the tables."""
    found = load_detectors(sys.argv[1])
    plain = (name.removeprefix("auroc: ") for name in _PLAIN)
    print(_row("concept", "reads", *_CARD, *plain, "lead over the embedding"))
    print(_row(*["---"] * (3 + len(_CARD) + len(_PLAIN))))
    for card in found.cards():
        name = f"**{card['concept']}**" if card["danger"] else card["concept"]
        reads = f"{card['hookpoint']}, {card['method']}, {card['aggregate']}"
        figures = card["figures"]
        print(_row(name, reads, *(_cell(figures.get(k)) for k in (*_CARD, *_PLAIN, _LEAD))))
    print()
    if found.rule is None:
        return
    print(found.rule.statistic, found.rule.threshold, found.rule.kappa, found.rule.clip)
    print(_row("statistic", *_JUMP))
    print(_row(*["---"] * (1 + len(_JUMP))))
    for name, own in found.jump_figures.items():
        if name != "evasion":
            print(_row(name, *(_cell(own.get(k)) for k in _JUMP)))
    print()
    rules = [name for name, own in found.jump_figures.items() if "alarms: benign" in own]
    print(_row("share with an alarm", *rules))
    print(_row(*["---"] * (1 + len(rules))))
    for family in FAMILIES:
        key = f"alarms: {family}"
        print(_row(family, *(_cell(found.jump_figures[name].get(key)) for name in rules)))
    print()
    for name, figure in found.jump_figures[found.rule.statistic].items():
        if name.startswith("lead: "):
            print(_row(f"caught more than by {name.removeprefix('lead: ')}", _cell(figure)))
    print()
    print(_row("way to slip by", "missed"))
    print(_row("---", "---"))
    for name, figure in found.jump_figures["evasion"].items():
        print(_row(name.removeprefix("missed: "), _cell(figure)))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(figure: Estimate | None) -> str:
    if figure is None:
        return ""
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}] ({figure.n})"


if __name__ == "__main__":
    main()
