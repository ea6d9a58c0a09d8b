import pytest

from brainscan.models.tiny import tiny

WORDS = ["the", "and", "you", "that", "was", "with", "not", "one", "day", "word"]


@pytest.fixture(scope="session")
def lm():
    return tiny("llama")


@pytest.fixture
def corpus_file(tmp_path):
    path = tmp_path / "corpus.txt"
    paragraphs = (
        " ".join(WORDS[(7 * n + i * i) % len(WORDS)] for i in range(90)) + f" {n}.\n\n"
        for n in range(200)
    )
    path.write_text("".join(paragraphs))
    return path
