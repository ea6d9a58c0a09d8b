"""The documentation says what is there: the tree, the commands, a page per verb, the site."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import typer.main

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "brainscan"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

_CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
_TREE = re.compile(r"```\nbrainscan/\n(.*?)```", re.DOTALL)
_ENTRY = re.compile(r"(?P<indent>(?:│   |    )*)(?:├── |└── )(?P<name>\S+)(?P<note>.*)")


def command_line():
    from brainscan.cli.app import app

    return typer.main.get_command(app)


def verbs(command=None, path=()):
    """Every verb, as the words that call it."""
    command = command or command_line()
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from verbs(child, (*path, name))


def console_lines(page):
    """The commands that a page shows."""
    for block in _CONSOLE.findall(page.read_text(encoding="utf-8")):
        for line in block.splitlines():
            if line.startswith("$ "):
                yield shlex.split(line[2:])


def shown_commands():
    for page in PAGES:
        for words in console_lines(page):
            if words[0] == "brainscan":
                yield pytest.param(words[1:], id=f"{page.name}: {' '.join(words[1:3])}")


def tree():
    """The README's tree: each path, relative to the repository, and its annotation."""
    found, parents = {}, []
    (text,) = _TREE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    for line in text.splitlines():
        entry = _ENTRY.fullmatch(line)
        assert entry, f"not an entry of a tree: {line!r}"
        depth = len(entry["indent"]) // 4
        parents = [*parents[:depth], entry["name"].rstrip("/")]
        found["/".join(parents)] = entry["note"].strip()
    return found


def test_every_path_of_the_tree_is_on_disk_and_annotated():
    for path, note in tree().items():
        assert (ROOT / path).exists(), path
        assert note or path == "src/brainscan", path


def test_every_room_is_in_the_tree():
    rooms = [p.parent.name for p in PACKAGE.glob("*/__init__.py")]
    modules = [p.name for p in PACKAGE.glob("*.py") if not p.name.startswith("__")]
    listed = tree()
    for name in rooms + modules:
        assert f"src/brainscan/{name}" in listed, name


def test_every_folder_of_the_repository_is_in_the_tree():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    folders = {path.partition("/")[0] for path in tracked if "/" in path}
    listed = {path.partition("/")[0] for path in tree()}
    assert {f for f in folders if not f.startswith(".")} <= listed


@pytest.mark.parametrize("words", list(shown_commands()))
def test_every_command_shown_parses(words):
    """Each word is known to the command line: verbs, options, and arguments in their number."""
    command, path = command_line(), []
    while words and words[0] in getattr(command, "commands", {}):
        path.append(words[0])
        command, words = command.commands[words[0]], words[1:]
    assert path, "not a verb"
    command.make_context(path[-1], list(words))


def test_every_verb_has_its_page_with_an_example():
    for path, _ in verbs():
        page = ROOT / "docs" / "cli" / f"{path[0]}.md"
        assert page.is_file(), page
        examples = [words[1:] for words in console_lines(page) if words[0] == "brainscan"]
        assert any(tuple(words[: len(path)]) == path for words in examples), path


def test_every_page_of_a_verb_is_of_a_verb_there_is():
    pages = {page.stem for page in (ROOT / "docs" / "cli").glob("*.md")} - {"index"}
    assert pages == {path[0] for path, _ in verbs()}


def test_every_option_a_page_names_exists():
    for page in (ROOT / "docs" / "cli").glob("*.md"):
        known = {"--help", "--version"}
        for path, command in verbs():
            if page.stem in ("index", path[0]):
                known.update(name for option in command.params for name in option.opts)
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text(encoding="utf-8")))
        assert named <= known, (page.name, named - known)


def test_every_verb_has_help_with_an_example_and_json():
    for path, command in verbs():
        assert command.help, path
        assert "Example: brainscan " + " ".join(path) in (command.epilog or ""), path
        assert any("--json" in option.opts for option in command.params), path


def test_every_make_target_shown_is_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        shown = re.findall(r"`(?:\$ )?make ([a-z]+)", page.read_text(encoding="utf-8"))
        assert set(shown) <= targets, page.name


def test_the_version_is_in_the_changelog():
    import brainscan

    assert f"## [{brainscan.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_site_builds_with_strict_links(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert (tmp_path / "python" / "index.html").is_file()


def test_every_link_of_the_pages_beside_the_site_leads_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), (page.name, link)
