import ctypes

import mlx.core as mx
import mlx.nn as nn
import pytest

from models.convolution import Conv2d, ConvTranspose1d
from models.dit import DiT
from models.unet import UNet
from ops.model_op import ModelOp
from runtime import graphs
from training.network import Network


@pytest.fixture
def told(monkeypatch):
    found = {}
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    monkeypatch.setattr(graphs, "_setenv", found.__setitem__)
    return found


@pytest.mark.parametrize(
    "layer", [nn.Conv1d(2, 2, 3), nn.ConvTranspose2d(2, 2, 3), Conv2d(2, 2), ConvTranspose1d(2, 2)]
)
def test_a_convolution_anywhere_in_a_network_turns_graphs_off(told, layer):
    Network(ModelOp(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), layer)), "x", "y"))
    assert told == {"MLX_USE_CUDA_GRAPHS": "0"}


def test_a_unet_has_convolutions_and_a_dit_none(told):
    graphs.choose([DiT((4, 4, 1), hidden=8, depth=1, heads=2), nn.Linear(2, 2)])
    assert told == {}
    graphs.choose([nn.Linear(2, 2), UNet((4, 4, 1), channels=8, multipliers=[1], blocks=1, attention=[])])
    assert told == {"MLX_USE_CUDA_GRAPHS": "0"}


def test_without_cuda_nothing_is_told(told, monkeypatch):
    monkeypatch.setattr(mx.cuda, "is_available", lambda: False)
    graphs.choose([nn.Conv2d(2, 2, 3)])
    assert told == {}


def test_what_the_environment_says_stays():
    get = ctypes.CDLL(None).getenv
    get.restype = ctypes.c_char_p
    graphs._setenv("MLX_LAB_TEST_GRAPHS", "1")
    graphs._setenv("MLX_LAB_TEST_GRAPHS", "0")
    assert get(b"MLX_LAB_TEST_GRAPHS") == b"1"
