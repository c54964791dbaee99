"""Plain data between processes: values arrive as they are, and nothing else does."""

import json
import os
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.course.checks import difference
from gen_affect_lib.course.checks.answer import Unknown
from gen_affect_lib.course.checks.probes import a_field
from gen_affect_lib.course.grading.wire import Channel, Closed, decode, encode
from gen_affect_lib.model.attention import QKV
from gen_affect_lib.model.consistent import Replace


def sent(value):
    return decode(json.loads(json.dumps(encode(value))))


class Pair(NamedTuple):
    one: object
    two: object


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, -3, 10**30, 0.5, float("inf"), "text", "ł", [], [1, [2.0]], (1,), {"a": (1, 2)}),
        *({1: "a", (1, 2): None}, {"b", "a"}, Pair(1, [2]), b"".decode()),
    ],
)
def test_plain_values_arrive_as_they_are(value):
    got = sent(value)
    assert got == value and (type(got) is type(value) or type(got).__name__ == type(value).__name__)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.complex64]
)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (4, 1, 2)])
def test_tensors_arrive_with_dtype_and_shape(dtype, shape):
    value = torch.randn(shape).mul(3).to(dtype)
    got = sent(value)
    assert got.dtype == dtype and torch.equal(got, value)
    assert torch.equal(sent(value.T if value.ndim == 2 else value), value.T if value.ndim == 2 else value)


@pytest.mark.parametrize("dtype", [bool, np.int32, np.float32, ">f8", np.complex128])
def test_arrays_and_their_numbers_arrive(dtype):
    value = np.arange(6).reshape(2, 3).astype(dtype)
    got = sent(value)
    assert got.dtype == value.dtype and np.array_equal(got, value)
    one = sent(value[1, 2])
    assert one == value[1, 2] and type(one) is type(value[1, 2])


def test_components_of_the_kit_arrive():
    avatar = Avatar(Identity.sample(3), Expression.named("glee"), Appearance.sample(5))
    assert sent(avatar) == avatar and sent(Replace.KEYS_VALUES) is Replace.KEYS_VALUES
    qkv = QKV(None, torch.ones(2), torch.zeros(1))
    assert isinstance(sent(qkv), QKV) and not difference(sent(qkv), qkv)
    assert sent(a_field) is a_field and sent(SimpleNamespace(a=1)).a == 1
    generator = torch.Generator().manual_seed(3)
    torch.rand(5, generator=generator)
    assert torch.equal(torch.rand(3, generator=sent(generator)), torch.rand(3, generator=generator))


def test_a_subclass_of_a_number_or_text_is_a_number_or_text():
    class Any(float):
        def __sub__(self, other):
            return 0.0

        def __mul__(self, other):
            return 5.0

    class Text(str):
        def __eq__(self, other):
            return True

        __hash__ = str.__hash__

    class Count(int):
        def __add__(self, other):
            return 7

    for value, kind, plain in ((Any(2.5), float, 2.5), (Text("a"), str, "a"), (Count(3), int, 3)):
        assert type(sent(value)) is kind and sent(value) == plain


@pytest.mark.parametrize(
    "value", [lambda: 1, object(), torch.nn.Linear(1, 1), torch.float32, b"bytes", np.array(["a"])]
)
def test_what_is_no_plain_data_arrives_as_a_description(value):
    got = sent(value)
    assert isinstance(got, Unknown) and got.words
    assert got.words in difference(got, 1.0)


@pytest.mark.parametrize(
    "message",
    [
        {"tensor": "float32", "shape": [3], "data": ""},
        {"tensor": "object", "shape": [], "data": ""},
        {"array": "|O", "shape": [1], "data": "AAAAAAAAAAA="},
        {"array": "<f4", "shape": [5], "data": "AAAAAA=="},
        {"made": "Popen", "fields": {"args": "ls"}},
        {"function": "system"},
        {"enum": "Replace", "name": "NONE"},
        {"named": "a b", "fields": ["x"], "values": [1]},
        {"pickle": "gASVAAA="},
        {"space": 3},
    ],
)
def test_what_no_encoder_makes_is_refused(message):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        decode(message)


def test_messages_are_lines_of_a_pipe():
    read, write = os.pipe()
    channel = Channel(read, write)
    channel.send({"a": "x" * 10_000})
    channel.send({"b": encode(torch.ones(3))})
    assert channel.receive() == {"a": "x" * 10_000} and torch.equal(decode(channel.receive()["b"]), torch.ones(3))
    for line in (b"[1]\n", b"{\n", b"\xff\n"):
        os.write(write, line)
        with pytest.raises(Closed):
            channel.receive()
    os.close(write)
    with pytest.raises(Closed):
        channel.receive()
