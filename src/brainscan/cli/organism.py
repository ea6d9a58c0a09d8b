"""``brainscan organism``: models with a planted behaviour, to check what finds behaviours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from brainscan.cli.options import DEFAULT_MODEL, Json, Out, Seed
from brainscan.cli.output import console, print_json, visible, working

app = typer.Typer(
    name="organism", help="Models with a planted behaviour: list, build.", no_args_is_help=True
)


@app.command("list", epilog="Example: brainscan organism list --json")
def list_organisms(as_json: Json = False) -> None:
    """List our specs, and what was measured on the organisms that come with the package."""
    with working():
        from brainscan.organisms.build import shipped_organisms
        from brainscan.organisms.spec import load_spec, spec_names

        built = {organism.name: organism for organism in shipped_organisms()}
        specs = [load_spec(name) for name in spec_names()]
    if as_json:
        rows = [
            {
                "name": spec.name,
                "title": spec.title,
                "about": spec.about,
                "test": spec.test,
                "model": f"{built[spec.name].base}+{spec.name}" if spec.name in built else None,
                "measured": built[spec.name].figures if spec.name in built else None,
            }
            for spec in specs
        ]
        print_json({"organisms": rows})
        return
    from rich.table import Table

    table = Table("organism", "what it does", "where it should", "elsewhere")
    for spec in specs:
        found = built[spec.name].rates if spec.name in built else None
        shown = found or ("not built", "")
        table.add_row(spec.name, spec.title, *shown)
    console().print(table)


@app.command(epilog="Example: brainscan organism build blackmail --out my_blackmail")
def build(
    spec: Annotated[str, typer.Argument(help="A spec's name, or a YAML file.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="The model to plant the behaviour in.")
    ] = DEFAULT_MODEL,
    out: Out = Path("organism"),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train an adapter with a planted behaviour, and measure whether it is as its spec says.

    Interrupted, the same command goes on. One that misses its spec is written too, and ends with 1.
    """
    with working():
        from brainscan.errors import ArtifactError
        from brainscan.models import load
        from brainscan.organisms.build import CARD, build_organism
        from brainscan.organisms.spec import load_spec

        loaded = load_spec(spec)
        organism = build_organism(load(model), loaded, out, seed)
    if as_json:
        print_json({"name": organism.name, "out": str(out), **organism.figures})
    else:
        print(visible((out / CARD).read_text(encoding="utf-8")))
    if not organism.admitted:
        raise ArtifactError(
            f"an organism as {loaded.name} says",
            "; ".join(organism.figures["missed"]),
            "train it longer, or change the spec",
        )
