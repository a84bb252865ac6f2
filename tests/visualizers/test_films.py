"""Films as GIF, MP4 and PNG show the frames given."""

import sys

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UsageError
from visualizers.canvas import save_film


def grey(levels, height=16, width=20):
    return [Image.fromarray(np.full((height, width, 3), level, np.uint8)) for level in levels]


def test_a_png_shows_moments_side_by_side(tmp_path):
    page = np.asarray(Image.open(save_film(grey(range(0, 110, 10)), tmp_path / "f.png")))
    assert page.shape == (16, 6 * 20, 3)
    assert page[0, ::20, 0].tolist() == [0, 20, 40, 60, 80, 100]
    assert np.asarray(Image.open(save_film(grey([7, 9]), tmp_path / "two.png")))[0, ::20, 1].tolist() == [7, 9]


def test_a_gif_moves_and_stays_at_its_end(tmp_path):
    with Image.open(save_film(grey([0, 128, 255]), tmp_path / "f.gif", milliseconds=50, hold=400)) as film:
        assert film.n_frames == 3  # type: ignore[attr-defined]
        levels, times = [], []
        for frame in range(3):
            film.seek(frame)
            levels.append(film.convert("RGB").getpixel((3, 3))[0])  # type: ignore[index]
            times.append(film.info["duration"])
    np.testing.assert_allclose(levels, [0, 128, 255], atol=2)
    assert times == [50, 50, 400]


def test_an_mp4_has_every_frame_in_order_and_stays_at_its_end(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = save_film(grey([0, 60, 120, 240], 17, 23), tmp_path / "f.mp4", milliseconds=100, hold=300)
    reader = ffmpeg.read_frames(str(path))
    facts = next(reader)
    assert facts["size"] == (24, 18) and facts["fps"] == 10 and facts["codec"] == "h264"
    frames = [np.frombuffer(frame, np.uint8).reshape(18, 24, 3) for frame in reader]
    np.testing.assert_allclose([frame[4, 4, 0] for frame in frames], [0, 60, 120, 240, 240, 240], atol=4)
    assert frames[0][17, 4].min() > 120 and frames[0][4, 23].min() > 120  # the sides made even are white
    assert [file.name for file in tmp_path.iterdir()] == ["f.mp4"]


def test_mistakes_are_told(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"\.gif, \.mp4 or \.png .*got '.*f\.avi'"):
        save_film(grey([0]), tmp_path / "f.avi")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UsageError, match=r"pip install 'mlx-lab\[video\]' brings; or take format=gif"):
        save_film(grey([0]), tmp_path / "f.mp4")
    assert not list(tmp_path.iterdir())
