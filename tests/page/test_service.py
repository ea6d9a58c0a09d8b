from __future__ import annotations

import asyncio
import math
import random
import shutil
import threading
import time

import pytest
import torch

from brainscan.errors import ArtifactError, BrainscanError, UsageError
from brainscan.interventions import Add, Scale, Swap, save_direction, save_edits
from brainscan.models.decoding import is_watched
from brainscan.models.generate import Sampling, generate
from brainscan.models.prefixes import PromptStore
from brainscan.models.tiny import tiny
from brainscan.page.service import Answer, Ask, Service
from brainscan.page.streams import TextStream
from brainscan.stress.engine import Engine, Request
from brainscan.stress.rolling import Newcomer, RollingBatch

PROMPT = "the day was one"
DRAWN = Sampling(max_new_tokens=24, temperature=1.0)
TOKEN_TAKES = 0.05


def ask(lm, text=PROMPT, sampling=DRAWN, **more):
    return Ask(tuple(lm.chat_tokens(text)), sampling, **more)


def alone(lm, one):
    """What a request would get from `generate`."""
    edits = [one.edits]
    return generate(lm, [one.prompt], one.sampling, edits=edits, seeds=[one.seed], logprobs=True)[0]


def test_a_stream_gives_what_generate_gives(lm, service):
    one = ask(lm, seed=5)
    pieces, answer = asyncio.run(service.answer(one))
    wanted = alone(lm, one)
    made = answer.generation
    assert made.tokens == wanted.tokens and made.stop_reason == wanted.stop_reason
    assert [piece.token for piece in pieces] == made.tokens
    assert "".join(piece.text for piece in pieces) == made.text == wanted.text
    assert [piece.logprob for piece in pieces] == pytest.approx(wanted.logprobs, abs=1e-4)
    assert all(math.isnan(piece.jump) and not piece.concepts for piece in pieces)
    assert answer.alarms == ()


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3_next"])
def test_rows_that_come_and_go_get_what_they_would_get_alone(family, direction):
    lm = tiny(family)
    engine = Engine(lambda: lm, batch=5)
    edits = [
        (),
        (Add(direction(), 0.8),),
        (Scale(direction("resid_post.2", 2), 0.2, positions="response"),),
    ]
    requests = [
        Request(
            prompt=tuple(lm.tokenize(f"{PROMPT} " * (1 + n % 4) + str(n))),
            sampling=Sampling(
                max_new_tokens=2 + 5 * (n % 4),
                temperature=(0.0, 1.0)[n % 2],
                top_p=(1.0, 0.9)[n % 2],
            ),
            seed=n,
            edits=edits[n % 3],
            on_token=lambda drawn: None,
        )
        for n in range(12)
    ]

    async def all_of_them():
        async def one(n):
            await asyncio.sleep(0.003 * n)
            return await engine.answer(requests[n])

        return await asyncio.gather(*map(one, range(len(requests))))

    made = asyncio.run(all_of_them())
    engine.close()
    assert not is_watched(lm.model)
    for request, got in zip(requests, made, strict=True):
        wanted = alone(lm, request)
        assert (got.tokens, got.text, got.stop_reason) == (
            wanted.tokens,
            wanted.text,
            wanted.stop_reason,
        )
        assert got.logprobs == pytest.approx(wanted.logprobs, abs=1e-3)


def test_who_hears_of_the_end_finds_the_model_as_it_was(lm, direction):
    rolling, seen = RollingBatch(lm, PromptStore(), 4), []
    how = Sampling(max_new_tokens=3)
    row = Newcomer(
        prompt=(5, 6),
        sampling=how,
        seed=0,
        edits=(Add(direction(), 1.0),),
        alternatives=0,
        hold=True,
        on_drawn=lambda drawn: None,
        on_end=lambda made: seen.append((made.stop_reason, is_watched(lm.model))),
    )
    with rolling.running():
        rolling.admit(row)
        while rolling.live:
            rolling.step()
    assert seen == [("length", False)]


def test_a_newcomer_joins_what_is_being_written(lm):
    engine, order = Engine(lambda: lm), []
    long = Sampling(max_new_tokens=150, temperature=1.0)
    short = Sampling(max_new_tokens=3)

    async def both():
        began = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def one(name, sampling):
            note = lambda drawn: loop.call_soon_threadsafe(began.set) and None  # noqa: E731
            prompt = tuple(lm.tokenize(PROMPT))
            await engine.answer(Request(prompt, sampling, 9, on_token=note))
            order.append(name)

        first = asyncio.ensure_future(one("long", long))
        await began.wait()
        await asyncio.gather(first, one("short", short))

    asyncio.run(both())
    engine.close()
    assert order == ["short", "long"]


def test_other_work_waits_for_the_next_token_only_and_finds_no_edits(lm, service, direction):
    async def both():
        stream = service.stream(ask(lm, sampling=Sampling(120), edits=(Add(direction(), 1.0),)))
        await anext(stream)
        during = await service.run(lambda lm: is_watched(lm.model))
        needs_grad = await service.run(lambda lm: torch.is_grad_enabled())
        rest = [item async for item in stream]
        return during, needs_grad, rest

    watched, grad, rest = asyncio.run(both())
    assert not watched and grad
    wanted = alone(lm, ask(lm, sampling=Sampling(120), edits=(Add(direction(), 1.0),)))
    assert rest[-1].generation.tokens == wanted.tokens


def test_work_that_fails_tells_who_asked(lm, service):
    def broken(lm):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(service.run(broken))
    assert asyncio.run(service.answer(ask(lm)))[1].generation.tokens


@pytest.mark.parametrize("stop", [(), ("day",), ("and w", "nd"), ("😀",), ("été",)])
def test_the_parts_of_a_text_are_the_text(lm, stop):
    draw = random.Random(0)
    texts = ["the day ✅ naïve 漢字 and word été", "é😀😀 one", "\ufffd and"]
    for number in range(150):
        known = lm.tokenize(draw.choice(texts) * 2)
        chance = [draw.randrange(3, len(lm.tokenizer)) for _ in range(draw.randrange(1, 30))]
        stream, parts, so_far = TextStream(lm, stop), [], []
        for token in known if number % 2 else chance:
            so_far.append(token)
            parts.append(stream.add(token))
            if any(one in lm.decode(so_far) for one in stop):
                break
        whole = lm.decode(so_far)
        for one in stop:
            whole = whole.partition(one)[0]
        assert "".join([*parts, stream.finish(whole)]) == whole


def test_a_watch_tells_of_each_token_that_was_read(lm, service, detectors):
    prompt = tuple(lm.chat_tokens(PROMPT))
    one = Ask(prompt, DRAWN, 5, watch=True, roles=("user",) * len(prompt))
    pieces, answer = asyncio.run(service.answer(one))
    plain, same = asyncio.run(service.answer(ask(lm, seed=5)))
    assert answer.generation == same.generation
    assert [piece.text for piece in pieces] == [piece.text for piece in plain]
    assert all(set(piece.concepts) == set(detectors.names) for piece in pieces[:-1])
    assert not pieces[-1].concepts and math.isnan(pieces[-1].jump)
    assert answer.alarms and answer.alarms[0].concept == "threat"
    # one pass over the same tokens sees the same
    tokens = [*prompt, *answer.generation.tokens]
    reading = asyncio.run(service.read(tokens, written=len(answer.generation.tokens)))
    read = reading.tokens[len(prompt) :]
    assert [token.surprise for token in read] == pytest.approx(
        [-piece.logprob for piece in pieces], abs=1e-4
    )
    for token, piece in zip(read[:-1], pieces[:-1], strict=True):
        assert token.concepts == pytest.approx(piece.concepts, abs=1e-3)
        assert token.jump == pytest.approx(piece.jump, abs=1e-2)
    assert reading.alarms[0][:3] == answer.alarms[0][:3]


def test_watched_and_edited_rows_share_a_batch(lm, service, direction):
    asks = [
        ask(lm, seed=1),
        ask(lm, seed=2, watch=True),
        ask(lm, seed=3, edits=(Add(direction(), 0.7),)),
        ask(lm, seed=4, edits=(Add(direction(seed=4), -0.7),), watch=True),
    ]

    async def together():
        return await asyncio.gather(*map(service.answer, asks))

    for one, (pieces, answer) in zip(asks, asyncio.run(together()), strict=True):
        assert answer.generation.tokens == alone(lm, one).tokens
        assert bool(pieces[0].concepts) == one.watch
    assert asyncio.run(service.answer(asks[3]))[0][4].concepts == pytest.approx(
        asyncio.run(service.answer(asks[3]))[0][4].concepts
    )


def test_a_watch_leaves_no_prompt_behind(lm, service):
    asyncio.run(service.answer(ask(lm)))
    held = len(service.engine.store.states)
    for seed in range(3):
        asyncio.run(service.answer(ask(lm, seed=seed, watch=True)))
    assert len(service.engine.store.states) == held


def test_a_service_without_detectors_watches_nothing(lm, tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINSCAN_CACHE", str(tmp_path))
    service = Service(lambda: lm, folder=tmp_path)
    with pytest.raises(UsageError, match="detectors"):
        asyncio.run(service.answer(ask(lm, watch=True)))
    reading = asyncio.run(service.read(lm.tokenize(PROMPT)))
    assert math.isnan(reading.tokens[0].surprise) and reading.tokens[1].surprise > 0
    assert reading.scan is None and not reading.tokens[1].concepts
    with pytest.raises(UsageError, match="1 to 1024"):
        asyncio.run(service.read([]))
    asyncio.run(service.close())


def test_a_reading_has_latents_and_sees_edits(lm, tmp_path, detectors, direction):
    from brainscan.dictionaries.testing import random_dictionary

    dictionary = random_dictionary(lm.d_model)
    service = Service(lambda: lm, detectors=detectors, folder=tmp_path)
    service.__dict__["_instruments"] = type(service._instruments)(dictionary, None, detectors)
    tokens = lm.tokenize(PROMPT * 3)
    plain = asyncio.run(service.read(tokens))
    assert [token.text for token in plain.scan.tokens] == [token.text for token in plain.tokens]
    edit = Add(direction(), 3.0, positions="response")
    same = asyncio.run(service.read(tokens, [edit]))
    other = asyncio.run(service.read(tokens, [edit], written=2))
    assert [t.surprise for t in same.tokens[1:]] == [t.surprise for t in plain.tokens[1:]]
    assert other.tokens[-2].surprise == pytest.approx(plain.tokens[-2].surprise, abs=1e-4)
    assert other.tokens[-1].surprise != pytest.approx(plain.tokens[-1].surprise, abs=1e-3)
    asyncio.run(service.close())


def test_a_closed_stream_ends_its_row(lm, tmp_path):
    engine_tokens = []
    service = Service(lambda: lm, folder=tmp_path)
    service.engine.answer = _counting(service.engine.answer, engine_tokens)

    async def leave(cancel):
        stream = service.stream(ask(lm, sampling=Sampling(400)))

        async def read():
            async for _ in stream:
                if len(engine_tokens) >= 3:
                    await asyncio.sleep(30 if cancel else 0)
                    return

        task = asyncio.ensure_future(read())
        while len(engine_tokens) < 5 and not task.done():
            await asyncio.sleep(0.001)
        before = len(engine_tokens)
        if cancel:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await stream.aclose()
        await service.run(lambda lm: None)
        await asyncio.sleep(6 * TOKEN_TAKES)
        assert 3 <= before <= len(engine_tokens) <= before + 2
        assert not is_watched(lm.model)
        engine_tokens.clear()

    assert len(alone(lm, ask(lm, sampling=Sampling(400))).tokens) == 400

    for cancel in (False, True):
        asyncio.run(leave(cancel))
    service.engine.close()


def _counting(answer, tokens):
    """Answers whose tokens are counted, and take as long as a larger model's."""
    from dataclasses import replace

    def counted(request):
        def on_token(one):
            tokens.append(one)
            time.sleep(TOKEN_TAKES)
            return request.on_token(one)

        return answer(replace(request, on_token=on_token))

    return counted


def test_an_error_ends_its_own_row_and_the_engine_lives(lm, service):
    class Broken:
        acts_on_prompt = False

        def __init__(self, when):
            self.when = when

        def attach(self, lm):
            if self.when == "attach":
                raise RuntimeError("cannot be put on")

            def hook(x, site):
                raise RuntimeError("cannot run")

            return [("resid_post.1", hook)]

    async def with_a_neighbour(when):
        rows = (ask(lm, seed=1), ask(lm, seed=2, edits=(Broken(when),)))
        return await asyncio.gather(*map(service.answer, rows), return_exceptions=True)

    well, broken = asyncio.run(with_a_neighbour("attach"))
    assert isinstance(broken, RuntimeError)
    assert well[1].generation.tokens == alone(lm, ask(lm, seed=1)).tokens
    assert isinstance(asyncio.run(with_a_neighbour("run"))[1], RuntimeError)
    assert not is_watched(lm.model)
    too_long = Ask((5,) * 1100, DRAWN)
    with pytest.raises(UsageError, match="context window"):
        asyncio.run(service.answer(too_long))
    assert asyncio.run(service.answer(ask(lm, seed=1)))[1] == Answer(well[1].generation)


def test_an_edit_that_fails_at_a_token_ends_its_own_row_and_the_others_go_on(lm, service):
    class Late:
        """Works on the prompt and on a few tokens, and then no more."""

        acts_on_prompt = False

        def attach(self, lm):
            def hook(x, site):
                if int(site.positions.max()) > len(ask(lm).prompt) + 3:
                    raise RuntimeError("cannot go on")
                return x

            return [("resid_post.1", hook)]

    late = Late()
    rows = [ask(lm, seed=n, edits=(late,) if n in (2, 5) else ()) for n in range(1, 7)]

    async def together():
        return await asyncio.gather(*map(service.answer, rows), return_exceptions=True)

    for row, got in zip(rows, asyncio.run(together()), strict=True):
        if row.edits:
            assert isinstance(got, RuntimeError) and "cannot go on" in str(got)
        else:
            assert got[1].generation.tokens == alone(lm, row).tokens
    assert not is_watched(lm.model)
    assert asyncio.run(service.answer(rows[0]))[1].generation.tokens == alone(lm, rows[0]).tokens


def test_a_model_that_cannot_be_loaded_tells_who_asked(tmp_path):
    def load():
        raise UsageError("a model", "none", "give one")

    service = Service(load, folder=tmp_path)
    with pytest.raises(UsageError, match="a model"):
        asyncio.run(service.ready())
    asyncio.run(service.close())
    with pytest.raises(UsageError, match="closed"):
        asyncio.run(service.ready())


def test_what_waits_when_the_engine_closes_is_answered(lm):
    engine, began = Engine(lambda: lm, batch=1), threading.Event()
    row = Request((5, 6), Sampling(500), 0, on_token=lambda one: began.set())
    waits = Request((5, 6), Sampling(500), 0, on_token=lambda one: None)

    async def both():
        tasks = [asyncio.ensure_future(engine.answer(one)) for one in (row, waits)]
        await asyncio.to_thread(began.wait)
        await asyncio.to_thread(engine.close)
        return await asyncio.gather(*tasks, return_exceptions=True)

    running, waiting = asyncio.run(both())
    assert running.stop_reason == "cancelled" and isinstance(waiting, UsageError)


def test_edits_come_from_lines_and_from_the_folder_alone(lm, service, direction, tmp_path):
    folder = service.folder
    save_edits(folder / "mine", [Add(direction(), 1.0), Add(direction(seed=3), 1.0)])
    save_direction(folder / "d.safetensors", direction())
    save_direction(tmp_path / "other.safetensors", direction())
    save_edits(tmp_path / "other", [Add(direction(), 1.0)])

    def edits(*lines):
        return asyncio.run(service.edits(lines))

    assert service.saved() == ("mine",)
    assert len(edits("mine", "neurons.1/3=0")) == 3
    assert edits("mine") is not edits("mine") and edits("mine")[0] is edits("mine")[0]
    (added,) = edits("add:d.safetensors=0.5@response")
    assert added.strength == 0.5 and added.positions == "response"
    assert len(edits("project_out:d.safetensors", "neurons.2/3=*2@where(d.safetensors>0.5)")) == 2
    outside = f"{tmp_path}/other"
    for line in (
        outside,
        f"../{tmp_path.name}/other",
        f"mine/../../{tmp_path.name}/other",
        f"add:{outside}.safetensors=1",
        f"add:../{tmp_path.name}/other.safetensors=1",
        f"project_out:{outside}.safetensors",
        f"project_out:./../{tmp_path.name}/other.safetensors",
        f"neurons.1/3=0@where({outside}.safetensors>0.5)",
        "add:~/other.safetensors=1",
        "add:d.safetensors=1@where(/etc/x@where(a>1)>2)",
        "nobody",
        "",
        "resid_post.1/5",
        "neurons.1/99999=0",
        "neurons.77/1=0",
        "neurons.1/3=2q",
        "x" * 1000,
        "neurons.1/3=0\n",
    ):
        with pytest.raises(BrainscanError):
            edits(line)
    (folder / "link").symlink_to(tmp_path / "other")
    with pytest.raises(BrainscanError):
        edits("link")
    with pytest.raises(ArtifactError):
        edits("add:absent.safetensors=1")
    with pytest.raises(UsageError, match="at most"):
        edits(*["neurons.1/3=0"] * 65)
    assert not is_watched(lm.model)


def test_saved_edits_that_change_are_read_again(service, direction):
    folder = service.folder / "changing"
    save_edits(folder, [Add(direction(), 1.0)])
    (first,) = asyncio.run(service.edits(["changing"]))
    shutil.rmtree(folder)
    save_edits(folder, [Add(direction(), 2.0)])
    place = service.folder / "v.safetensors"
    for seed in (1, 2):
        save_direction(place, direction(seed=seed))
        (added,) = asyncio.run(service.edits(["add:v.safetensors=1"]))
        assert torch.equal(added.target.vector, direction(seed=seed).vector)
    (second,) = asyncio.run(service.edits(["changing"]))
    assert (first.strength, second.strength) == (1.0, 2.0)


def test_a_file_is_opened_in_the_folder_alone_however_it_is_written(service, direction, tmp_path):
    folder = service.folder
    save_direction(tmp_path / "out.safetensors", direction())
    save_direction(folder / "in.safetensors", direction())
    (folder / "way").symlink_to(tmp_path)
    (folder / "way.safetensors").symlink_to(tmp_path / "out.safetensors")
    (folder / "way=3").symlink_to(tmp_path / "out.safetensors")
    (folder / "in.safetensors@here").symlink_to(tmp_path / "out.safetensors")
    (folder / "round").symlink_to(folder / "round")
    outside = tmp_path / "out.safetensors"
    told = set()
    for line in (
        f" add:{outside}=1",
        f"\tproject_out:{outside}",
        f"add:{outside}=1 ",
        " add:/nowhere.safetensors=1",
        "add:way/out.safetensors=1",
        "add:way.safetensors=1",
        "project_out:way/out.safetensors",
        "project_out:way=3",
        "project_out:in.safetensors@here",
        "add:in=1=1",
        "add:round/in.safetensors=1",
        "neurons.1/3=0@where(way.safetensors>0.5)",
    ):
        with pytest.raises(ArtifactError, match="service's folder") as caught:
            asyncio.run(service.edits([line]))
        told.add(str(caught.value).replace(repr(line), ""))
    assert len(told) == 1  # nothing tells what is there from what is not
    assert asyncio.run(service.edits(["add:in.safetensors=-1.5@response"]))
    for name in ("way", "way.safetensors", "way=3", "in.safetensors@here", "round"):
        (folder / name).unlink()


def test_saved_edits_whose_files_are_links_are_not_read(service, direction, tmp_path):
    save_edits(tmp_path / "outside", [Add(direction(), 1.0)])
    place = service.folder / "linked"
    place.mkdir()
    for file in (tmp_path / "outside").iterdir():
        (place / file.name).symlink_to(file)
    with pytest.raises(UsageError, match="the name of saved edits"):
        asyncio.run(service.edits(["linked"]))
    shutil.rmtree(place)


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "x" * 300])
def test_a_name_that_is_too_long_is_refused(service, name):
    with pytest.raises(UsageError, match="the name of saved edits"):
        asyncio.run(service.edits([name]))


def test_an_edit_that_cannot_act_is_refused_and_its_neighbours_go_on(
    lm, tmp_path, detectors, direction
):
    from dataclasses import replace

    from brainscan.dictionaries.testing import random_dictionary
    from brainscan.page.reading import Instruments

    whole = random_dictionary(lm.d_model)
    never = whole.activation_max.clone()
    never[3] = 0
    service = Service(lambda: lm, dictionary="random", detectors=detectors, folder=tmp_path)
    dictionary = replace(whole, activation_max=never)
    service.__dict__["_instruments"] = Instruments(dictionary, None, detectors)
    twice = replace(direction(), vector=2 * direction().vector)
    save_edits(tmp_path / "same", [Swap(direction(), twice, positions="response")])
    lines = ["resid_post.1/3=2x@response", "resid_post.1/3=2x@500:", "same"]

    async def all_of_them():
        async def edited(line):
            edits = await service.edits([line])
            return await service.answer(ask(lm, edits=edits))

        rows = [service.answer(ask(lm, seed=1)), *map(edited, lines)]
        return await asyncio.gather(*rows, return_exceptions=True)

    well, *refused = asyncio.run(all_of_them())
    assert well[1].generation.tokens == alone(lm, ask(lm, seed=1)).tokens
    assert all(isinstance(one, BrainscanError) for one in refused), refused
    asyncio.run(service.close())


def test_edits_that_name_a_file_hold_no_prompts(lm, service, direction):
    save_direction(service.folder / "often.safetensors", direction())

    async def answered(line):
        return await service.answer(ask(lm, edits=await service.edits([line])))

    asyncio.run(answered("neurons.1/3=0"))
    held = len(service.engine.store.states)
    for _ in range(3):
        asyncio.run(answered("add:often.safetensors=0.5"))
    assert len(service.engine.store.states) == held
    assert service.engine.store.limit == 2**28


def test_alarms_are_of_the_answers_own_tokens(lm, service, monkeypatch):
    from brainscan.monitoring.jumps import Alarm
    from brainscan.monitoring.watch import Watch

    one = ask(lm, seed=5, watch=True)
    first, end = len(one.prompt), len(one.prompt) + DRAWN.max_new_tokens
    told = [Alarm("threat", 0, at, 1.0) for at in (first - 1, first, end - 2, end - 1, end + 4)]
    monkeypatch.setattr(Watch, "alarms", property(lambda watch: told))
    _, answer = asyncio.run(service.answer(one))
    assert len(answer.generation.tokens) == DRAWN.max_new_tokens
    assert [alarm.token for alarm in answer.alarms] == [first, end - 2]


def test_lines_are_looked_up_while_others_are_read(lm, service, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr("brainscan.page.edit_lines._KEPT", 4)
    lines = [f"neurons.1/{n}=0" for n in range(12)]

    def look(number):
        for turn in range(3000):
            service._lines.known([lines[(number + turn) % 12]])
            service._lines.keeps(())
        return True

    with ThreadPoolExecutor(3) as threads:
        looking = [threads.submit(look, number) for number in range(3)]
        while not all(one.done() for one in looking):
            for line in lines:
                service._lines.read(lm, [line], None)
        assert all(one.result() for one in looking)


def test_features_are_left_out_where_edits_would_act_elsewhere(direction):
    from brainscan.dictionaries.testing import random_dictionary
    from brainscan.page.reading import Instruments, read_text

    long = tiny("llama", max_position_embeddings=2048)
    tokens = (long.tokenize(PROMPT) * 400)[:1200]
    kit = Instruments(random_dictionary(long.d_model), None, None)
    late = Add(direction(), 1.0, positions="response")
    read = read_text(long, tokens, [late], kit, written=10)
    assert read.scan is None and "left out" in read.note
    everywhere = read_text(long, tokens, [Add(direction(), 1.0)], kit, written=10)
    assert everywhere.scan is not None and not everywhere.note
    short = read_text(long, tokens[:100], [late], kit, written=10)
    assert short.scan is not None


def test_a_stream_hears_that_the_service_was_closed(lm, tmp_path):
    service = Service(lambda: lm, folder=tmp_path)

    async def closed():
        stream = service.stream(ask(lm, sampling=Sampling(600, temperature=1.0)))
        await anext(stream)
        await service.close()
        return [piece async for piece in stream]

    with pytest.raises(UsageError, match="one that was stopped"):
        asyncio.run(closed())
