"""How albumentations becomes an op: on one image, or on an image together with its masks, boxes and keypoints.

albumentations (MIT) is the extra `augment`. Names and arguments are FastEstimator 1.7's where it has them; arguments
that albumentations 2 renamed are translated, and any argument of albumentations itself is taken too.
"""

import random
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import numpy as np

from dataloaders.ops.each import by_sample
from dataloaders.ops.numpy_op import Names, NumpyOp
from runtime.errors import UsageError

Settings = dict[str, Any]


class AlbumentationsOp(NumpyOp):
    """A transform of albumentations that is always applied (`Sometimes` gives it a probability).

    transform: its name there. defaults: FastEstimator's, where they differ. renamed: FastEstimator's names of
    arguments. All random numbers come from state["rng"], so that any process makes the same image of the same batch.
    """

    transform = ""
    defaults: Settings = {}
    renamed: dict[str, str] = {}

    def translated(self, settings: Settings) -> Settings:
        """FastEstimator's arguments as albumentations'."""
        return {self.renamed.get(name, name): value for name, value in settings.items()}

    def built(self, settings: Settings, wrap: Callable[[Any], Any] = lambda transform: transform) -> Any:
        """The transform; UsageError where albumentations is missing or refuses an argument."""
        try:
            import albumentations
        except ImportError as error:
            raise UsageError(
                f"{type(self).__name__} needs albumentations, which isn't installed: pip install '.[augment]'."
            ) from error
        try:
            chosen = self.translated({**self.defaults, **settings})
            kind = getattr(albumentations, self.transform or type(self).__name__)
            unknown = set(chosen) - set(signature(kind.__init__).parameters)  # albumentations only warns of these
            if unknown:
                raise ValueError(f"it has no {', '.join(sorted(unknown))}")
            return wrap(kind(p=1.0, **chosen))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{type(self).__name__} got {settings}, which albumentations refuses: {error}") from error

    def forward_batch(self, data: Any, state: Any) -> Any:
        """Sample by sample, each with draws of its own."""
        return by_sample(self, data, state)


class ImageOp(AlbumentationsOp):
    """A transform of images alone, (H, W, C), uint8 or float32 in [0, 1]; every input gets the same draws."""

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None, **settings: Any):
        super().__init__(inputs, outputs, mode, ds_id)
        self.func = self.built(settings)
        self.more: dict[str, Any] = {}  # what the transform reads beside the image

    def forward(self, data: Any, state: Any) -> Any:
        """The changed images."""
        seed = int(state["rng"].integers(2**63))
        changed = []
        for image in data if self.in_list else [data]:
            self.func.set_random_state(np.random.default_rng(seed), random.Random(seed))
            changed.append(self.func(image=np.asarray(image), **self.more)["image"])
        return changed if self.out_list else changed[0]


class JointOp(AlbumentationsOp):
    """A transform of an image and what belongs to it: masks, boxes (N, 4 and more) and keypoints (N, 2 and more).

    image_in ... keypoints_out: keys; an output's is its input's unless given. bbox_params: "coco", "pascal_voc",
    "albumentations", "yolo", or a dictionary of albumentations' BboxParams; keypoint_params: "xy", "yx", "xya", ...,
    or a dictionary of KeypointParams. Boxes and keypoints outside of the result are dropped, so that their number
    may change: batch them with `Batch(pad_value=...)`. positional: arguments that may come without a name. extra: what
    the transform reads of the last inputs, by albumentations' names.
    """

    positional: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def __init__(
        self,
        *values: Any,
        mode: Names = None,
        ds_id: Names = None,
        image_in: str | None = None,
        mask_in: str | None = None,
        masks_in: Sequence[str] | None = None,
        bbox_in: str | None = None,
        keypoints_in: str | None = None,
        image_out: str | None = None,
        mask_out: str | None = None,
        masks_out: Sequence[str] | None = None,
        bbox_out: str | None = None,
        keypoints_out: str | None = None,
        bbox_params: str | dict | None = None,
        keypoint_params: str | dict | None = None,
        **settings: Any,
    ):
        if len(values) > len(self.positional):
            raise UsageError(
                f"{type(self).__name__} takes {len(self.positional)} arguments without names "
                f"({', '.join(self.positional)}), got {len(values)}."
            )
        read = {"image": image_in, "mask": mask_in, "bboxes": bbox_in, "keypoints": keypoints_in}
        written = {"image": image_out, "mask": mask_out, "bboxes": bbox_out, "keypoints": keypoints_out}
        self.targets = [name for name, key in read.items() if key is not None]
        if image_in is None:
            raise UsageError(f"{type(self).__name__} needs image_in, the key of an image; got none.")
        self.mask_count = len(masks_in or ())
        inputs = [str(read[name]) for name in self.targets] + list(masks_in or ())
        outputs = [str(written[name] or read[name]) for name in self.targets] + list(masks_out or masks_in or ())
        super().__init__(inputs, outputs, mode, ds_id)

        def wrap(transform: Any) -> Any:
            import albumentations as A

            boxes: Any = {"format": bbox_params} if isinstance(bbox_params, str) else bbox_params
            points: Any = {"format": keypoint_params} if isinstance(keypoint_params, str) else keypoint_params
            for name, params in (("bboxes", boxes), ("keypoints", points)):
                if (name in self.targets) != (params is not None):
                    raise ValueError(f"{name} need a key and a format, got key={read[name]!r} and format={params!r}")
            return A.Compose(
                [transform],
                bbox_params=None if boxes is None else A.BboxParams(**boxes),
                keypoint_params=None if points is None else A.KeypointParams(**points),
            )

        self.func = self.built({**dict(zip(self.positional, values, strict=False)), **settings}, wrap)

    def forward(self, data: Any, state: Any) -> Any:
        """The image and all that belongs to it, changed together."""
        given = {name: np.asarray(value) for name, value in zip(self.targets, data, strict=False)}
        more = dict(zip(self.extra, data[len(self.targets) + self.mask_count :], strict=True))
        if self.mask_count:
            given["masks"] = np.stack(data[len(self.targets) :][: self.mask_count])
        seed = int(state["rng"].integers(2**63))
        self.func.set_random_state(np.random.default_rng(seed), random.Random(seed))
        found = self.func(**given, **more)
        return [found[name] for name in self.targets] + list(found.get("masks", ())[: self.mask_count])
