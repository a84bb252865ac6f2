"""Every picture is written whole, in the size expected, and says what its numbers say."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UsageError
from tests.evaluation.fakes import FakePipeline, fake_run
from visualizers.canvas import write
from visualizers.comparison import compare_images, compare_points, plot_jumps, save_neighbours
from visualizers.curves import read_metrics, smooth
from visualizers.field import quiver_field
from visualizers.grids import save_class_grid, save_denoising, save_grid, save_strip, to_pixels
from visualizers.pictures import SamplePicture
from visualizers.points import limits, scatter_beside
from visualizers.trajectories import animate_paths, plot_paths

POINTS = np.random.default_rng(0).standard_normal((50, 2))


def opened(path):
    image = Image.open(path)
    image.load()
    return image


def test_the_range_of_images_becomes_bytes():
    values = np.float32([-3, -1, -0.5, 0, 0.5, 1, 3, np.nan, np.inf]).reshape(1, 1, 9, 1)
    np.testing.assert_array_equal(to_pixels(values)[0, 0, :, 1], [0, 0, 64, 128, 191, 255, 255, 128, 255])
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_array_equal(to_pixels(every / np.float32(127.5) - 1)[..., :1], every)  # bytes survive the trip


def test_grid_pixels_and_gaps(tmp_path):
    images = np.stack([np.full((3, 4, 3), value, np.float32) for value in (-1, 0, 1)])
    images[1, ..., 0] = 1
    path = save_grid(images, tmp_path / "new" / "folder" / "grid.png", columns=2, zoom=2)
    page = np.asarray(opened(path))
    assert page.shape == (2 * 6 + 3 * 2, 2 * 8 + 3 * 2, 3)
    assert page[2, 2].tolist() == [0, 0, 0] and page[7, 9].tolist() == [0, 0, 0]  # corners of the first image
    assert page[1, 1].tolist() == [255] * 3 and page[2, 10].tolist() == [255] * 3  # gaps
    assert page[2, 12].tolist() == [255, 128, 128]
    assert (page[10:, 12:] == 255).all()  # no fourth image


def test_class_grid_sorts_rows(tmp_path):
    labels = np.array([2, 0, 2, 0, 0])
    images = np.ones((5, 4, 4, 1), np.float32) * (labels - 1)[:, None, None, None]
    page = np.asarray(opened(save_class_grid(images, labels, tmp_path / "c.png", per_class=3, zoom=1)))[..., 0]
    assert page.shape == (2 * 6 + 2, 3 * 6 + 2)
    assert page[3, [3, 9, 15]].tolist() == [0, 0, 0] and page[9, [3, 9, 15]].tolist() == [255, 255, 255]
    with pytest.raises(UsageError, match="5 images and 4 labels"):
        save_class_grid(images, labels[:4], tmp_path / "c.png")


def test_strip_and_gif_of_denoising(tmp_path):
    paths = np.linspace(-1, 1, 5)[:, None, None, None, None] * np.ones((5, 3, 64, 64, 1))
    strip = np.asarray(opened(save_strip(paths, tmp_path / "s.png", shown=2, columns=3)))
    assert strip.shape == (2 * 66 + 2, 3 * 66 + 2, 3)
    assert [strip[10, 10 + 66 * i, 0] for i in range(3)] == [0, 128, 255]
    film = opened(save_denoising(paths, tmp_path / "d.gif", frames=3))
    assert film.n_frames == 3 and film.size == (2 * 66 + 2, 2 * 66 + 2)
    film.seek(0)
    assert film.convert("RGB").getpixel((10, 10))[0] < 8


def test_images_that_are_none(tmp_path):
    with pytest.raises(UsageError, match=r"\(2, 4, 4, 2\)"):
        save_grid(np.zeros((2, 4, 4, 2)), tmp_path / "g.png")


def test_scatter_beside(tmp_path):
    path = scatter_beside(POINTS + 9, POINTS, tmp_path / "p.png", labels=np.arange(50) % 3)
    assert opened(path).size == (1080, 624)
    with pytest.raises(UsageError, match=r"samples must be .* got shape \(50, 3\)"):
        scatter_beside(np.zeros((50, 3)), POINTS, path)


def test_limits_are_a_square_that_ignores_a_stray_point():
    many = np.random.default_rng(0).uniform(-1, 1, (5000, 2)) * [1, 0.1]
    many[0] = 1e6
    (left, right), (bottom, top) = limits(many)
    assert right - left == pytest.approx(top - bottom) == pytest.approx(2 * 1.12, rel=0.01)


def test_paths_and_their_animation(tmp_path):
    times = np.linspace(0, 1, 6)
    paths = POINTS + times[:, None, None] * [5, 0]
    assert opened(plot_paths(paths, times, tmp_path / "paths.png")).size == (720, 672)
    film = opened(animate_paths(paths, times, tmp_path / "paths.gif", data=POINTS, frames=4))
    assert film.n_frames == 4 and film.size == (440, 460)
    with pytest.raises(UsageError, match="5 times"):
        plot_paths(paths, times[:5], tmp_path / "paths.png")


def test_field_is_asked_once_a_time(tmp_path):
    asked = []
    path = quiver_field(lambda x, t: asked.append((x.shape, t)) or -x, POINTS, tmp_path / "f.png", (0, 0.5), cells=5)
    assert asked == [((25, 2), 0.0), ((25, 2), 0.5)] and opened(path).width > 600


def metrics_file(path, rows):
    path.write_text("\n".join(json.dumps(row) if isinstance(row, dict) else row for row in rows))
    return path


def test_metrics_of_a_resumed_run(tmp_path):
    rows = [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 2.0, "note": "x"},
        {"step": 2, "loss": 1.5},
        '{"step": 3, "lo',
    ]
    steps, values = read_metrics(metrics_file(tmp_path / "m.jsonl", rows))["loss"]
    assert steps.tolist() == [1, 2] and values.tolist() == [3.0, 1.5]
    with pytest.raises(UsageError, match="line 1 is no JSON"):
        read_metrics(metrics_file(tmp_path / "bad.jsonl", ["{", "{}"]))
    with pytest.raises(UsageError, match="no metrics file"):
        read_metrics(tmp_path / "none.jsonl")


def test_smoothing():
    assert smooth(np.array([2.0, 4.0]), 0.0).tolist() == [2, 4]
    assert smooth(np.full(9, 7.0), 0.9) == pytest.approx(np.full(9, 7.0))
    assert smooth(np.array([0.0, 1.0]), 0.5)[1] == pytest.approx(2 / 3)
    assert smooth(np.array([0.0, np.inf, 1.0]), 0.5) == pytest.approx([0, np.inf, 2 / 3])


def test_a_failed_picture_leaves_the_old_one(tmp_path):
    path = write(tmp_path / "x.png", lambda temporary: temporary.write_text("old"))

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_sample_picture_by_shape(tmp_path):
    draw = SamplePicture(points=60, images=8)
    (path,) = draw(fake_run(), tmp_path / "samples", "step_10")
    assert path == tmp_path / "samples" / "step_10.png" and opened(path).width == 1080
    few = fake_run(FakePipeline(rows={"train": 20}), shift=float("nan"))
    assert len(draw(few, tmp_path, "diverged")) == 1  # a picture of nothing, of too little data, ends no run
    (path,) = draw(fake_run(FakePipeline((32, 32, 3))), tmp_path)
    assert opened(path).size == (3 * 66 + 2, 3 * 66 + 2)
    assert draw(fake_run(FakePipeline((30,))), tmp_path / "nothing") == []
    assert not (tmp_path / "nothing").exists()


def test_sample_picture_by_class(tmp_path):
    pipeline = FakePipeline((32, 32, 1), labels=[0, 1, 2])
    pipeline.classes = 3
    run = fake_run(pipeline, conditions=("label",))
    (path,) = SamplePicture(images=7)(run, tmp_path)
    assert run.objective.labels[0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert opened(path).size == (3 * 66 + 2, 3 * 66 + 2)


def test_importing_the_room_loads_no_matplotlib():
    modules = "canvas comparison curves field grids pictures points trajectories".split()
    code = f"import sys, {', '.join('visualizers.' + m for m in modules)}; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_comparisons_refuse_what_does_not_match(tmp_path):
    images = np.zeros((3, 4, 4, 1))
    with pytest.raises(UsageError, match=r"equally many images .*\{'a': 3, 'b': 2\}"):
        compare_images({"a": images, "b": images[:2]}, tmp_path / "c.png")
    with pytest.raises(UsageError, match="3 samples and 2 rows"):
        save_neighbours(images, np.zeros((2, 5, 4, 4, 1)), tmp_path / "n.png")
    with pytest.raises(UsageError, match=r"shapes \(4, 50, 2\) and \(3, 40, 2\)"):
        plot_jumps(np.zeros((4, 50, 2)), np.zeros((3, 40, 2)), POINTS, tmp_path / "j.png")
    one = compare_points({"1 step": POINTS, "4 steps": POINTS + 1}, POINTS, tmp_path / "p.png")
    assert opened(one).size == (3 * 408, 480)


def test_neighbours_stand_beside_their_sample(tmp_path):
    samples = np.float32([-1, 1])[:, None, None, None] * np.ones((2, 4, 4, 1), np.float32)
    near = np.repeat(samples[:, None], 2, axis=1) * 0.5
    page = np.asarray(opened(save_neighbours(samples, near, tmp_path / "n.png")))[..., 0]
    middle = [page[2 + 32, x] for x in (34, 110, 176)], [page[68 + 32, x] for x in (34, 110, 176)]
    assert middle == ([0, 64, 64], [255, 191, 191])
