from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from brainscan.errors import UsageError
from brainscan.interventions import Add, parse_edit, save_edits
from brainscan.models.decoding import is_watched
from brainscan.models.generate import Sampling, generate
from brainscan.models.noise import row_seeds
from brainscan.page.api import build_app

from .conftest import CONCEPTS, TOKEN, eventually, serving

MESSAGES = [{"role": "user", "content": "the day was one"}]


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def http(url):
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as made:
        yield made


def plain(lm, messages=MESSAGES, n=1, edits=(), **sampling):
    """What `generate` gives."""
    how = Sampling(**{"temperature": 1.0, **sampling})
    prompts = [lm.chat_tokens(messages)] * n
    return generate(lm, prompts, how, edits=edits, logprobs=True)


def ask(client, lm, **fields):
    told = {"model": lm.name, "messages": MESSAGES, "max_tokens": 16, "seed": 3}
    return client.chat.completions.create(**{**told, **fields})


def test_an_answer_is_what_generate_gives(client, lm):
    answer = ask(client, lm)
    (wanted,) = plain(lm, max_new_tokens=16, seed=3)
    assert answer.object == "chat.completion" and answer.model == lm.name
    assert answer.choices[0].message.content == wanted.text
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == wanted.stop_reason == "length"
    assert answer.usage.prompt_tokens == len(wanted.prompt_tokens)
    assert answer.usage.completion_tokens == len(wanted.tokens)
    assert answer.usage.total_tokens == len(wanted.prompt_tokens) + len(wanted.tokens)


def test_a_stream_is_the_same_in_pieces(client, lm):
    options = {"include_usage": True}
    chunks = list(ask(client, lm, stream=True, stream_options=options))
    whole = ask(client, lm)
    told = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in told) == (
        whole.choices[0].message.content
    )
    assert told[0].delta.role == "assistant"
    assert [choice.finish_reason for choice in told] == [None] * (len(told) - 1) + ["length"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 16
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_ends_with_done(http, lm):
    body = {"model": lm.name, "messages": MESSAGES, "max_tokens": 3, "stream": True}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("\n\ndata: [DONE]\n\n")


def test_seeds_choices_and_settings(client, lm):
    one, same, other = (ask(client, lm, seed=seed) for seed in (3, 3, 4))
    texts = [answer.choices[0].message.content for answer in (one, same, other)]
    assert texts[0] == texts[1] != texts[2]
    assert ask(client, lm, seed=None).choices[0].message.content not in texts
    three = ask(client, lm, n=3, temperature=0.7, top_p=0.9)
    wanted = plain(lm, n=3, temperature=0.7, top_p=0.9, max_new_tokens=16, seed=3)
    assert [choice.message.content for choice in three.choices] == [one.text for one in wanted]
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert three.usage.completion_tokens == sum(len(one.tokens) for one in wanted)
    parts = ["", "", ""]
    for chunk in ask(client, lm, n=3, temperature=0.7, top_p=0.9, stream=True):
        for choice in chunk.choices:
            parts[choice.index] += choice.delta.content or ""
    assert parts == [one.text for one in wanted]
    greedy = ask(client, lm, temperature=0, max_tokens=None, max_completion_tokens=9)
    assert greedy.choices[0].message.content == plain(lm, temperature=0.0, max_new_tokens=9)[0].text


def test_stop_strings(client, lm):
    (full,) = plain(lm, max_new_tokens=16, seed=3)
    stop = full.text[6:8]
    for given in (stop, ["never, ever", stop]):
        answer = ask(client, lm, stop=given)
        assert answer.choices[0].message.content == full.text.partition(stop)[0]
        assert answer.choices[0].finish_reason == "stop"
        parts = ask(client, lm, stop=given, stream=True)
        text = "".join(part.choices[0].delta.content or "" for part in parts)
        assert text == full.text.partition(stop)[0]


def test_logprobs(client, lm):
    answer = ask(client, lm, logprobs=True, top_logprobs=2)
    (wanted,) = plain(lm, max_new_tokens=16, seed=3)
    content = answer.choices[0].logprobs.content
    assert [one.logprob for one in content] == pytest.approx(wanted.logprobs, abs=1e-4)
    assert [one.token for one in content] == lm.token_strings(wanted.tokens)
    assert all(len(one.top_logprobs) == 2 for one in content)
    assert all(one.top_logprobs[0].logprob >= one.logprob - 1e-6 for one in content)
    streamed = []
    for chunk in ask(client, lm, logprobs=True, top_logprobs=2, stream=True):
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert [(one.token, one.bytes) for one in streamed] == [
        (one.token, one.bytes) for one in content
    ]


def test_texts_are_continued(client, lm):
    how = {"model": lm.name, "max_tokens": 6, "seed": 3}
    prompts = ["the day", "one word and"]
    answer = client.completions.create(prompt=prompts, n=2, logprobs=1, **how)
    tokens = [lm.tokenize(prompt) for prompt in prompts for _ in range(2)]
    sampling = Sampling(6, temperature=1.0)
    wanted = generate(lm, tokens, sampling, seeds=row_seeds(3, 4), logprobs=True)
    assert [choice.text for choice in answer.choices] == [one.text for one in wanted]
    assert answer.usage.prompt_tokens == sum(map(len, tokens[::2]))
    scores = answer.choices[2].logprobs
    assert scores.token_logprobs == pytest.approx(wanted[2].logprobs, abs=1e-4)
    assert scores.text_offset[0] == 0 and len(scores.top_logprobs) == len(scores.tokens)
    for prompt in (tokens[0], [tokens[0]], prompts[0]):
        parts = client.completions.create(prompt=prompt, stream=True, **how)
        assert "".join(part.choices[0].text for part in parts) == wanted[0].text


def test_models(client, lm):
    assert [model.id for model in client.models.list()] == [lm.name]
    assert client.models.retrieve(lm.name).owned_by == "brainscan"
    for call in (lambda: client.models.retrieve("gpt-4"), lambda: ask(client, lm, model="gpt-4")):
        with pytest.raises(openai.NotFoundError, match="expected the model 'tiny-llama-0'"):
            call()


def test_edits_and_concepts(client, lm, service, direction):
    edit = Add(direction(), 1.5)
    save_edits(service.folder / "pushed", [edit])
    with ThreadPoolExecutor(2) as pool:
        edited = pool.submit(
            ask, client, lm, extra_body={"edits": ["pushed"], "watch": True}, seed=5
        )
        other = pool.submit(ask, client, lm, extra_body={"edits": ["neurons.1/3=*2"]}, seed=5)
        edited, other = edited.result(), other.result()
    (wanted,) = plain(lm, edits=[edit], max_new_tokens=16, seed=5)
    assert edited.choices[0].message.content == wanted.text
    assert other.choices[0].message.content != wanted.text
    assert not hasattr(other.choices[0], "brainscan")
    seen = edited.choices[0].brainscan
    assert "".join(token["text"] for token in seen["tokens"]) == wanted.text
    assert set(seen["tokens"][0]["concepts"]) == set(CONCEPTS)
    assert seen["tokens"][-1] == {
        "text": seen["tokens"][-1]["text"],
        "concepts": {},
        "jump": None,
    }
    assert seen["alarms"][0]["concept"] == "threat"
    assert seen["alarms"][0]["onset"] >= len(wanted.prompt_tokens)
    tokens, alarms = [], []
    extra = {"edits": ["pushed"], "watch": True}
    for chunk in ask(client, lm, extra_body=extra, seed=5, stream=True):
        told = getattr(chunk.choices[0], "brainscan", {"tokens": [], "alarms": []})
        tokens, alarms = tokens + told["tokens"], alarms + told["alarms"]
    assert [token["text"] for token in tokens] == [token["text"] for token in seen["tokens"]]
    assert alarms[0]["concept"] == "threat"


def test_texts_are_continued_under_edits_and_watched(client, lm, service, direction):
    edit = Add(direction(), 1.5)
    save_edits(service.folder / "pushing", [edit])
    fields = {"model": lm.name, "prompt": "the day", "max_tokens": 12, "seed": 5}
    fields["extra_body"] = {"edits": ["pushing"], "watch": True}
    tokens = lm.tokenize("the day")
    (wanted,) = generate(lm, [tokens], Sampling(12, temperature=1.0), edits=[edit], seeds=[5])
    (other,) = generate(lm, [tokens], Sampling(12, temperature=1.0), seeds=[5])
    whole = client.completions.create(**fields).choices[0]
    assert whole.text == wanted.text != other.text
    parts = [one.choices[0] for one in client.completions.create(stream=True, **fields)]
    assert "".join(part.text for part in parts) == wanted.text
    streamed = {"tokens": [], "alarms": []}
    for part in parts:
        streamed["tokens"] += part.brainscan["tokens"]
        streamed["alarms"] += part.brainscan["alarms"]
    for seen in (whole.brainscan, streamed):
        assert "".join(token["text"] for token in seen["tokens"]) == wanted.text
        assert all(set(token["concepts"]) == set(CONCEPTS) for token in seen["tokens"][:-1])
        assert all(token["jump"] is not None for token in seen["tokens"][:-1])
        assert seen["alarms"][0]["concept"] == "threat"
        assert len(tokens) <= seen["alarms"][0]["onset"] < len(tokens) + 12


@pytest.mark.parametrize(("text", "risks"), [("not one word", ["threat"]), ("the day", [])])
def test_danger_that_was_asked_about_is_told_as_a_risk(client, lm, text, risks):
    fields = {"messages": [{"role": "user", "content": text}], "extra_body": {"watch": True}}
    assert ask(client, lm, **fields).choices[0].brainscan["risks"] == risks
    parts = [part.choices[0] for part in ask(client, lm, stream=True, **fields)]
    *before, last = [part.brainscan["risks"] for part in parts if hasattr(part, "brainscan")]
    assert last == risks and not any(before)


TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks.",
        "parameters": {
            "type": "object",
            "properties": {"where": {"type": "string", "description": "Where."}},
            "required": ["where"],
        },
    },
}


def test_tools_are_offered_and_calls_are_parsed(client, lm, service, monkeypatch):
    pytest.importorskip("inspect_ai")
    from dataclasses import replace

    from brainscan.page.service import Answer, Service

    asked = []
    said = ['Well. <tool_call>{"name": "look", "arguments": {"where": "é"}}</tool_call>']
    stream = Service.stream

    async def scripted(self, ask):
        asked.append(lm.decode(ask.prompt))
        async for item in stream(self, ask):
            if isinstance(item, Answer):
                item = replace(item, generation=replace(item.generation, text=said[0]))
            yield item

    monkeypatch.setattr(Service, "stream", scripted)
    answer = ask(client, lm, tools=[TOOL])
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "look" and json.loads(call.function.arguments) == {"where": "é"}
    assert answer.choices[0].message.content == "Well."
    assert answer.choices[0].finish_reason == "tool_calls"
    assert '"name": "look"' in asked[0] and "Looks." in asked[0]
    chunks = list(ask(client, lm, tools=[TOOL], stream=True))
    (streamed,) = [c for chunk in chunks for c in chunk.choices[0].delta.tool_calls or []]
    assert streamed.index == 0 and streamed.function.name == "look"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Well."
    messages = [
        *MESSAGES,
        answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "a wall"},
    ]
    said[0] = "I see <tool_call>{broken</tool_call>"
    broken = ask(client, lm, messages=messages, tools=[TOOL]).choices[0]
    assert broken.message.content == said[0] and broken.finish_reason != "tool_calls"
    assert "Result of look: a wall" in asked[-1]
    assert not ask(client, lm, tools=[TOOL], tool_choice="none").choices[0].message.tool_calls
    assert "Looks." not in asked[-1]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"messages": []}, "messages: .* at least 1"),
        ({"messages": [{"role": "king", "content": "x"}]}, r"messages.0.role: .*; got 'king'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0"),
        ({"max_tokens": "many"}, "max_tokens: .* valid integer; got 'many'"),
        ({"max_tokens": 0}, "max_tokens: .* greater than or equal to 1"),
        ({"temperature": -1}, "temperature: .* greater than or equal to 0"),
        ({"temperature": True}, "temperature: .* valid number"),
        ({"top_p": 0}, "top_p: .* greater than 0"),
        ({"n": 10**6}, "n: .* less than or equal to"),
        ({"stop": [""]}, "non-empty stop strings"),
        ({"stop": 5}, "stop"),
        ({"seed": "x"}, "seed"),
        ({"top_logprobs": 3}, "expected logprobs to be true"),
        ({"frequency_penalty": 0.5}, "expected frequency_penalty to be left out, or 0; got 0.5"),
        ({"tool_choice": "required"}, "expected tool_choice to be left out, or"),
        ({"stop": "x" * 300}, "stop"),
        ({"extra_body": {"edit": ["x"]}}, "edit: extra inputs are not permitted"),
        ({"extra_body": {"edits": "neurons.1/3=0"}}, "edits: .* valid list"),
        ({"extra_body": {"edits": ["neurons.1/3=?"]}}, "expected an edit"),
        ({"extra_body": {"edits": ["neurons.1/3000=0"]}}, "neurons"),
        ({"extra_body": {"edits": ["../folder"]}}, "service's folder"),
        ({"extra_body": {"edits": ["add:/etc/passwd=1"]}}, "service's folder"),
        ({"extra_body": {"watch": "yes"}}, "watch: .* valid boolean"),
        ({"messages": [{"role": "user", "content": "the " * 1100}]}, "context window of 1024"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(client, lm, fields, told):
    with pytest.raises(openai.BadRequestError, match=told) as caught:
        ask(client, lm, **fields)
    error = caught.value.body
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and "\n" not in error["message"]
    with pytest.raises(openai.BadRequestError, match=told):
        ask(client, lm, stream=True, **fields)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff\xfe",
        b"[" * 20_000,
        b'{"messages": "\\ud800"}',
        b'{"seed": 1' + b"0" * 9000 + b"}",
    ],
)
def test_bad_json_is_refused(http, body):
    answer = http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400 and "expected" in answer.json()["error"]["message"]


def test_what_is_not_there_is_said_so(http):
    for method, path in (("GET", "/v1/chat/completions"), ("POST", "/v1/embeddings")):
        answer = http.request(method, path)
        assert answer.status_code == 404
        assert "/v1/chat/completions" in answer.json()["error"]["message"]


def test_only_who_shows_the_token_gets_in(url, lm):
    with httpx.Client(base_url=url) as http:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": b"Bearer \xff\xe9"},
            {"Cookie": "brainscan-=x; ;;="},
        ):
            answer = http.get("/v1/models", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert http.get("/v1/models?token=wrong").status_code == 401
        assert http.get("/").status_code == 401
        assert http.get(f"/v1/models?token={TOKEN}").status_code == 200
        first = http.get(f"{url}//elsewhere.example/?token={TOKEN}&a=b%20c")
        assert first.status_code == 303
        assert first.headers["location"] == "/elsewhere.example/?a=b+c"
        cookie = first.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=lax" in cookie
        assert http.get("/v1/models").status_code == 200
        with pytest.raises(openai.AuthenticationError):
            ask(openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0), lm)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
    ],
)
def test_another_sites_page_does_not_get_in(http, headers):
    answer = http.get("/v1/models", headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_sockets_are_checked_too():
    from brainscan.page.access import Access

    def opened(*headers, query=b""):
        passed, sent = [], []

        async def app(scope, receive, send):
            passed.append(scope)

        async def send(message):
            sent.append(message["type"])

        scope = {"type": "websocket", "path": "/s", "query_string": query}
        scope["headers"] = [(b"host", b"localhost:80"), *headers]
        asyncio.run(Access(app, TOKEN)(scope, None, send))
        return bool(passed), sent

    assert opened() == (False, ["websocket.close"])
    assert opened(query=f"token={TOKEN}".encode()) == (True, [])
    cookie = (b"cookie", f"brainscan-80={TOKEN}".encode())
    assert opened(cookie) == (True, [])
    assert opened(cookie, (b"origin", b"http://localhost:80")) == (True, [])
    assert opened(cookie, (b"origin", b"http://localhost:81")) == (False, ["websocket.close"])


def test_this_page_and_known_names_get_in(http, url, service):
    assert http.get("/v1/models", headers={"Origin": url}).status_code == 200
    for host in ("localhost:1", "[::1]:80", "192.168.0.7", "LOCALHOST"):
        assert http.get("/v1/models", headers={"Host": host}).status_code == 200
    app = build_app(service, token=None, hosts=("mine.example",))
    with serving(app) as address, httpx.Client(base_url=address) as other:
        assert other.get("/v1/models", headers={"Host": "mine.example:8"}).status_code == 200
        assert other.get("/v1/models", headers={"Host": "not.example"}).status_code == 403


def test_large_requests_are_refused_before_they_are_read(http, url):
    answer = http.post("/v1/chat/completions", content=b"x" * 60_000)
    assert answer.status_code == 413 and "50000 bytes" in answer.json()["error"]["message"]
    sent = []

    def pieces():
        for _ in range(400):
            sent.append(1)
            yield b"x" * 10_000

    try:
        status = http.post("/v1/chat/completions", content=pieces()).status_code
    except httpx.TransportError:  # the server hung up while we were still sending
        status = 413
    assert status == 413
    host, port = url.removeprefix("http://").split(":")
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        raw.sendall(f"{head}Content-Length: 99999999999\r\n\r\n".encode())
        assert b" 413 " in raw.recv(4096).splitlines()[0]


def test_fifty_clients_at_once_are_all_answered(url, lm):
    wanted = plain(lm, n=1, max_new_tokens=8, seed=7)[0].text

    async def all_of_them():
        made = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0)

        async def one(number):
            fields = {"model": lm.name, "messages": MESSAGES, "max_tokens": 8, "seed": 7}
            if number % 2:
                return (await made.chat.completions.create(**fields)).choices[0].message.content
            text = ""
            async for chunk in await made.chat.completions.create(stream=True, **fields):
                text += chunk.choices[0].delta.content or ""
            return text

        async with made:
            return await asyncio.gather(*map(one, range(50)))

    assert asyncio.run(all_of_them()) == [wanted] * 50


def test_many_requests_leave_nothing_behind(http, lm, service):
    body = {"model": lm.name, "messages": MESSAGES, "max_tokens": 1, "edits": ["neurons.1/3=0"]}
    watched = {**body, "watch": True}
    for one in (body, watched):
        assert http.post("/v1/chat/completions", json=one).status_code == 200
    held, known = len(service.engine.store.states), len(service._lines._known)
    threads = threading.active_count()
    for number in range(120):
        one = watched if number % 4 == 0 else {**body, "stream": bool(number % 2)}
        assert http.post("/v1/chat/completions", json=one).status_code == 200
    assert len(service.engine.store.states) == held and len(service._lines._known) == known
    assert threading.active_count() <= threads + 8  # those that asyncio keeps for work
    assert not is_watched(lm.model)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_ends_its_row(url, lm, service, stream, monkeypatch):
    drawn, ends = [], threading.Event()
    answer = service.engine.answer

    async def noted(request):
        from dataclasses import replace

        told = request.on_token
        request = replace(request, on_token=lambda one: (drawn.append(one), told(one))[1])
        try:
            return await answer(request)
        finally:
            ends.set()

    monkeypatch.setattr(service.engine, "answer", noted)
    body = {"model": lm.name, "messages": MESSAGES, "max_tokens": 450, "stream": stream}
    body |= {"edits": ["neurons.1/3=*1.01"], "temperature": 0}
    assert len(plain(lm, max_new_tokens=450, temperature=0.0)[0].tokens) == 450
    data = json.dumps(body).encode()
    host, port = url.removeprefix("http://").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n"
    head += f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        raw.sendall(head.encode() + data)
        assert eventually(lambda: len(drawn) >= 5)
    assert ends.wait(5)
    assert eventually(lambda: not is_watched(lm.model))
    assert len(drawn) < 300


def test_an_error_of_the_servers_is_told_and_the_next_request_is_answered(
    client, lm, service, monkeypatch
):
    from brainscan.models import generate as writing

    def broken(*args):
        raise RuntimeError("a secret of the server")

    with monkeypatch.context() as patch:
        patch.setattr(writing.Run, "choose", broken)
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError, match="RuntimeError") as caught:
                ask(client, lm, stream=stream)
            assert "secret" not in str(caught.value)
    calls, choose = [], writing.Run.choose

    def later(self, *args):
        calls.append(1)
        if len(calls) > 4:
            raise RuntimeError("late")
        return choose(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(writing.Run, "choose", later)
        with pytest.raises(openai.APIError, match="RuntimeError"):
            list(ask(client, lm, stream=True))
    assert ask(client, lm).choices[0].message.content
    assert not is_watched(lm.model)


def test_a_token_is_made_by_chance(service):
    from brainscan.page.access import new_token

    for token in ("", "with space", "é", "a;b"):
        with pytest.raises(UsageError, match="token"):
            build_app(service, token=token)
    build_app(service, token=new_token())
    assert new_token() != new_token() and len(new_token()) >= 32


@pytest.mark.parametrize("name", ["x" * 300, " add:/etc/hosts=1", "\u2028"])
def test_names_of_edits_that_are_none_are_refused(client, lm, name):
    with pytest.raises(openai.BadRequestError, match="expected an edit"):
        ask(client, lm, extra_body={"edits": [name]})


def test_where_one_answer_fails_the_others_end(client, lm, service, monkeypatch):
    from dataclasses import replace

    drawn, answer, calls = [], service.engine.answer, []

    async def second_fails(request):
        calls.append(1)
        if len(calls) == 2:
            raise UsageError("luck", "none", "try again")
        told = request.on_token
        return await answer(
            replace(request, on_token=lambda one: (drawn.append(one), told(one))[1])
        )

    with monkeypatch.context() as patch:
        patch.setattr(service.engine, "answer", second_fails)
        with pytest.raises(openai.BadRequestError, match="luck"):
            ask(client, lm, n=2, max_tokens=450, temperature=0)
    ask(client, lm, max_tokens=1)  # the engine has gone on to something else
    assert len(drawn) < 100


def test_a_stream_of_a_text_tells_where_each_token_stands(client, lm):
    fields = {"model": lm.name, "prompt": "the day", "max_tokens": 12, "seed": 3, "logprobs": 1}
    whole = client.completions.create(**fields).choices[0]
    parts = [one.choices[0] for one in client.completions.create(stream=True, **fields)]
    told = [part.logprobs.text_offset[0] for part in parts if part.logprobs]
    assert told == whole.logprobs.text_offset and told[-1] > told[1] > 0


def test_what_json_has_no_word_for_is_left_out(lm):
    from brainscan.monitoring.jumps import Alarm
    from brainscan.page.forms import TextForm
    from brainscan.page.service import Answer, Piece

    piece = Piece(5, "a", -1.0, {"calm": 1.0, "threat": float("inf")}, float("inf"))
    (made,) = plain(lm, max_new_tokens=1)
    answer = Answer(made, (Alarm("threat", 0, 1, float("inf")),))
    told = TextForm(lm, False, True).watched([piece], answer)
    assert json.loads(json.dumps(told, allow_nan=False))["brainscan"]["alarms"][0]["score"] is None


def test_edited_watched_and_plain_clients_are_answered_together(url, lm):
    kinds = ({}, {"edits": ["neurons.1/3=0"]}, {"watch": True})

    async def all_of_them(count):
        made = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0)

        async def one(number):
            fields = {"model": lm.name, "messages": MESSAGES, "max_tokens": 6, "seed": number}
            fields["extra_body"] = kinds[number % 3]
            if number % 2:
                return (await made.chat.completions.create(**fields)).choices[0].message.content
            text = ""
            async for chunk in await made.chat.completions.create(stream=True, **fields):
                text += chunk.choices[0].delta.content or ""
            return text

        async with made:
            return await asyncio.gather(*map(one, range(count)))

    edits = [(), [parse_edit("neurons.1/3=0")], ()]
    for number, text in enumerate(asyncio.run(all_of_them(50))):
        own = plain(lm, edits=edits[number % 3], max_new_tokens=6, seed=number)
        assert text == own[0].text, number


def test_a_thousand_requests_leave_memory_and_hooks_as_they_were(http, lm, service):
    """Of all kinds; what is to be held is held by then, and the second half adds nothing."""
    import torch

    from brainscan.interventions import Direction, save_direction

    save_direction(
        service.folder / "grow.safetensors", Direction("resid_post.1", torch.ones(lm.d_model))
    )
    kinds = (
        {},
        {"edits": ["add:grow.safetensors=0.1"]},
        {"edits": ["neurons.1/3=0"]},
        {"watch": True},
        {"stream": True},
    )

    def answered(number):
        told = [{"role": "user", "content": f"the day was number {number % 97}"}]
        body = {"model": lm.name, "messages": told, "max_tokens": 1, **kinds[number % 5]}
        return http.post("/v1/chat/completions", json=body).status_code

    def ask_many(count):
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(answered, range(count))) == {200}
        gc.collect()
        assert not is_watched(lm.model)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in lm.model.modules())
        return resident(), len(service.engine.store.states), threading.active_count()

    half = ask_many(500)
    whole = ask_many(500)
    assert whole[0] - half[0] < 4 * 2**20
    assert whole[1] == half[1]
    assert whole[2] <= half[2] + 8  # those that asyncio keeps for work
    assert service.engine.store.limit <= 2**28


def resident():
    """Bytes of memory that this process has."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        pytest.skip("no /proc here to tell the memory from")
    return pages * os.sysconf("SC_PAGE_SIZE")
