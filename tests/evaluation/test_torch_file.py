"""A file written here in the old PyTorch format, opcode for opcode, and damaged ones."""

import pickle
import struct

import numpy as np
import pytest

from evaluation.torch_file import MAGIC, read_state_dict
from runtime.errors import UsageError


def old_file(call=b"ctorch._utils\n_rebuild_tensor_v2\n", stride=1, values=(1.0, 2.0, 3.0, 4.0)):
    """A state dict {"w": values[1:3]} whose storage "7" holds four floats."""

    def number(value):
        return b"K" + bytes([value])

    def word(text):
        return b"X" + struct.pack("<i", len(text)) + text.encode()

    storage = b"(" + word("storage") + b"ctorch\nFloatStorage\n" + word("7") + word("cpu") + number(4) + b"NtQ"
    tensor = call + b"(" + storage + number(1) + b"(" + number(2) + b"t(" + number(stride) + b"t\x89}tR"
    state = b"\x80\x02ccollections\nOrderedDict\n)R" + word("w") + tensor + b"s."
    head = b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, {"little_endian": True}))
    data = struct.pack(f"<q{len(values)}f", 4, *values)
    return head + state + pickle.dumps(["7"], 2) + data


def read(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    return read_state_dict(path)


def test_offsets_and_strides_are_followed(tmp_path):
    np.testing.assert_array_equal(read(tmp_path, old_file())["w"], np.float32([2, 3]))
    np.testing.assert_array_equal(read(tmp_path, old_file(stride=2))["w"], np.float32([2, 4]))


def test_nothing_outside_a_state_dict_is_called(tmp_path):
    with pytest.raises(UsageError, match="posix.system"):
        read(tmp_path, old_file(call=b"cposix\nsystem\n"))


def test_a_tensor_beyond_its_storage(tmp_path):
    with pytest.raises(UsageError, match="outside its storage of 4"):
        read(tmp_path, old_file(stride=3))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", old_file()[:40], old_file()[:-6], pickle.dumps(1) * 5])
def test_damaged_files(tmp_path, content):
    with pytest.raises(UsageError, match="no intact PyTorch weight file"):
        read(tmp_path, content)
