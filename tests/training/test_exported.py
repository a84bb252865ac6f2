"""What is read of a file to find out what it is."""

import mlx.core as mx
import pytest

from training import checkpoint, exported


def test_a_run_s_checkpoint_is_told_by_its_metadata_alone(tmp_path, monkeypatch):
    file = tmp_path / "step_1.safetensors"
    checkpoint.save(file, {"w": mx.ones(3)}, {"config": {}, "step": 1})
    assert checkpoint.metadata(file) == {"config": {}, "step": 1}
    monkeypatch.setattr(checkpoint, "load", None)  # what reads and checks every array
    assert exported.opened(file, "any") is None


def test_metadata_that_are_no_json_are_damage(tmp_path):
    file = tmp_path / "x.safetensors"
    strings = {"format": checkpoint.FORMAT, "meta": "{", "checksum": ""}
    mx.save_safetensors(str(file), {"w": mx.ones(3)}, strings)
    with pytest.raises(checkpoint.CorruptCheckpoint, match="not JSON"):
        checkpoint.metadata(file)
