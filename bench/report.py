"""From bench/results.json to the table in docs/bench.md and on the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from bench.measure import ROOT

RESULTS = ROOT / "bench" / "results.json"
PAGE = ROOT / "docs" / "bench.md"
BEGIN, END = "<!-- figures: make bench -->", "<!-- end of figures -->"
BUSY = 0.5


def tables(results: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    parts = [_machine(results["machine"])]
    for bench in results["benches"]:
        title = f"### {bench['name'].capitalize()}"
        parts += [title, f"{bench['setting'][0].upper()}{bench['setting'][1:]}."]
        if bench["skipped"]:
            parts.append(f"Not measured beside a peer: {bench['skipped']}.")
        lines = ["| | median | smallest to largest |", "|---|---:|---|"]
        lines += [_line(row, row["unit"]) for row in bench["rows"]]
        lines += [_line(check, _target(check)) for check in bench["checks"]]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def write_page(results: Mapping[str, Any]) -> None:
    """Puts the tables in the page, between its two marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"expected {BEGIN} and {END} in {PAGE}; got neither; restore the file")
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(results)}\n{END}{after}", encoding="utf-8")


def publishable(results: Mapping[str, Any]) -> str:
    """Why the results do not belong in the documentation; empty if they do."""
    if results["quick"]:
        return "a quick run measures nothing"
    if results["machine"]["load"] > BUSY:
        return f"the machine was busy (load {results['machine']['load']}) when the run began"
    return ""


def _machine(machine: Mapping[str, Any]) -> str:
    return (
        f"Measured {machine['date']} at commit `{machine['commit']}` on: {machine['cpu']} "
        f"(family/model {machine['family']}), {machine['cores']} cores, "
        f"{', '.join(machine['flags'])}; Python {machine['python']}, torch {machine['torch']}, "
        f"transformers {machine['transformers']}. Model: SmolLM2-135M-Instruct, Q4_1, dequantised."
    )


def _line(item: Mapping[str, Any], note: str) -> str:
    values = item["values"]
    spread = f"{_number(min(values))} to {_number(max(values))}" if len(values) > 1 else ""
    bold = "**" if "target" in item else ""
    name = f"{item['what']} ({note})" if note else item["what"]
    return f"| {bold}{name}{bold} | {bold}{_number(item['median'])}{bold} | {spread} |"


def _target(check: Mapping[str, Any]) -> str:
    bound = "at least" if check["at_least"] else "at most"
    return f"{bound} {check['target']:g}: {'met' if check['passed'] else 'missed'}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    reason = publishable(results)
    if reason:
        sys.exit(f"expected results of a full run on a quiet machine; {reason}; run: make bench")
    write_page(results)


if __name__ == "__main__":
    main()
