import inspect
import multiprocessing
import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("albumentations")

from dataloaders.ops import blurs, geometry, pixels
from dataloaders.ops.albumentations_op import ImageOp, JointOp
from runtime.errors import UsageError

SIZES = {
    "Crop": {"x_max": 20, "y_max": 20}, "RandomSizedCrop": {"min_max_height": (10, 20), "height": 16, "width": 16},
    "PadIfNeeded": {"min_height": 40, "min_width": 40}, "CropAndPad": {"px": 3}, "FromFloat": {"dtype": "uint8"},
    "Affine": {"rotate": (-20, 20), "translate": 0.1, "border_handling": "reflect"},
    **dict.fromkeys(("HistogramMatching", "FDA"),
                    {"reference_images": [np.arange(3072).reshape(32, 32, 3).astype(np.uint8)]}),
    "LongestMaxSize": {"max_size": 16}, "SmallestMaxSize": {"max_size": 16}, "RandomSunFlare": {"src_radius": 10},
}  # fmt: skip
SQUARES = {
    "CenterCrop",
    "RandomCrop",
    "CropNonEmptyMaskIfExists",
    "RandomResizedCrop",
    "Resize",
    "RandomSizedBBoxSafeCrop",
}
BOXES = {"BBoxSafeRandomCrop", "RandomSizedBBoxSafeCrop"}


def concrete(module, base) -> list[str]:
    found = [name for name, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, base)]
    return [
        name for name in found if name not in ("BorderOp", "ImageOp", "JointOp", "RangeOp", "ReferenceOp", "SizedCrop")
    ]


def state(seed: int = 0) -> dict:
    return {"mode": "train", "epoch": 0, "ds_id": "", "rng": np.random.default_rng(seed)}


def image(seed: int = 0, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def made(name: str):
    for module in (pixels, blurs):
        if hasattr(module, name):
            return getattr(module, name)("x", "x", **SIZES.get(name, {}))
    sizes = SIZES.get(name, {"height": 16, "width": 16} if name in SQUARES else {})
    more = {"bbox_in": "b", "bbox_params": "pascal_voc"} if name in BOXES else {}
    more |= {"cropping_bbox_in": "c"} if name == "RandomCropNearBBox" else {}
    return getattr(geometry, name)(image_in="x", mask_in="m", **more, **sizes)


def data(name: str) -> dict:
    x = image() if name != "FromFloat" else (image() / 255).astype(np.float32)
    mask = np.zeros((32, 32), np.uint8)
    mask[4:10, 5:20] = 1
    return {"x": x, "m": mask, "b": np.array([[4.0, 4.0, 20.0, 12.0]]), "c": np.array([4, 4, 20, 12])}


def in_another_process(name: str) -> list[bytes]:
    return [made(name)(data(name), state(seed))["x"].tobytes() for seed in range(2)]


NAMES = concrete(pixels, ImageOp) + concrete(blurs, ImageOp) + concrete(geometry, JointOp)


@pytest.mark.parametrize("name", NAMES)
def test_every_op_draws_from_the_given_numbers_alone(name):
    op, given = made(name), data(name)
    before = {key: value.copy() for key, value in given.items()}
    first, again, pickled = op(given, state(1)), op(given, state(1)), pickle.loads(pickle.dumps(op))(given, state(1))
    for key in op.outputs:
        assert np.array_equal(first[key], again[key]) and np.array_equal(first[key], pickled[key])
    assert all(np.array_equal(given[key], before[key]) for key in given), "the data set's own array was written to"


@pytest.mark.parametrize("name", ["RandomCrop", "ColorJitter", "GaussianNoise", "CoarseDropout", "ElasticTransform"])
def test_another_seed_is_another_image(name):
    assert len({made(name)(data(name), state(seed))["x"].tobytes() for seed in range(4)}) == 4


def test_two_processes_make_the_same_images():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for name in ("RandomResizedCrop", "GaussianNoise"):
            assert pool.apply(in_another_process, (name,)) == in_another_process(name)


def test_plain_geometry_is_numpys():
    given = data("")
    for name, by_hand in {
        "HorizontalFlip": lambda x: x[:, ::-1],
        "VerticalFlip": lambda x: x[::-1],
        "Transpose": lambda x: x.swapaxes(0, 1),
        "CenterCrop": lambda x: x[8:24, 8:24],
        "Crop": lambda x: x[:20, :20],
        "PadIfNeeded": lambda x: np.pad(x, [(4, 4), (4, 4)] + [(0, 0)] * (x.ndim - 2), mode="reflect"),
    }.items():
        found = made(name)(given, state())
        assert np.array_equal(found["x"], by_hand(given["x"])) and np.array_equal(found["m"], by_hand(given["m"])), name


def test_masks_boxes_and_points_move_with_the_image():
    op = geometry.HorizontalFlip(
        image_in="x", image_out="y", masks_in=["m", "n"], masks_out=["p", "q"], bbox_in="b", bbox_out="c",
        keypoints_in="k", bbox_params="pascal_voc", keypoint_params="xy",
    )  # fmt: skip
    given = {**data(""), "n": image()[..., 0], "k": np.array([[3.0, 7.0]])}
    found = op(given, state())
    assert set(found) == {"y", "p", "q", "c", "k"}
    assert np.array_equal(found["q"], given["n"][:, ::-1]) and np.array_equal(found["p"], given["m"][:, ::-1])
    assert np.allclose(found["c"], [[12, 4, 28, 12]]) and np.allclose(found["k"], [[28, 7]])


def test_random_crops_keep_image_and_mask_together():
    x = image()
    for seed in range(8):
        found = geometry.RandomCrop(9, 11, image_in="x", mask_in="m")({"x": x, "m": x[..., 0].copy()}, state(seed))
        assert found["x"].shape == (9, 11, 3) and np.array_equal(found["x"][..., 0], found["m"])


def test_several_images_get_the_same_draws():
    found = pixels.RandomGamma(["x", "z"], ["x", "z"], gamma_limit=(50, 150))({"x": image(), "z": image()}, state())
    assert np.array_equal(found["x"], found["z"])


def test_fastestimators_arguments_mean_what_they_meant():
    flat = np.full((200, 200, 3), 128, np.uint8)
    noisy = pixels.GaussianNoise("x", "x", var_limit=(100.0, 100.0), mean=20.0)({"x": flat}, state())["x"].astype(float)
    assert abs(noisy.std() - 10) < 0.3 and abs(noisy.mean() - 147.5) < 0.3  # floats are cut to bytes
    holes = pixels.CoarseDropout("x", "x", max_holes=1, max_height=5, max_width=7, fill_value=3)({"x": flat}, state())
    assert (holes["x"] == 3).all(-1).sum() == 35
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    solar = pixels.Solarize("x", "x", threshold=128)({"x": ramp}, state())["x"]
    assert np.array_equal(solar, np.where(ramp < 128, ramp, 255 - ramp))
    moved = geometry.Affine(image_in="x", translate={"x": (3, 3), "y": (0, 0)}, fill_value=9)({"x": ramp}, state())["x"]
    assert np.array_equal(moved[:, 3:], ramp[:, :-3]) and (moved[:, :3] == 9).all()


def test_errors_name_values():
    for make in (
        lambda: blurs.Blur("x", "x", blur=3),
        lambda: geometry.RandomCrop(4, 4, 4, image_in="x"),
        lambda: geometry.ElasticTransform(image_in="x", alpha_affine=50.0),
        lambda: geometry.HorizontalFlip(image_in="x", bbox_in="b"),
        lambda: geometry.HorizontalFlip(mask_in="m"),
    ):
        with pytest.raises(UsageError, match="got"):
            make()


def test_flip_mirrors_in_three_ways():
    x = image()
    ways = {"across": x[:, ::-1], "down": x[::-1], "both": x[::-1, ::-1]}
    found = [made("Flip")({"x": x, "m": x[..., 0].copy()}, state(seed)) for seed in range(60)]
    names = [next(name for name, way in ways.items() if np.array_equal(way, out["x"])) for out in found]
    assert all(names.count(name) >= 10 for name in ways)
    assert all(np.array_equal(out["x"][..., 0], out["m"]) for out in found)


def test_a_crop_near_a_box_shifts_each_side_by_a_share_of_it():
    x = np.moveaxis(np.mgrid[:32, :32], 0, -1).astype(np.uint8)[..., [0, 1, 1]]
    op = geometry.RandomCropNearBBox("box", image_in="x", mask_in="m", max_part_shift=0.25)
    found = [op({"x": x, "m": x[..., 0].copy(), "box": np.array([8, 10, 16, 22])}, state(seed)) for seed in range(60)]
    corners = np.array([[*out["x"][0, 0, :2], *out["x"][-1, -1, :2]] for out in found])
    assert corners.min(0).tolist() == [7, 6, 18, 13] and corners.max(0).tolist() == [13, 10, 24, 17]
    assert all(np.array_equal(out["x"][..., 0], out["m"]) for out in found)


def test_references_give_their_distribution():
    dark, light = image() // 4, image(1) // 4 + 180
    op = pixels.HistogramMatching("x", "x", reference_images=[light], blend_ratio=(1, 1))
    matched = op({"x": dark}, state())["x"]
    for channel in range(3):
        assert abs(np.sort(matched[..., channel].ravel()).astype(int) - np.sort(light[..., channel].ravel())).max() <= 2
    moved = pixels.FDA("x", "x", reference_images=[light], beta_limit=(0.1, 0.1))({"x": dark}, state())["x"]
    assert moved.mean() > dark.mean() + 60  # the mean is the lowest frequency


def test_erasing_takes_a_box_of_the_area_asked_for():
    op = pixels.RandomErasing("x", "x", scale=(0.1, 0.1), ratio=(1.0, 1.0), fill=7)
    holes = [(op({"x": np.full((50, 50, 3), 128, np.uint8)}, state(seed))["x"] == 7).all(-1) for seed in range(5)]
    assert all(abs(hole.sum() - 250) < 20 for hole in holes) and len({hole.tobytes() for hole in holes}) == 5


def test_batches_are_changed_sample_by_sample():
    given = {"x": np.stack([image()] * 6), "m": np.stack([image()[..., 0]] * 6)}
    moved = geometry.RandomCrop(9, 11, image_in="x", mask_in="m").forward_batch([given["x"], given["m"]], state())
    assert moved[0].shape == (6, 9, 11, 3) and np.array_equal(moved[0][..., 0], moved[1])
    assert len({row.tobytes() for row in moved[0]}) > 3
    noisy = pixels.GaussianNoise("x", "x").forward_batch(given["x"], state())
    assert noisy.shape == given["x"].shape and len({row.tobytes() for row in noisy}) == 6
    with pytest.raises(UsageError, match="'x' has samples of different shapes"):
        geometry.RandomScale(image_in="x").forward_batch([given["x"]], state())


def test_fastestimators_words_and_nones_are_understood():
    assert geometry.CropAndPad(image_in="x", px=(-2, 2), pad_mode="edge", interpolation="bilinear", pad_cval_mask=None)
    for kind in (geometry.Rotate, geometry.GridDistortion, geometry.ShiftScaleRotate):
        assert kind(image_in="x", border_mode=4, value=None, mask_value=None)
    flat = np.full((16, 16, 3), 50, np.uint8)
    padded = geometry.PadIfNeeded(20, 20, image_in="x", border_mode="constant", value=9)({"x": flat}, state())["x"]
    assert padded.shape == (20, 20, 3) and (padded[0] == 9).all() and (padded[2:18, 2:18] == 50).all()
    shapes: dict[str, Any] = {
        "sigmaX_limit": (0.2, 1.0),
        "rotate_limit": 90,
        "beta_limit": (0.5, 8.0),
        "noise_limit": (0.9, 1.1),
    }
    for advanced, name in ((False, "Blur"), (True, "AdvancedBlur")):
        assert type(blurs.Blur("x", "x", advanced=advanced, **shapes).func).__name__ == name
    rows = np.arange(16, dtype=np.uint8)[:, None, None].repeat(16, 1).repeat(3, 2) * 10
    coarse = pixels.Downscale("x", "x", scale_min=0.25, scale_max=0.25, interpolation=0)({"x": rows}, state())["x"]
    assert len(np.unique(coarse)) == 4
    assert pixels.RandomRain("x", "x", rain_type=None)({"x": image()}, state())["x"].shape == (32, 32, 3)


def test_gaussian_blur_has_opencvs_weights_by_default():
    spot = np.zeros((9, 9, 1), np.float32)
    spot[4, 4] = 1
    row = np.pad([0.25, 0.5, 0.25], 3)
    assert np.allclose(blurs.GaussianBlur("x", "x")({"x": spot}, state())["x"][..., 0], np.outer(row, row), atol=1e-6)
    op, given = blurs.GaussianBlur("x", "x", blur_limit=(3, 7), sigma_limit=(1.0, 2.0)), state()
    drawn = [op.draw(given["rng"], ()) for _ in range(300)]
    widths, sigmas = map(np.array, zip(*drawn, strict=True))
    assert set(widths) == {3, 5, 7} and sigmas.min() >= 1 and sigmas.max() <= 2 and abs(sigmas.mean() - 1.5) < 0.1
    wide = blurs.GaussianBlur("x", "x", blur_limit=0, sigma_limit=(2.0, 2.0))({"x": spot}, state())["x"]
    assert (wide > 0).sum() > 49
    wrong: list[dict[str, Any]] = [{"blur_limit": 0}, {"blur_limit": (4, 4)}, {"sigma_limit": (-1.0, 1.0)}]
    for settings in wrong:
        with pytest.raises(UsageError, match="needs a range with an odd width"):
            blurs.GaussianBlur("x", "x", **settings)


@pytest.mark.parametrize("name", [*NAMES, "GaussianBlur"])
def test_every_op_gives_a_finite_image_that_is_not_blank(name):
    out = made(name)(data(name), state())["x"]
    assert np.isfinite(out.astype(float)).all() and np.ptp(out) > 0
