"""Inception features in clean-fid's "clean" mode, whose Frechet distance is an FID (Parmar et al., arXiv 2104.11222).

Needs the extra `fid` (clean-fid, torch) and a local copy of the weights; nothing is downloaded. Only with the published
weights is the metric called FID.
"""

from hashlib import sha256
from pathlib import Path

import numpy as np

from runtime.errors import UsageError

FILE = "inception-2015-12-05.pt"
URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{FILE}"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
RESOLUTION = 299


class CleanInception:
    """Features (n, 2048) of images (n, H, W, 1 or 3) in [-1, 1], `batch` at a time, by torch.

    Images are rounded to 8 bits, as they would be saved, and resized by clean-fid; gray images are repeated to three
    channels. weights: the file, or its folder. device: torch's name for it; "auto" takes CUDA where there is one.
    """

    def __init__(self, weights: str | None, batch: int = 64, device: str = "auto"):
        if weights is None:
            raise UsageError(f"FID needs Inception's weights: evaluation.features.weights=PATH, a local copy of {URL}.")
        path = Path(weights) / FILE if Path(weights).is_dir() else Path(weights)
        if path.name != FILE or not path.is_file():
            raise UsageError(f"there are no Inception weights {path}; needed: a file {FILE}, a local copy of {URL}.")
        try:
            import torch
            from cleanfid.inception_torchscript import InceptionV3W
            from cleanfid.resize import build_resizer
        except ImportError as error:
            raise UsageError(f"FID needs clean-fid and torch ({error}): pip install -e '.[fid]'.") from error
        self.version = sha256(path.read_bytes()).hexdigest()
        published = self.version == SHA256
        self.name = "clean" if published else f"clean_weights_{self.version[:6]}"
        self.frechet = "fid" if published else "fd"  # other weights are another metric
        self.batch = batch
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            self.model = InceptionV3W(str(path.parent), download=False).to(self.device).eval()
        except (RuntimeError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"{path} is no TorchScript file of an Inception network: {reason}") from error
        self.resize = build_resizer("clean")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features (n, 2048) float32; raises UsageError for another shape of images."""
        import torch

        if images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise UsageError(f"CleanInception needs images (n, H, W, 1 or 3), got shape {images.shape}.")
        parts = []
        for start in range(0, len(images), self.batch):
            chunk = self.preprocess(images[start : start + self.batch])
            with torch.no_grad():
                parts.append(self.model(torch.from_numpy(chunk).to(self.device)).float().cpu().numpy())
        return np.concatenate(parts)

    def preprocess(self, images: np.ndarray) -> np.ndarray:
        """The network's input (n, 3, 299, 299) float32 in [0, 255]."""
        pixels = np.clip(np.round((images.astype(np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)
        pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
        return np.stack([self.resize(picture) for picture in pixels]).transpose(0, 3, 1, 2).copy()
