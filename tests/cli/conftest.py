"""A tiny model's folder, a text, and a way to run a command."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from brainscan.cli.app import main
from brainscan.dictionaries.testing import random_dictionary
from brainscan.models.tiny import D_MODEL, tiny

HOOKPOINT = "resid_post.1"


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as one JSON object."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    def failed(self, code: int, *words: str) -> None:
        """Checks for that exit code, one clear line with these words, and nothing on stdout."""
        assert self.code == code, self.err
        assert self.out == ""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("brainscan: ")
        for word in words:
            assert word in lines[0]


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs a command in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRAINSCAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BRAINSCAN_TRACEBACK", raising=False)

    def command(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return command


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """The folder of a tiny llama."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    lm = tiny("llama")
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    """A text of some thousand tokens, in paragraphs."""
    words = ["the", "day", "was", "not", "one", "that", "you", "and", "the", "word", "was", "with"]
    lines = [" ".join(words[(i * k) % len(words)] for k in range(1, 40)) for i in range(1, 60)]
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    path.write_text("\n\n".join(line + "." for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def dictionary(tmp_path_factory) -> Path:
    """A random dictionary that fits the tiny model."""
    folder = tmp_path_factory.mktemp("dictionaries") / "random"
    random_dictionary(D_MODEL, 32, 4, HOOKPOINT).save(folder)
    return folder
