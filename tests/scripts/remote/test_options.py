"""The flags of --backend modal: what they mean, and one sentence with the valid names for each mistake."""

import pytest

from runtime.errors import UsageError
from scripts.remote.options import GPUS, LONGEST, Options, asked, gpu, split, timeout


def test_flags_are_taken_out_and_overrides_are_left():
    arguments = ["--backend", "modal", "run_name=1.10", "--gpu=h100:2", "+a.b=-1", "--no-detach", "--timeout", "90m",
                 "--secret", "wandb", "--secret=hf", "~traces.nan"]  # fmt: skip
    backend, options, rest = split(arguments)
    assert backend == "modal" and rest == ["run_name=1.10", "+a.b=-1", "~traces.nan"]
    assert options == Options(gpu="H100:2", timeout=5400, detach=False, secrets=("wandb", "hf"))
    assert asked(arguments) and asked(["--backend=modal"]) and not asked(["run_name=--backend", "--multirun"])


def test_left_out_flags_have_the_documented_values():
    assert split(["--backend=modal"])[1] == Options("H100", 24 * 3600, 5, "13", True, False, False, "mlx-lab", ())


@pytest.mark.parametrize("name", GPUS)
def test_every_gpu_is_taken_up_to_its_count_and_no_further(name):
    assert gpu(name.lower()) == name and gpu(f"{name}:1") == name
    assert gpu(f"{name}:{GPUS[name]}") == f"{name}:{GPUS[name]}"
    with pytest.raises(UsageError, match=f"from 1 to {GPUS[name]}"):
        gpu(f"{name}:{GPUS[name] + 1}")


def test_the_old_name_of_the_a10_is_the_new():
    assert gpu("A10G:2") == "A10:2"


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("15m", 900), ("24h", LONGEST), ("3600", 3600)])
def test_timeouts(text, seconds):
    assert timeout(text) == seconds


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--gpu", "H10O"], "nearest: H100"),
        (["--gpu", ""], "all: T4"),
        (["--gpu", "H100:0"], "from 1 to 8"),
        (["--gpu", "H100:x"], "'H100:x'"),
        (["--gpu", "H100:"], "'H100:'"),
        (["--gpu"], "expected one argument"),
        (["--gpuu", "H100"], "nearest: --gpu"),
        (["--multirun"], "no flag '--multirun'"),
        (["--timeout", "25h"], "24h"),
        (["--timeout", "9"], "10s"),
        (["--timeout", "nan"], "'nan'"),
        (["--timeout", "soon"], "--timeout must be like"),
        (["--retries", "11"], "0 to 10"),
        (["--retries", "-1"], "0 to 10, got '-1'"),
        (["--cuda", "11"], "one of 13, 12"),
        (["--volume", "a/b"], "'a/b'"),
        (["--secret", "a b"], "'a b'"),
        (["--backend", "modle"], "one of local, modal, got 'modle'"),
    ],
    ids=str,
)
def test_mistakes(flags, said):
    with pytest.raises(UsageError) as caught:
        split(["--backend", "modal", *flags])
    assert said in str(caught.value) and "\n" not in str(caught.value)
