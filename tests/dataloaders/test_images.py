import gzip
import io
import pickle
import struct
import tarfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataloaders.cifar10 import Cifar10
from dataloaders.digits import Digits
from dataloaders.idx import FashionMnist, Mnist
from dataloaders.image_folder import ImageFolder
from dataloaders.ops.flip import HorizontalFlip
from dataloaders.source import ImageSource
from runtime.errors import UsageError

RNG = np.random.default_rng(5)


def everything(source):
    return source.take(np.arange(len(source)), np.random.default_rng(0))


def pixels(source) -> np.ndarray:
    """The stored values back from [-1, 1]."""
    return np.rint((everything(source)["x"].astype(np.float64) + 1) * 127.5).astype(np.uint8)


def test_image_source_maps_the_ends_exactly():
    values = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    x = everything(ImageSource(values))["x"]
    assert x.dtype == np.float32 and x.min() == -1 and x.max() == 1
    np.testing.assert_allclose(x.ravel(), np.arange(256) / 127.5 - 1, atol=1e-7)
    with pytest.raises(UsageError, match=r"must be \(N, H, W, C\) uint8, got \(3, 2, 2\) float64"):
        ImageSource(np.zeros((3, 2, 2)))


def test_digits_are_the_known_ones():
    train, held = everything(Digits("train")), everything(Digits("eval"))
    assert train["x"].shape == (1500, 8, 8, 1) and held["x"].shape == (297, 8, 8, 1)
    # The first image as scikit-learn's documentation prints it (its first two rows), and the class counts of the whole.
    np.testing.assert_array_equal(
        (train["x"][0, :2, :, 0] + 1) * 8, [[0, 0, 5, 13, 9, 1, 0, 0], [0, 0, 13, 15, 10, 15, 5, 0]]
    )
    labels = np.concatenate([train["label"], held["label"]])
    np.testing.assert_array_equal(np.bincount(labels), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    assert (train["x"].min(), train["x"].max()) == (-1, 1)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = RNG.integers(0, 256, (7, 4, 5), dtype=np.uint8)
LABELS = np.array([0, 9, 3, 3, 1, 2, 5], np.uint8)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("style", ["-idx", ".idx"])
def test_idx_files(tmp_path, suffix, style):
    pack = gzip.compress if suffix else bytes
    (tmp_path / f"t10k-images{style}3-ubyte{suffix}").write_bytes(pack(idx(IMAGES)))
    (tmp_path / f"t10k-labels{style}1-ubyte{suffix}").write_bytes(pack(idx(LABELS)))
    source = Mnist(str(tmp_path), "test", pad=2)
    assert source.shape == (8, 9, 1) and source.classes == 10
    np.testing.assert_array_equal(pixels(source)[:, 2:-2, 2:-2, 0], IMAGES)
    assert pixels(source).astype(int).sum() == IMAGES.astype(int).sum()  # the border is background
    np.testing.assert_array_equal(everything(source)["label"], LABELS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", idx(IMAGES)[:-1], "has 155 bytes, its header needs 156"),
        ("train-images-idx3-ubyte", idx(IMAGES) + b"x", "has 157 bytes, its header needs 156"),
        ("train-images-idx3-ubyte", idx(IMAGES)[:9], "has 9 bytes"),
        ("train-images-idx3-ubyte", b"", "is no IDX file"),
        ("train-images-idx3-ubyte", b"<html>", "is no IDX file of bytes: it begins with '3c68746d'"),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx(IMAGES), mtime=0)[:-9], "cannot be read"),
        ("train-images-idx3-ubyte.gz", idx(IMAGES), "cannot be read"),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx(IMAGES), mtime=0)[:20] + b"\xff" * 40, "cannot be read"),
        ("train-images-idx3-ubyte", idx(IMAGES[:5]), r"holds \(5, 4, 5\) and .* \(7,\)"),
    ],
)
def test_damaged_idx_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS))
    with pytest.raises(UsageError, match=message):
        Mnist(str(tmp_path))


def test_fashion_mnist_prefers_its_root_to_the_system_copy(tmp_path, monkeypatch):
    system, own = tmp_path / "system", tmp_path / "own"
    for folder, images in ((system, IMAGES), (own, IMAGES[:, ::-1])):
        folder.mkdir()
        (folder / "train-images-idx3-ubyte").write_bytes(idx(images))
        (folder / "train-labels-idx1-ubyte").write_bytes(idx(LABELS))
    monkeypatch.setattr(FashionMnist, "FALLBACK", system)
    np.testing.assert_array_equal(pixels(FashionMnist(str(own)))[..., 0], IMAGES[:, ::-1])
    np.testing.assert_array_equal(pixels(FashionMnist(str(tmp_path / "none")))[..., 0], IMAGES)


def save(path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def make_folder(root) -> dict[str, np.ndarray]:
    images = {f"{name}/{i}.png": RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8) for name in "ab" for i in range(2)}
    for name, image in images.items():
        save(root / "train" / name, image)
    return images


def test_image_folder_reads_classes_in_order_and_caches(tmp_path):
    images = make_folder(tmp_path)
    source = ImageFolder(str(tmp_path), size=6, cache=str(tmp_path / "cache"))
    np.testing.assert_array_equal(pixels(source), np.stack(list(images.values())))
    assert everything(source)["label"].tolist() == [0, 0, 1, 1] and source.classes == 2
    (stored,) = (tmp_path / "cache").iterdir()
    changed = stored.stat().st_mtime_ns
    again = ImageFolder(str(tmp_path), size=6, cache=str(tmp_path / "cache"))
    assert stored.stat().st_mtime_ns == changed and again.fingerprint() == source.fingerprint()
    save(tmp_path / "train" / "b" / "9.png", np.zeros((6, 6, 3), np.uint8))
    grown = ImageFolder(str(tmp_path), size=6, cache=str(tmp_path / "cache"))
    assert len(grown) == 5 and len(list((tmp_path / "cache").iterdir())) == 2
    assert grown.fingerprint() != source.fingerprint()


def test_image_folder_crops_the_middle_and_resizes(tmp_path):
    wide = np.zeros((8, 32, 3), np.uint8)
    wide[:, 6:26] = (200, 100, 50)  # one colour in the middle square, 12:20, and as far around it as the filter reads
    save(tmp_path / "train" / "a" / "wide.png", wide)
    save(tmp_path / "train" / "a" / "tall.png", wide.transpose(1, 0, 2))
    colours = pixels(ImageFolder(str(tmp_path), size=4))
    np.testing.assert_array_equal(colours, np.broadcast_to(np.array([200, 100, 50], np.uint8), (2, 4, 4, 3)))
    grey = ImageFolder(str(tmp_path), size=4, channels=1)
    assert grey.shape == (4, 4, 1)
    np.testing.assert_allclose(pixels(grey), 0.299 * 200 + 0.587 * 100 + 0.114 * 50, atol=1)


def test_image_folder_numbers_classes_alike_in_every_part(tmp_path):
    make_folder(tmp_path)
    save(tmp_path / "eval" / "b" / "0.png", np.zeros((6, 6, 3), np.uint8))
    held = ImageFolder(str(tmp_path), "eval", size=6)
    assert everything(held)["label"].tolist() == [1] and held.classes == 2


def test_a_damaged_image_is_named_and_leaves_no_cache(tmp_path):
    make_folder(tmp_path)
    whole = (tmp_path / "train" / "b" / "1.png").read_bytes()
    (tmp_path / "train" / "b" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="b/1.png is no readable image"):
        ImageFolder(str(tmp_path), size=6)
    assert list((tmp_path / ".cache").iterdir()) == []


def cifar(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, count)


TRAIN, TEST = cifar(10, 1), cifar(3, 2)
SPLIT = {f"data_batch_{n + 1}": (TRAIN[0][2 * n : 2 * n + 2], TRAIN[1][2 * n : 2 * n + 2]) for n in range(5)}
SPLIT["test_batch"] = TEST


class OldPickler(pickle._Pickler):
    """Writes byte strings as Python 2 did, as the official files have them."""

    dispatch: dict = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        self.write(b"T" + struct.pack("<i", len(value)) + value)  # pyright: ignore[reportAttributeAccessIssue]
        self.memoize(value)  # pyright: ignore[reportAttributeAccessIssue]

    dispatch[bytes] = save_bytes


def python_batch(images, labels) -> bytes:
    stream = io.BytesIO()
    rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
    OldPickler(stream, protocol=2).dump({b"data": rows, b"labels": labels.tolist(), b"batch_label": b"one"})
    return stream.getvalue().replace(b"numpy._core", b"numpy.core")


def binary_batch(images, labels) -> bytes:
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([labels[:, None].astype(np.uint8), rows], axis=1).tobytes()


def put_cifar(root, layout: str, archive: bool, contents: dict[str, bytes]) -> None:
    if not archive:
        (root / layout).mkdir()
        for name, content in contents.items():
            (root / layout / name).write_bytes(content)
        return
    name = {"cifar-10-batches-py": "cifar-10-python", "cifar-10-batches-bin": "cifar-10-binary"}[layout]
    with tarfile.open(root / f"{name}.tar.gz", "w:gz") as stored:
        for file, content in contents.items():
            entry = tarfile.TarInfo(f"{layout}/{file}")
            entry.size = len(content)
            stored.addfile(entry, io.BytesIO(content))


PYTHON = {name: python_batch(*part) for name, part in SPLIT.items()}
BINARY = {f"{name}.bin": binary_batch(*part) for name, part in SPLIT.items()}


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize(("layout", "contents"), [("cifar-10-batches-py", PYTHON), ("cifar-10-batches-bin", BINARY)])
def test_cifar10_official_files(tmp_path, layout, contents, archive):
    put_cifar(tmp_path, layout, archive, contents)
    parts: dict[Any, Any] = {"train": TRAIN, "test": TEST}
    for part, (images, labels) in parts.items():
        source = Cifar10(str(tmp_path), part)
        np.testing.assert_array_equal(pixels(source), images)
        np.testing.assert_array_equal(everything(source)["label"], labels)
        assert source.shape == (32, 32, 3) and source.classes == 10 and source.layout == layout


def test_cifar10_image_folder(tmp_path):
    images, _ = TEST
    for i, image in enumerate(images):
        save(tmp_path / "test" / f"class{i}" / "0.png", image)
    source = Cifar10(str(tmp_path), "test")
    np.testing.assert_array_equal(pixels(source), images)
    assert source.classes == 10 and source.layout == "images"


def test_an_unpickled_file_runs_no_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    put_cifar(tmp_path, "cifar-10-batches-py", False, PYTHON | {"test_batch": pickle.dumps(Attack())})
    with pytest.raises(UsageError, match="asks for builtins.exec"):
        Cifar10(str(tmp_path), "test")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("layout", "contents", "message"),
    [
        ("cifar-10-batches-py", {"test_batch": PYTHON["test_batch"][:500]}, "is no CIFAR batch"),
        ("cifar-10-batches-py", {"test_batch": pickle.dumps({b"data": 1, b"labels": [1]})}, r"holds \(\) for 1 labels"),
        (
            "cifar-10-batches-bin",
            {"test_batch.bin": BINARY["test_batch.bin"][:-1]},
            "has 9218 bytes, needed a multiple",
        ),
        ("cifar-10-batches-bin", {}, "test_batch.bin is missing"),
    ],
)
def test_damaged_cifar10_files(tmp_path, layout, contents, message):
    put_cifar(tmp_path, layout, False, contents)
    with pytest.raises(UsageError, match=message):
        Cifar10(str(tmp_path), "test")


def test_a_cut_archive_is_named(tmp_path):
    put_cifar(tmp_path, "cifar-10-batches-bin", True, BINARY)
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(UsageError, match="cifar-10-binary.tar.gz cannot be read"):
        Cifar10(str(tmp_path), "test")


@pytest.mark.parametrize(
    ("make", "file"),
    [(Mnist, "train-images-idx3-ubyte.gz"), (Cifar10, "cifar-10-python.tar.gz"), (ImageFolder, "<class>/<name>.jpg")],
)
def test_missing_data_say_what_to_put_where(tmp_path, make, file):
    with pytest.raises(UsageError, match=file) as raised:
        make(str(tmp_path / "nothing"))
    assert str(tmp_path / "nothing") in str(raised.value)


def test_flip_mirrors_about_half_the_images():
    x = RNG.random((2000, 3, 4, 2), dtype=np.float32)
    flipped = HorizontalFlip()({"x": x, "label": np.arange(2000)}, np.random.default_rng(0))
    mirrored = (flipped["x"] == x[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (flipped["x"] == x).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all() and abs(mirrored.mean() - 0.5) < 0.06
    assert HorizontalFlip(0.0)({"x": x}, np.random.default_rng(0))["x"].tobytes() == x.tobytes()
    with pytest.raises(UsageError, match=r"images \(B, H, W, C\), got 'x' of shape \(4, 2\)"):
        HorizontalFlip()({"x": np.zeros((4, 2))}, np.random.default_rng(0))
