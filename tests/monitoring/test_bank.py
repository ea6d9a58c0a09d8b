"""The bank of concepts: that it is what it says, and the directions made of it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from brainscan.errors import UsageError
from brainscan.models.tiny import tiny
from brainscan.monitoring import concept_directions, concept_names, load_concept, load_concepts
from brainscan.monitoring.bank import REGISTERS, SPLITS, Text
from brainscan.monitoring.directions import text_means
from brainscan.stats import area

GOOD = """
name: tides
title: Tides
danger: false
about: The sea that comes and goes.
words: [tide]
texts:
  - {register: note, text: "The water is low at six."}
near:
  - {register: news, text: "The tide of the match has turned."}
"""


def test_there_are_enough_concepts():
    names = concept_names()
    assert len(names) >= 24
    assert [one.name for one in load_concepts()] == names
    assert len(load_concepts(danger=True)) == 8
    assert len(load_concepts(danger=False)) == len(names) - 8


@pytest.mark.parametrize("name", concept_names())
def test_a_concept_has_texts_of_many_kinds(name):
    concept = load_concept(name)
    both = (*concept.texts, *concept.near)
    assert concept.name == name and concept.title and concept.about and len(concept.words) >= 6
    assert len(concept.texts) >= 60 and len(concept.near) >= 20 and len(both) >= 80
    registers = Counter(text.register for text in both)
    assert len(registers) >= 7 and set(registers) <= set(REGISTERS)
    for split in SPLITS:
        assert sum(text.split == split for text in concept.texts) >= 6
        assert any(text.split == split for text in concept.near)
    assert all(8 <= len(text.text.split()) <= 80 and text.text.isascii() for text in both)


def test_no_text_is_there_twice():
    texts = [text.text for one in load_concepts() for text in (*one.texts, *one.near)]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", concept_names())
def test_keywords_alone_do_not_tell(name):
    concept = load_concept(name)

    def share(texts):
        found = [any(word in text.text.lower() for word in concept.words) for text in texts]
        return sum(found) / len(found)

    assert share(concept.near) > 0.3
    assert share(concept.texts) < 0.85


def test_splits_follow_from_the_text_alone():
    found = Counter(Text(f"text {n}", "note").split for n in range(2000))
    assert 900 < found["train"] < 1100 and 400 < found["select"] < 600
    assert Text("a", "note").split == Text("a", "mail").split


def test_a_concept_of_the_users(tmp_path):
    path = tmp_path / "tides.yaml"
    path.write_text(GOOD)
    concept = load_concept(path)
    assert concept.texts == (Text("The water is low at six.", "note"),)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: Tides\n", "", "the fields name, title"),
        ("register: note", "register: poem", "one of the registers"),
        ('text: "The water is low at six."', 'text: " "', "a text of one"),
        ("{register: note, text:", "{kind: note, text:", "rows of register and text"),
        (GOOD, "name: [", "a concept in"),
    ],
)
def test_what_is_no_concept_is_told(tmp_path, old, new, message):
    path = tmp_path / "tides.yaml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(UsageError, match=message):
        load_concept(path)


def test_unknown_names_are_told(tmp_path):
    with pytest.raises(UsageError, match=r"a concept: .*bridges"):
        load_concept("briges")
    with pytest.raises(UsageError, match="a concept in"):
        load_concept(tmp_path / "none.yaml")


def test_a_texts_mean_is_over_its_own_tokens():
    lm = tiny("llama")
    texts = [Text("The ship sails at noon.", "note"), Text("A quiet road by the sea.", "note")]
    together = text_means(lm, texts, "resid_post.1")
    alone = torch.cat([text_means(lm, [text], "resid_post.1") for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_directions_tell_texts_that_they_were_not_made_of():
    from brainscan.models import load

    lm, at = load("smollm2-135m-instruct"), "resid_post.15"
    concepts = [load_concept(name) for name in ("bridges", "grief", "threat")]
    directions = concept_directions(lm, concepts, at)
    for one in concepts:
        others = [t for other in concepts if other is not one for t in other.texts]
        held = [t for t in (*one.texts, *others, *one.near) if t.split == "test"]
        scores = text_means(lm, held, at) @ directions[one.name].vector.cpu()
        own = torch.tensor([text in one.texts for text in held])
        assert area(scores, own) > 0.65, one.name  # near misses are among the others
