from itertools import count, islice

import pytest
import torch

from brainscan.activations import Document, Message, pack
from brainscan.activations.packing import document_tokens
from brainscan.errors import CorpusError, UsageError
from brainscan.models.tiny import tiny


@pytest.fixture(scope="module")
def lm():
    return tiny("llama")


def plain(text, name="x"):
    return Document(name, "test", text=text)


def test_text_ends_with_end_of_text_and_chats_go_through_the_template(lm):
    tokens = document_tokens(lm, plain("the day"))
    assert tokens == [*lm.tokenize("the day"), lm.tokenizer.convert_tokens_to_ids("<|endoftext|>")]
    turns = (Message("user", "the day"), Message("assistant", "one"))
    chat = Document("c", "test", messages=turns)
    assert document_tokens(lm, chat) == lm.chat_tokens(chat.chat(), generation_prompt=False)


def test_contexts_are_full_and_hold_the_stream_in_order(lm):
    documents = [plain("word " * (1 + 7 * (n % 5)), f"d{n}") for n in range(40)]
    contexts = list(pack(lm, documents, 16))
    stream = [t for d in documents for t in document_tokens(lm, d)]
    assert all(len(c.tokens) == 16 for c in contexts)
    packed = [int(t) for c in contexts for t in c.tokens]
    assert packed == stream[: len(packed)]
    assert len(stream) - len(packed) < 16


def test_each_token_knows_its_document_and_place(lm):
    documents = [plain("day " * (1 + 5 * (n % 7)), f"d{n}") for n in range(40)]
    owners = [d.id for d in documents for _ in document_tokens(lm, d)]
    read = []
    for context in pack(lm, documents, 16):
        first = int(context.documents[0])
        read += [context.document_ids[int(n) - first] for n in context.documents]
        assert context.positions.tolist() == list(range(16))
        assert len(context.document_ids) == int(context.documents[-1]) - first + 1
    assert read == owners[: len(read)]


def test_a_text_shorter_than_a_context_makes_a_shorter_one(lm):
    (only,) = pack(lm, [plain("the day")], 64)
    assert only.tokens.tolist() == document_tokens(lm, plain("the day"))
    assert only.documents.tolist() == [0] * len(only.tokens)


def test_no_documents_and_no_room_are_errors(lm):
    with pytest.raises(CorpusError, match="no documents"):
        list(pack(lm, [], 64))
    with pytest.raises(UsageError, match="context of at least"):
        list(pack(lm, [plain("day")], 0))


def test_a_tokenizer_s_beginning_token_opens_each_context(opening_lm):
    contexts = list(pack(opening_lm, [plain("word " * 30)], 8))
    assert len(contexts) > 1
    (begin,) = opening_lm.opening
    assert all(int(c.tokens[0]) == begin and len(c.tokens) == 8 for c in contexts)
    assert begin not in torch.cat([c.tokens[1:] for c in contexts[:-1]])


def test_documents_are_taken_as_needed(lm):
    taken = []
    endless = (taken.append(n) or plain("the day", f"d{n}") for n in count())
    list(islice(pack(lm, endless, 32), 5))
    assert len(taken) < 5 * 32 / 3 + 2
