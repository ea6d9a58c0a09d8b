from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brainscan.features.label import NEVER, Part, label, promotes
from brainscan.features.words import Words, words_of


def test_tokens_without_a_space_between_form_a_word():
    assert words_of(["In", " Al", "mighty", " God", ",", " don", "'t", "\n"]) == [
        "In",
        "Almighty",
        "Almighty",
        "God",
        ",",
        "don't",
        "don't",
        "",
    ]


def test_special_tokens_stand_alone():
    assert words_of(["<|im_start|>", "user", "\n", "Hi"]) == ["<|im_start|>", "user", "", "Hi"]


def test_scripts_without_spaces_do_not_grow_endless_words():
    assert max(map(len, words_of(["語"] * 500))) <= 33


@given(st.lists(st.text()))
def test_every_token_has_one_word(strings):
    assert len(words_of(strings)) == len(strings)


def test_spellings_are_counted_together():
    words = Words()
    assert words.number([" God", " god", " GOD", " God"]) == [0, 0, 0, 0]
    assert words.texts() == ["god"]
    assert words.spellings() == ["God"]
    assert words.counts() == [4]


def test_a_label_names_the_heaviest_words():
    words = [
        Part("God", 0.5, 0.001),
        Part("the", 0.2, 0.06),
        Part("Lord", 0.2, 0.001),
        Part("god", 0.1, 0.001),
        Part("x", 0.01, 0.001),
    ]
    said = label(words, [Part(" God", 0.5, 0.001)], ["a"])
    assert said == "fires on “God”, “Lord”, “the”"


def test_common_words_are_not_named_for_being_common():
    words = [Part("the", 0.07, 0.06), Part("harbour", 0.05, 0.0001)]
    assert label(words, [], ["a"]) == "fires on “harbour”"


def test_tokens_name_a_latent_of_an_ending():
    words = [Part("running", 0.06, 0.001)]
    assert label(words, [Part("ing", 0.9, 0.02)], ["a"]) == "fires on “ing”"


def test_a_latent_of_many_words_is_named_by_what_it_promotes():
    words, tokens = [Part("a", 0.01, 0.01)], [Part("b", 0.01, 0.01)]
    assert label(words, tokens, [" to", "To", "\n"]) == "promotes “to”, “↵”"
    assert label(words, [], []) == "fires on many words"
    assert label([], [], ["a"]) == NEVER
    assert promotes([]) == ""
