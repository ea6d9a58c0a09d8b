from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brainscan.errors import ArtifactError, UsageError
from brainscan.interventions import (
    Ablate,
    Add,
    Clamp,
    Direction,
    Probe,
    ProjectOut,
    Scale,
    Span,
    Swap,
    Where,
    format_edit,
    load_direction,
    load_probe,
    parse_edit,
    save_direction,
    save_probe,
)

TARGET = "resid_post.15/1234"


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        (f"{TARGET}=2x", Clamp(TARGET, 2.0)),
        (f"{TARGET}=-1.5x", Clamp(TARGET, -1.5)),
        (f"{TARGET}=0", Ablate(TARGET)),
        (f"{TARGET}=0.25", Ablate(TARGET, 0.25)),
        (f"{TARGET}=*1.5", Scale(TARGET, 1.5)),
        (f"{TARGET}=+2x", Add(TARGET, 2.0)),
        (f"{TARGET}=+-2x", Add(TARGET, -2.0)),
        ("neurons.12/345-=1e-1x", Clamp("neurons.12/345-", 0.1)),
        (f"{TARGET}=2x@prompt", Clamp(TARGET, 2.0, positions="prompt")),
        (f"{TARGET}=2x@response", Clamp(TARGET, 2.0, positions="response")),
        (f"{TARGET}=2x@12:40", Clamp(TARGET, 2.0, positions=Span(12, 40))),
        (f"{TARGET}=2x@12:", Clamp(TARGET, 2.0, positions=Span(12))),
        (
            f"{TARGET}=2x@where(resid_post.15/99>1x)",
            Clamp(TARGET, 2.0, positions=Where("resid_post.15/99", 1.0)),
        ),
        (f"project_out:{TARGET}@0:3", ProjectOut(TARGET, positions=Span(0, 3))),
        ("swap:mlp_out.1/2,mlp_out.1/3", Swap("mlp_out.1/2", "mlp_out.1/3")),
    ],
)
def test_what_the_grammar_means(text, edit):
    assert parse_edit(text) == edit
    assert parse_edit(format_edit(edit)) == edit


@pytest.mark.parametrize(
    "text",
    [
        "",
        TARGET,
        f"{TARGET}=",
        f"{TARGET}=x",
        f"{TARGET}=*2x",
        f"{TARGET}=+2",
        f"{TARGET}=nan",
        f"{TARGET}=infx",
        f"{TARGET}=2x@somewhere",
        f"{TARGET}=2x@where({TARGET}>1)",
        f"{TARGET}=1e999x",
        "resid_post.15=2x",
        "add:file",
        "swap:a,b",
        "blocks.1.hook_nothing/2=2x",
    ],
)
def test_what_is_no_edit(text):
    with pytest.raises(UsageError):
        parse_edit(text)


def test_an_empty_span_is_refused():
    with pytest.raises(UsageError, match="start < stop"):
        parse_edit(f"{TARGET}=2x@4:4")


@pytest.mark.parametrize("name", ["a direction.safetensors", "odd=2x@12:40.safetensors"])
def test_directions_come_from_files(tmp_path, name):
    path = tmp_path / name
    direction = Direction("resid_post.3", torch.arange(4.0), str(path), mean=torch.ones(4))
    save_direction(path, direction)
    assert load_direction(path) == direction
    for edit in (Add(direction, 0.5, positions="prompt"), ProjectOut(direction)):
        assert parse_edit(format_edit(edit)) == edit
    assert parse_edit(f"add:{path}=0.5@prompt") == Add(direction, 0.5, positions="prompt")


@pytest.mark.parametrize("bias", [0.0, -2.5e-7])
def test_a_condition_may_be_a_probe_from_a_file(tmp_path, bias):
    path = tmp_path / "a probe>0.5).safetensors"
    probe = Probe(Direction("resid_post.3", torch.arange(4.0), str(path), torch.ones(4)), bias)
    save_probe(path, probe)
    assert load_probe(path) == probe
    for score in (0.5, -1e-3):
        edit = Clamp(TARGET, 2.0, positions=Where(probe, score))
        assert parse_edit(format_edit(edit)) == edit
        assert parse_edit(f"{TARGET}=2x@where({path}>{score})") == edit
    save_direction(path, probe.direction)
    assert load_probe(path) == Probe(probe.direction)


def test_a_probe_whose_bias_is_no_number(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "probe.safetensors"
    save_file({"direction": torch.ones(3)}, path, {"hookpoint": "mlp_out.2", "bias": "big"})
    with pytest.raises(ArtifactError, match="bias 'big'"):
        parse_edit(f"{TARGET}=2x@where({path}>0.5)")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("blocks.15.hook_resid_post/12=2x", "resid_post.15/12=2x"),
        ("blocks.3.mlp.hook_post/4-=0", "neurons.3/4-=0"),
        ("project_out:blocks.3.hook_mlp_out/4@prompt", "project_out:mlp_out.3/4@prompt"),
        (
            "swap:blocks.1.hook_attn_out/2,attn_out.1/3@where(blocks.0.hook_resid_pre/9>1x)",
            "swap:attn_out.1/2,attn_out.1/3@where(resid_pre.0/9>1x)",
        ),
    ],
)
def test_hookpoints_by_their_names_in_transformer_lens(theirs, ours):
    assert parse_edit(theirs) == parse_edit(ours)


def test_a_single_tensor_of_any_name_is_the_direction(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "probe.safetensors"
    save_file({"weight": torch.arange(3.0)}, path, metadata={"hookpoint": "mlp_out.2"})
    expected = Direction("mlp_out.2", torch.arange(3.0), str(path))
    assert parse_edit(f"project_out:{path}") == ProjectOut(expected)


@pytest.mark.parametrize(
    ("tensors", "metadata", "got"),
    [
        ({"direction": torch.ones(3)}, None, "hookpoint None"),
        ({"direction": torch.ones(3, 2)}, {"hookpoint": "mlp_out.2"}, r"shape \[3, 2\]"),
        ({"a": torch.ones(3), "b": torch.ones(3)}, {"hookpoint": "mlp_out.2"}, "tensors a, b"),
    ],
)
def test_files_that_hold_no_direction(tmp_path, tensors, metadata, got):
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "bad.safetensors", metadata=metadata)
    with pytest.raises(ArtifactError, match=got):
        load_direction(tmp_path / "bad.safetensors")


def test_a_missing_and_a_truncated_file(tmp_path):
    with pytest.raises(ArtifactError, match=r"none\.safetensors"):
        parse_edit(f"project_out:{tmp_path / 'none.safetensors'}")
    path = tmp_path / "cut.safetensors"
    save_direction(path, Direction("mlp_out.2", torch.ones(8)))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ArtifactError, match=r"cut\.safetensors"):
        load_direction(path)


def test_what_has_no_words_is_refused():
    probe = Probe(Direction("resid_post.1", torch.ones(2)))
    for edit in (
        Clamp(TARGET, 1.0, positions=Where(probe, 0.0)),
        Add(Direction("resid_post.1", torch.ones(2)), 1.0),
        Clamp(Direction("resid_post.1", torch.ones(2), "file"), 1.0),
        Clamp(TARGET, 1.0, positions=Where(TARGET, 1.0, within="response")),
        Clamp(TARGET, 1.0, sinks=True),
        Clamp("neurons.1/2", 1.0, maximum=3.0),
    ):
        with pytest.raises(UsageError, match="save_edits"):
            format_edit(edit)


_numbers = st.floats(allow_nan=False, allow_infinity=False)
_features = st.one_of(
    st.builds("resid_post.{}/{}".format, st.integers(0, 99), st.integers(0, 10**6)),
    st.builds(
        "neurons.{}/{}{}".format, st.integers(0, 9), st.integers(0, 99), st.sampled_from("+-")
    ),
)
_spans = st.builds(
    lambda start, length: Span(start, None if length is None else start + length),
    st.integers(0, 10**6),
    st.none() | st.integers(1, 10**6),
)
_positions = st.one_of(
    st.sampled_from(["all", "prompt", "response"]), _spans, st.builds(Where, _features, _numbers)
)
_edits = st.one_of(
    *(
        st.builds(kind, _features, _numbers, positions=_positions)
        for kind in (Add, Scale, Clamp, Ablate)
    ),
    st.builds(ProjectOut, _features, positions=_positions),
    st.builds(Swap, _features, _features, positions=_positions),
)


@given(_edits)
def test_what_is_formatted_is_parsed_back(edit):
    assert parse_edit(format_edit(edit)) == edit
