from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainscan.artifacts import (
    SCHEMA,
    Manifest,
    ModelRef,
    cache_dir,
    create,
    file_sha256,
    open_artifact,
    read_manifest,
    write_file,
)
from brainscan.errors import ArtifactError, DiskFullError

MODEL = ModelRef(id="tiny", weights="ab" * 32)


def make(path, content=b"content", **options):
    with create(path, kind="sample", model=MODEL, settings={"rate": 0.5}, **options) as draft:
        (draft.path / "inner").mkdir(exist_ok=True)
        (draft.path / "data.bin").write_bytes(content)
        (draft.path / "inner" / "more.bin").write_bytes(b"more")
        draft.figures["loss"] = 0.25
    return path


def edit_manifest(path, **changes):
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def tree(path):
    return {f.relative_to(path): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def test_what_is_written_is_read_back(tmp_path):
    path = make(tmp_path / "a", parents={"corpus": "00"}, hookpoints=("resid_post.1",), seed=3)
    manifest = open_artifact(path, "sample")
    assert manifest.model == MODEL
    assert manifest.parents == {"corpus": "00"}
    assert manifest.hookpoints == ("resid_post.1",)
    assert manifest.settings == {"rate": 0.5}
    assert manifest.seed == 3
    assert manifest.figures == {"loss": 0.25}
    assert sorted(manifest.files) == ["data.bin", "inner/more.bin"]
    assert manifest.files["data.bin"] == file_sha256(path / "data.bin")
    assert sorted(os.listdir(tmp_path)) == ["a"]


def test_the_same_work_gives_the_same_bytes(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    assert tree(first) == tree(second)
    assert read_manifest(first).digest == read_manifest(second).digest


def test_the_digest_depends_on_every_file(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b", b"other")
    assert read_manifest(first).digest != read_manifest(second).digest


def test_an_artifact_is_replaced_as_a_whole(tmp_path):
    path = make(tmp_path / "a")
    (path / "data.bin").write_bytes(b"altered")
    make(path, b"new")
    open_artifact(path)
    assert (path / "data.bin").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["a"]


def test_a_failed_replacement_leaves_the_old_one(tmp_path):
    path = make(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt), create(path, kind="sample"):
        raise KeyboardInterrupt
    assert open_artifact(path, "sample").figures == {"loss": 0.25}
    assert sorted(os.listdir(tmp_path)) == ["a"]


def test_a_failed_rename_brings_the_old_one_back(tmp_path, monkeypatch):
    path = make(tmp_path / "a")
    rename = Path.rename

    def fail(self, target):
        if self.name == "a.partial":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"):
        make(path, b"new")
    monkeypatch.undo()
    open_artifact(path)
    assert (path / "data.bin").read_bytes() == b"content"


def test_what_stepped_aside_comes_back_after_a_kill(tmp_path):
    path = make(tmp_path / "a")
    path.rename(tmp_path / "a.replaced")
    with pytest.raises(ZeroDivisionError), create(path, kind="sample"):
        raise ZeroDivisionError
    open_artifact(path)
    assert sorted(os.listdir(tmp_path)) == ["a"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_only_artifacts_are_replaced(tmp_path, kind):
    path = tmp_path / "mine"
    if kind == "file":
        path.write_text("precious")
    else:
        path.mkdir()
        (path / "thesis.txt").write_text("precious")
    before = tree(tmp_path)
    with pytest.raises(ArtifactError, match="only artifacts are replaced"):
        make(path)
    assert tree(tmp_path) == before


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "a").mkdir()
    open_artifact(make(tmp_path / "a"))


def test_an_interrupted_draft_is_gone_on_with(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(KeyboardInterrupt), create(path, kind="s", resumable=True) as draft:
        assert not draft.resumed
        write_file(draft.path / "0.bin", b"zero")
        (draft.path / "1.bin.tmp").write_bytes(b"half")
        raise KeyboardInterrupt
    assert not path.exists()
    with pytest.raises(ArtifactError, match="interrupted in the making"):
        open_artifact(path)
    with create(path, kind="s", resumable=True) as draft:
        assert draft.resumed
        assert (draft.path / "0.bin").read_bytes() == b"zero"
        assert not (draft.path / "1.bin.tmp").exists()
        write_file(draft.path / "1.bin", b"one")
    assert sorted(open_artifact(path).files) == ["0.bin", "1.bin"]


def test_a_draft_of_other_settings_is_refused_and_kept(tmp_path):
    path = tmp_path / "a"
    with (
        pytest.raises(KeyboardInterrupt),
        create(path, kind="s", settings={"tokens": 5, "k": 1}, resumable=True) as draft,
    ):
        write_file(draft.path / "0.bin", b"zero")
        raise KeyboardInterrupt
    with (
        pytest.raises(ArtifactError, match=r"settings\.tokens 6 where it has 5"),
        create(path, kind="s", settings={"tokens": 6, "k": 1}, resumable=True),
    ):
        pass
    assert (tmp_path / "a.partial" / "0.bin").read_bytes() == b"zero"


def test_a_draft_is_emptied_when_it_cannot_be_resumed(tmp_path):
    (tmp_path / "a.partial" / "old").mkdir(parents=True)
    (tmp_path / "a.partial" / "old" / "x").write_text("x")
    assert sorted(open_artifact(make(tmp_path / "a")).files) == ["data.bin", "inner/more.bin"]


@pytest.mark.skipif(sys.platform == "win32", reason="no flock there")
def test_a_kill_leaves_a_draft_and_no_lock(tmp_path):
    path = tmp_path / "a"
    script = (
        "import os, signal, sys\n"
        "from brainscan.artifacts import create, write_file\n"
        "with create(sys.argv[1], kind='s', resumable=True) as draft:\n"
        "    write_file(draft.path / '0.bin', b'zero')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(path)])
    assert ended.returncode == -signal.SIGKILL
    with create(path, kind="s", resumable=True) as draft:
        assert draft.resumed
        assert (draft.path / "0.bin").read_bytes() == b"zero"
    open_artifact(path, "s")


@pytest.mark.skipif(sys.platform == "win32", reason="no flock there")
def test_a_second_writer_is_refused(tmp_path):
    with create(tmp_path / "a", kind="s") as draft:
        (draft.path / "x").write_text("x")
        with (
            pytest.raises(ArtifactError, match="another process"),
            create(tmp_path / "a", kind="s"),
        ):
            pass
    assert list(open_artifact(tmp_path / "a").files) == ["x"]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left"), RuntimeError("IO Error: No space left on device")],
)
def test_a_full_disk_is_said_plainly(tmp_path, error):
    with pytest.raises(DiskFullError, match="free some space"), create(tmp_path / "a", kind="s"):
        raise error
    assert os.listdir(tmp_path) == []


def test_a_full_disk_keeps_a_resumable_draft(tmp_path):
    with (
        pytest.raises(DiskFullError),
        create(tmp_path / "a", kind="s", resumable=True) as draft,
    ):
        write_file(draft.path / "0.bin", b"zero")
        raise OSError(errno.ENOSPC, "No space left")
    assert (tmp_path / "a.partial" / "0.bin").exists()


def test_a_missing_artifact(tmp_path):
    with pytest.raises(ArtifactError, match="no folder there"):
        open_artifact(tmp_path / "none")
    with pytest.raises(ArtifactError, match=r"without manifest\.json"):
        open_artifact(tmp_path)


def test_a_truncated_file_is_named_with_its_hashes(tmp_path):
    path = make(tmp_path / "a")
    expected = file_sha256(path / "data.bin")
    (path / "data.bin").write_bytes(b"cont")
    with pytest.raises(ArtifactError) as caught:
        open_artifact(path)
    assert "data.bin" in str(caught.value)
    assert expected in str(caught.value)
    assert file_sha256(path / "data.bin") in str(caught.value)
    open_artifact(path, verify=False)


def test_a_missing_file_is_named(tmp_path):
    path = make(tmp_path / "a")
    (path / "inner" / "more.bin").unlink()
    with pytest.raises(ArtifactError, match=r"inner/more\.bin"):
        open_artifact(path, verify=False)


def test_another_kind(tmp_path):
    with pytest.raises(ArtifactError, match="kind 'sample'"):
        open_artifact(make(tmp_path / "a"), "dictionary")


def test_a_newer_schema(tmp_path):
    path = make(tmp_path / "a")
    edit_manifest(path, schema=SCHEMA + 1)
    with pytest.raises(ArtifactError, match="upgrade"):
        open_artifact(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": null}', "\x00"])
def test_a_broken_manifest(tmp_path, text):
    path = make(tmp_path / "a")
    (path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match="truncated or altered"):
        open_artifact(path)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../b"])
def test_a_manifest_that_leads_out_of_its_folder(tmp_path, name):
    path = make(tmp_path / "a")
    edit_manifest(path, files={name: "00"})
    with pytest.raises(ArtifactError, match="leads out of the folder"):
        open_artifact(path)


def test_settings_and_figures_become_plain(tmp_path):
    @dataclass(frozen=True)
    class Config:
        folder: Path
        rate: float

    settings = {"config": Config(Path("x"), 0.5), "sizes": (1, 2), "count": np.int64(3)}
    with create(tmp_path / "a", kind="s", settings=settings) as draft:
        draft.figures.update(loss=float("nan"), share=np.float32(0.5), rates=[float("inf")])
    manifest = open_artifact(tmp_path / "a")
    assert manifest.settings == {
        "config": {"folder": "x", "rate": 0.5},
        "sizes": [1, 2],
        "count": 3,
    }
    assert manifest.figures == {"loss": None, "share": 0.5, "rates": [None]}


def test_the_cache_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINSCAN_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("BRAINSCAN_CACHE")
    assert cache_dir().name == "brainscan"


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(settings=st.dictionaries(st.text(), _json, max_size=4), seed=st.none() | st.integers())
def test_law_settings_survive_the_round_trip(tmp_path_factory, settings, seed):
    path = tmp_path_factory.mktemp("artifacts") / "a"
    with create(path, kind="s", settings=settings, seed=seed):
        pass
    manifest = open_artifact(path)
    assert manifest.settings == settings
    assert manifest.seed == seed


@given(st.dictionaries(st.text(), _json, max_size=4))
def test_law_the_digest_does_not_depend_on_the_order(settings):
    def digest(ordered):
        return Manifest("s", 1, {}, None, (), ordered, None, "code").digest

    assert digest(settings) == digest(dict(reversed(settings.items())))
