"""Choosing the device and its limits."""

import os
from importlib.metadata import version

import mlx.core as mx
import mlx.nn as nn
import pytest

from runtime.device import GIB, describe, get_device_info, select, synchronize
from runtime.errors import UsageError


@pytest.fixture(autouse=True)
def _restore():
    device, memory, cache = mx.default_device(), mx.get_memory_limit(), mx.set_cache_limit(GIB)
    mx.set_cache_limit(cache)
    yield
    mx.set_default_device(device)
    mx.set_memory_limit(memory)
    mx.set_cache_limit(cache)


def test_cpu_becomes_the_default_device():
    assert select("cpu") == mx.Device(mx.cpu) == mx.default_device()
    said = describe()
    assert said["device"] == "cpu" and said["mlx"] == version("mlx") and said["blas"]


def test_auto_takes_a_gpu_where_there_is_one():
    assert select("auto") == mx.Device(mx.gpu if mx.is_available(mx.gpu) else mx.cpu)


@pytest.mark.skipif(mx.is_available(mx.gpu), reason="has a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="device=gpu.*no GPU.*device=cpu"):
        select("gpu")


def test_limits_reach_mlx():
    select("cpu", memory_gib=1.5, cache_gib=0.25)
    assert mx.get_memory_limit() == int(1.5 * GIB)
    assert mx.set_cache_limit(GIB) == int(0.25 * GIB)


def test_wrong_values_name_what_was_got():
    with pytest.raises(UsageError, match="'tpu'"):
        select("tpu")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="the memory limit must be above 0 .*0"):
        select("cpu", memory_gib=0)
    with pytest.raises(UsageError, match="cache_gib.*-1"):
        select("cpu", cache_gib=-1)


def test_device_info_has_the_description_and_what_mlx_tells():
    select("cpu")
    info = get_device_info()
    assert info.items() >= describe().items() and info.items() >= mx.device_info(mx.Device(mx.cpu)).items()
    assert info["gpus"] == mx.device_count(mx.gpu) and info["cores"] == os.cpu_count()


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.int32])
@pytest.mark.usefixtures("still_memory")
def test_synchronize_computes_what_it_is_given_wherever_it_is(dtype):
    def held(*wrapped):
        """Bytes that computing a million lazy zeros adds."""
        lazy = mx.zeros((1 << 20,), dtype) + 1
        before = mx.get_active_memory()
        synchronize(*(wrap(lazy) for wrap in wrapped))
        return mx.get_active_memory() - before

    def module(x):
        layer = nn.Linear(1, 1)
        layer.weight = x
        return nn.Sequential(nn.Sequential(layer))

    for wrap in (lambda x: x, lambda x: {"a": [(x,)], "b": None}, lambda x: [{"_b": x}], module):
        assert held(wrap) >= (dtype.size << 20) - 8  # the 1's own memory goes
    assert held() < 1000 and held(lambda x: None) < 1000
