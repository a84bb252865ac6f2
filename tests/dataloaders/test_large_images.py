"""CelebA, ImageNet and the drawn shapes."""

import numpy as np
import pytest
from PIL import Image

from dataloaders.celeba import CelebA
from dataloaders.image_folder import ImageFolder
from dataloaders.imagenet import ImageNet
from dataloaders.pipeline import Pipeline
from dataloaders.shapes import KINDS, Shapes
from dataloaders.source import ArraySource, ImageSource
from runtime.errors import UsageError

RNG = np.random.default_rng(8)


def everything(source):
    return source.take(np.arange(len(source)), np.random.default_rng(0))


def save(path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def put_faces(root, count: int = 6) -> None:
    """Faces of one colour each within the middle 148 x 148, grey around; parts 0, 0, 1, 2, 0, 0."""
    for i in range(count):
        face = np.full((218, 178, 3), 128, np.uint8)
        face[35:183, 15:163] = (40 * i, 255 - 40 * i, 100)
        save(root / f"img_align_celeba/{i:06}.png", face)
    lines = [f"{i:06}.png {part}\n" for i, part in enumerate([0, 0, 1, 2, 0, 0])]
    (root / "list_eval_partition.txt").write_text("".join(lines))


def test_celeba_takes_the_official_parts_and_the_middle(tmp_path):
    put_faces(tmp_path)
    for part, members in (("train", [0, 1, 4, 5]), ("valid", [2]), ("test", [3])):
        source = CelebA(str(tmp_path), part, size=8)
        assert source.shape == (8, 8, 3) and source.classes == 0 and len(source) == len(members)
        x = np.rint((everything(source)["x"] + 1) * 127.5)
        for image, i in zip(x, members, strict=True):
            np.testing.assert_array_equal(image, np.broadcast_to([40 * i, 255 - 40 * i, 100], (8, 8, 3)))
    whole = everything(CelebA(str(tmp_path), size=8, crop=178))["x"]
    assert abs(whole[0, 0, 0] * 127.5 + 127.5 - 128).max() < 50  # grey shows at the corner
    assert len(list((tmp_path / ".cache").iterdir())) == 4


def test_celeba_crops_148_and_140_without_resizing_off_centre(tmp_path):
    face = RNG.integers(0, 256, (218, 178, 3), dtype=np.uint8)
    save(tmp_path / "img_align_celeba/1.png", face)
    (tmp_path / "list_eval_partition.txt").write_text("1.png 0\n")
    for crop in (148, 140):
        top, left = (218 - crop) // 2, (178 - crop) // 2
        x = everything(CelebA(str(tmp_path), size=crop, crop=crop))["x"]
        np.testing.assert_array_equal(np.rint((x[0] + 1) * 127.5), face[top : top + crop, left : left + crop])


def test_celeba_says_what_is_missing(tmp_path):
    with pytest.raises(UsageError, match=f"img_align_celeba.zip, from https://mmlab.* into {tmp_path}"):
        CelebA(str(tmp_path))
    put_faces(tmp_path)
    (tmp_path / "img_align_celeba/000004.png").unlink()
    with pytest.raises(UsageError, match="lacks 1 of the 4 train images, 000004.png for example"):
        CelebA(str(tmp_path))
    (tmp_path / "list_eval_partition.txt").write_text("000001.png 0\n000002.png 3\n")
    with pytest.raises(UsageError, match="line 2: needed a file name and 0, 1 or 2, got '000002.png 3'"):
        CelebA(str(tmp_path))
    save(tmp_path / "img_align_celeba/small.png", np.zeros((100, 178, 3), np.uint8))
    (tmp_path / "list_eval_partition.txt").write_text("small.png 0\n")
    with pytest.raises(UsageError, match="small.png is 178 x 100; the crop needs 148 x 148"):
        CelebA(str(tmp_path))
    with pytest.raises(UsageError, match="crop lie in 1..178, got 64 and 200"):
        CelebA(str(tmp_path), crop=200)


def put_photos(root) -> None:
    for part, count in (("train", 3), ("val", 2)):
        for label, wnid in enumerate(["n02", "n10", "n11"]):
            for i in range(count):
                photo = np.full((20 + 10 * i, 60, 3), 60 * label + 10 * i, np.uint8)
                save(root / part / wnid / f"{wnid}_{i}.JPEG", photo)


def test_imagenet_reads_batch_by_batch(tmp_path):
    put_photos(tmp_path)
    train, held = ImageNet(str(tmp_path), size=16), ImageNet(str(tmp_path), "val", size=16)
    assert (len(train), len(held), train.shape, train.classes, held.classes) == (9, 6, (16, 16, 3), 3, 3)
    batch = train.take(np.array([8, 0, 4]), np.random.default_rng(0))
    assert batch["x"].dtype == np.float32 and batch["label"].tolist() == [2, 0, 1]
    np.testing.assert_allclose((batch["x"] + 1) * 127.5, np.array([140, 0, 70])[:, None, None, None] + 0 * batch["x"],
                               atol=1.01)  # fmt: skip  # JPEG
    assert train.fingerprint() != held.fingerprint() != ImageNet(str(tmp_path), "val", size=8).fingerprint()
    (tmp_path / "train/n11/n11_2.JPEG").write_bytes(b"broken")
    with pytest.raises(UsageError, match="n11_2.JPEG is no readable image"):
        train.take(np.array([8]), np.random.default_rng(0))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (150, 70), (33, 47), (10, 20)])
def test_imagenet_crops_the_middle(tmp_path, height, width):
    """Across each side colours rise linearly, so that the middle of the crop shows where it was taken."""
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([255 * y / (height - 1), 255 * x / (width - 1), 0 * x], axis=-1).astype(np.uint8)
    save(tmp_path / "train/a/0.png", ramp)
    out = (everything(ImageNet(str(tmp_path), size=32))["x"][0] + 1) * 127.5
    assert out.shape == (32, 32, 3)
    np.testing.assert_allclose(out.mean(axis=(0, 1)), [127, 127, 0], atol=4)
    short = min(height, width)
    for axis, length in ((0, height), (1, width)):
        spread = np.ptp(out[..., axis].mean(axis=1 - axis))
        assert abs(spread - 255 * short / length * 31 / 32) < 20


def test_imagenet_says_what_is_missing(tmp_path):
    with pytest.raises(UsageError, match=f"https://www.image-net.org/download.php.* into {tmp_path}/train"):
        ImageNet(str(tmp_path))
    with pytest.raises(UsageError, match="size and threads must be at least 1, got 256 and 0"):
        ImageNet(str(tmp_path), threads=0)


def test_shapes_are_a_function_of_seed_and_number():
    source = Shapes(count=500)
    batch = everything(source)
    assert batch["x"].shape == (500, 32, 32, 3) and batch["x"].dtype == np.float32
    assert -1 <= batch["x"].min() < -0.5 and 0.8 < batch["x"].max() <= 1
    again = Shapes().take(np.array([77, 3]), np.random.default_rng(9))
    np.testing.assert_array_equal(again["x"], batch["x"][[77, 3]])
    assert again["label"].tolist() == batch["label"][[77, 3]].tolist() and batch["label"].dtype == np.int32
    other = everything(Shapes(count=500, seed=1))
    assert np.abs(other["x"] - batch["x"]).reshape(500, -1).max(axis=1).min() > 0
    assert np.bincount(batch["label"], minlength=5).min() > 60
    assert Shapes().fingerprint() != Shapes(seed=1).fingerprint()
    with pytest.raises(UsageError, match="size must be at least 8, got 4"):
        Shapes(size=4)


def test_the_kinds_look_as_named():
    """Bright area over the area of the smallest disc around it, at high resolution."""
    batch = Shapes(count=60, size=128).take(np.arange(60), RNG)
    x = batch["x"].sum(axis=-1)
    for kind, share in zip(KINDS, [1, 2 / np.pi, 3 * 3**0.5 / 4 / np.pi, None, 0.75], strict=True):
        for image in x[batch["label"] == KINDS.index(kind)][:4]:
            bright = image > (image.max() + image.min()) / 2
            places = np.argwhere(bright)
            middle = places.mean(axis=0)
            reach = np.hypot(*(places - middle).T).max()
            assert reach < 0.7 * 64
            if share is not None:
                assert abs(len(places) / (np.pi * reach**2) - share) < 0.07, kind
            assert bright[tuple(middle.astype(int))] == (kind != "ring")


def test_bad_images_and_labels_are_named(tmp_path):
    image = np.zeros((4, 8, 8, 3), np.float32)
    image[2, 0, 0, 0] = np.nan
    with pytest.raises(UsageError, match="'x' must be finite, got NaN or infinite values in 1 of 4 rows, the first 2"):
        ArraySource({"x": image})
    with pytest.raises(UsageError, match=r"labels must lie in 0..9, got 0..255"):
        ImageSource(np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 255]), classes=10)
    with pytest.raises(UsageError, match=r"shape is \(8, 8, 3\), but train samples have shape \(8, 8, 1\)"):
        Pipeline(ImageSource(np.zeros((2, 8, 8, 1), np.uint8)), batch_size=1, shape=(8, 8, 3))
    with pytest.raises(UsageError, match="channels 1 or 3, got 64 and 4"):
        ImageFolder(str(tmp_path), channels=4)  # type: ignore[arg-type]
