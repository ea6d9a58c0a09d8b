import json
import random
import sys
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest

from brainscan.activations import open_corpus
from brainscan.activations.files import hash_path, hub_revision, read_path
from brainscan.errors import CorpusError, MissingExtraError


def texts(path):
    return [d.text for d in open_corpus(path).documents()]


def test_a_short_text_is_one_document(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("# not cut\n\nOne.\n\n# nor here\n\nTwo.\n")
    (only,) = open_corpus(file).documents()
    assert only.text == file.read_text()
    assert only.id == "a.txt#0"


@pytest.mark.parametrize(
    ("title", "below"), [(" = Title {} = \n", " = = Part = = \n"), ("# Title {}\n", "## Part\n")]
)
def test_a_long_text_is_cut_at_its_top_headings(tmp_path, title, below):
    section = "\n" + below + "\nSome words in a row.\n" * 80
    file = tmp_path / "long.md"
    file.write_text("".join(title.format(n) + section for n in range(12)))
    found = texts(file)
    assert len(found) == 12
    assert all(text.startswith(title.format(n)) for n, text in enumerate(found))
    assert "".join(found) == file.read_text()


def test_a_long_text_without_headings_is_cut_at_blank_lines(tmp_path):
    file = tmp_path / "long.txt"
    file.write_text("".join(f"Paragraph {n}. " + "word " * 80 + "\n\n" for n in range(100)))
    found = texts(file)
    assert "".join(found) == file.read_text()
    assert all(2000 <= len(text) <= 2500 for text in found[:-1])


def test_a_line_without_end_is_cut(tmp_path):
    file = tmp_path / "line.txt"
    file.write_text(" ".join(map(str, range(80_000))))
    found = texts(file)
    assert "".join(found) == file.read_text()
    assert max(map(len, found)) <= 64_000


def test_jsonl_takes_text_content_and_messages(tmp_path):
    rows = [
        {"text": "one"},
        {"content": "two"},
        {"messages": [{"role": "user", "content": "hi"}]},
        {"text": "  "},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    one, two, chat = open_corpus(file).documents()
    assert (one.text, two.text, chat.chat()) == ("one", "two", rows[2]["messages"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "Expecting property name"),
        ("[1]", "one JSON object a line"),
        ('{"body": "x"}', "keys ['body']"),
        ('{"text": 3}', "keys ['text']"),
        ('{"messages": [{"role": "user"}]}', "KeyError 'content'"),
        ('{"messages": "hi"}', "list of {role, content}"),
    ],
)
def test_a_bad_line_of_jsonl_is_named(tmp_path, line, message):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(CorpusError) as error:
        texts(file)
    assert message in str(error.value)
    assert f"{file}:2" in str(error.value)


def test_parquet_takes_text_and_messages(tmp_path):
    table = pyarrow.table({"text": ["one", None, "two"], "other": [1, 2, 3]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == ["one", "two"]
    turns = [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]]
    pyarrow.parquet.write_table(pyarrow.table({"messages": turns}), tmp_path / "b.parquet")
    (chat,) = open_corpus(tmp_path / "b.parquet").documents()
    assert chat.chat() == turns[0]


def test_parquet_without_text_or_that_is_none_is_named(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"columns \['body'\]"):
        texts(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_text("no parquet")
    with pytest.raises(CorpusError, match=r"b\.parquet"):
        texts(tmp_path / "b.parquet")


def test_a_folder_is_read_in_order_or_shuffled(tmp_path):
    for number in range(20):
        (tmp_path / f"{number:02}.txt").write_text(f"text {number}")
    (tmp_path / "ignored.bin").write_bytes(b"\xff")
    assert texts(tmp_path) == [f"text {number}" for number in range(20)]
    mixed = [d.text for d in read_path(tmp_path, random.Random(0))]
    assert sorted(mixed) == sorted(texts(tmp_path)) != mixed


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\xc3\xa9" * 700_000])
def test_bytes_that_are_not_utf8_are_named_with_their_offset(tmp_path, before):
    file = tmp_path / "latin.txt"
    file.write_bytes(before + b"caf\xe9 au lait")
    with pytest.raises(CorpusError) as error:
        texts(file)
    assert f"byte 0xe9 at offset {len(before) + 3} of {file}" in str(error.value)


def test_a_character_split_between_blocks_is_whole(tmp_path):
    file = tmp_path / "accents.txt"
    text = "aaaaa" + "".join(f"é{n}" for n in range(200_000))
    file.write_text(text, encoding="utf-8")
    assert file.read_bytes()[(1 << 20) - 1 : (1 << 20) + 1] == "é".encode()
    assert "".join(texts(file)) == text


def test_missing_and_empty(tmp_path):
    with pytest.raises(CorpusError, match="no such file"):
        open_corpus(tmp_path / "none.txt")
    with pytest.raises(CorpusError, match="none in"):
        texts(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n\n")
    with pytest.raises(CorpusError, match="none with text"):
        texts(tmp_path / "empty.txt")


def test_a_split_without_documents_says_so(tmp_path):
    (tmp_path / "a.txt").write_text("one document is in one split only")
    (split,) = {d.split for d in open_corpus(tmp_path / "a.txt").documents()}
    other = next(name for name in ("train", "select", "test") if name != split)
    with pytest.raises(CorpusError, match=f"split '{other}'"):
        list(open_corpus(tmp_path / "a.txt").documents(other))
    with pytest.raises(CorpusError, match="one of train, select, test"):
        list(open_corpus(tmp_path / "a.txt").documents("dev"))


def test_the_hash_follows_the_content(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    file, folder = hash_path(tmp_path / "a.txt"), hash_path(tmp_path)
    (tmp_path / "a.txt").write_text("two")
    assert hash_path(tmp_path / "a.txt") != file
    assert hash_path(tmp_path) != folder


def test_a_hub_dataset_needs_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"run: pip install datasets$"):
        list(open_corpus("hf:somebody/something").documents())


def test_a_hub_dataset_is_read_at_the_revision_that_is_recorded(monkeypatch):
    asked = {}

    def load_dataset(name, **options):
        asked.update(options, name=name)
        return [{"text": "one"}, {"text": "two"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    info = SimpleNamespace(sha="5eed")
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *args, **options: info)
    hub_revision.cache_clear()
    corpus = open_corpus("hf:some/rows")
    assert texts("hf:some/rows") == ["one", "two"]
    assert asked["revision"] == "5eed"
    assert corpus.settings["sources"]["some/rows"]["version"] == "5eed"
    hub_revision.cache_clear()


def test_pieces_of_one_text_share_its_split(tmp_path):
    paragraphs = "".join(f"Paragraph {n}. " + "word " * 80 + "\n\n" for n in range(400))
    (tmp_path / "book.txt").write_text(paragraphs)
    (tmp_path / "other.txt").write_text(paragraphs.replace("word", "work"))
    groups = {}
    for document in read_path(tmp_path):
        groups.setdefault(document.source, set()).add((document.group, document.split))
    assert [len(found) for found in groups.values()] == [1, 1]
    alone = list(open_corpus(tmp_path / "book.txt").documents())
    assert {d.split for d in alone} == {"train", "select", "test"}
    section = "".join(f"# Title {n}\n" + f"line {n}\n" * 20_000 for n in range(3))
    (tmp_path / "long.md").write_text(section)
    cut = list(open_corpus(tmp_path / "long.md").documents())
    assert len(cut) > 6
    by_group = {d.group: d.text.split()[-1] for d in cut}
    assert list(by_group.values()) == ["0", "1", "2"]
