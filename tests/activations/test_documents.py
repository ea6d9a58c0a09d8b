import random
import re
from collections import Counter
from itertools import count, islice

from hypothesis import given
from hypothesis import strategies as st

from brainscan.activations.documents import (
    Document,
    Message,
    cut,
    distinct,
    interleaved,
    shuffled,
    split_of,
)


def document(number, size=10, source="numbers"):
    return Document(f"{source}/{number}", source, text=str(number).zfill(size))


def test_splits_are_ninety_five_five_and_follow_the_content():
    splits = Counter(document(number).split for number in range(4000))
    assert 0.88 < splits["train"] / 4000 < 0.92
    assert 0.035 < splits["select"] / 4000 < 0.065
    one, other = Document("a", "x", text="the same"), Document("b", "y", text="the same")
    assert one.split == other.split == split_of(one.digest)


def test_pieces_share_the_split_of_what_they_are_cut_from():
    group = Document("whole", "x", text="a long text").digest
    pieces = [Document(f"x#{n}", "x", text=str(n), group=group) for n in range(50)]
    assert {piece.split for piece in pieces} == {split_of(group)}


def test_a_chat_differs_from_its_text_and_counts_its_template():
    chat = Document("c", "x", messages=(Message("user", "hello"), Message("assistant", "hi")))
    assert chat.digest != Document("t", "x", text="hellohi").digest
    assert chat.size == 7 + 2 * 16
    assert chat.chat()[1] == {"role": "assistant", "content": "hi"}


def test_repeats_are_dropped():
    stream = [document(1), document(2), document(1), document(3), document(2)]
    assert [d.id for d in distinct(stream)] == ["numbers/1", "numbers/2", "numbers/3"]


def test_shuffling_is_seeded_keeps_all_and_holds_only_its_window():
    documents = [document(number) for number in range(500)]
    first = [d.id for d in shuffled(documents, random.Random(1), window=64)]
    again = [d.id for d in shuffled(documents, random.Random(1), window=64)]
    other = [d.id for d in shuffled(documents, random.Random(2), window=64)]
    assert first == again != other
    assert sorted(first) == sorted(d.id for d in documents)
    taken = []
    endless = (taken.append(n) or document(n) for n in count())
    list(islice(shuffled(endless, random.Random(0), window=64), 10))
    assert len(taken) == 64 + 10


def test_the_mix_keeps_its_weights_until_a_source_runs_out():
    def source(name, size, total):
        return (document(n, size, name) for n in range(total))

    mixed = list(interleaved([(3.0, source("a", 30, 400)), (1.0, source("b", 10, 2000))]))
    sizes = Counter()
    for one in mixed[:800]:
        sizes[one.source] += one.size
    assert abs(sizes["a"] / sizes["b"] - 3) < 0.05
    assert Counter(d.source for d in mixed) == {"a": 400, "b": 2000}


@given(st.lists(st.text("abc ", min_size=1, max_size=40), max_size=30), st.integers(1, 25))
def test_cutting_loses_nothing_but_boundaries_and_bounds_the_pieces(blocks, target):
    text = "\n\n".join(blocks)
    pieces = list(cut(text, re.compile(r"\n\n"), target))
    assert "".join(pieces).replace("\n", "") == text.replace("\n", "")
    assert all(len(piece) <= 4 * target for piece in pieces)
