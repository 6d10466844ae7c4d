"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 60,000 training and 10,000 test images of 28 x 28 grey pixels."""

import gzip
import math
from pathlib import Path
from typing import Literal

import numpy as np

from experiments.data.images import reading
from jaxup.files import InputError, read_grey

Split = Literal["train", "test"]

SIZE = 28
_PREFIX = {"train": "train", "test": "t10k"}
_MAX_BYTES = 2**26  # of an unpacked file; the official ones have 47 MB


def fashion_mnist(folder: Path, split: Split) -> np.ndarray:
    """The images of a split from a folder, uint8 [N, 28, 28], in the official order.

    The folder has the official files `train-images-idx3-ubyte` and `t10k-images-idx3-ubyte`, also packed (`.gz`), or
    sheets of tiles, row by row: `train_<first>_images.png`, each with the number of its first image, and
    `t10k_images.png`.

    Raises:
        InputError: no such file, or one that cannot be read.
    """
    return np.concatenate(list(by_file(folder, split).values()))


def by_file(folder: Path, split: Split) -> dict[str, np.ndarray]:
    """The same, by the name of the file."""
    prefix = _PREFIX[split]
    for file in (folder / f"{prefix}-images-idx3-ubyte", folder / f"{prefix}-images-idx3-ubyte.gz"):
        if file.exists():
            return {file.name: idx(file)}
    sheets = sorted(folder.glob("train_*_images.png")) if split == "train" else [folder / "t10k_images.png"]
    if not sheets or not sheets[0].exists():
        raise InputError(f"{folder}: holds neither {prefix}-images-idx3-ubyte(.gz) nor sheets {prefix}*_images.png")
    return {sheet.name: tiles(sheet) for sheet in sheets}


def tiles(path: Path) -> np.ndarray:
    """The 28 x 28 tiles of a sheet, row by row."""
    sheet = read_grey(path)
    height, width = sheet.shape
    if sheet.dtype != np.uint8 or height % SIZE or width % SIZE:
        raise InputError(f"{path}: expected a sheet of {SIZE} x {SIZE} tiles, got {width} x {height} of {sheet.dtype}")
    rows = sheet.reshape(height // SIZE, SIZE, width // SIZE, SIZE)
    return rows.transpose(0, 2, 1, 3).reshape(-1, SIZE, SIZE)


def idx(path: Path) -> np.ndarray:
    """An array of bytes in three axes from an idx file, also a packed one."""
    with reading(path):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(16)
            shape = tuple(int(n) for n in np.frombuffer(head, ">u4", 3, offset=4))
            size = math.prod(shape)
            if head[:4] != b"\0\0\x08\x03" or shape[1:] != (SIZE, SIZE) or size > _MAX_BYTES:
                raise InputError(f"{path}: is not an idx file of images of {SIZE} x {SIZE} bytes")
            stored = file.read(size + 1)
        if len(stored) != size:
            raise InputError(f"{path}: holds more or fewer than {shape[0]} images")
        return np.frombuffer(stored, np.uint8).reshape(shape)


def from_tfds(directory: Path | None, split: Split) -> np.ndarray:
    """The images of a split from a prepared data set of TensorFlow Datasets, read without TensorFlow.

    It must have been prepared as ArrayRecord, which needs TensorFlow, once:

        tfds.builder("fashion_mnist", file_format="array_record").download_and_prepare()

    Args:
        directory: where TFDS keeps its data sets; None: where it does by default.
        split: which.

    Raises:
        InputError: the data set was not prepared, or cannot be read.
    """
    import tensorflow_datasets as tfds  # here, because it is slow to import

    try:
        source = tfds.builder("fashion_mnist", data_dir=directory, file_format="array_record").as_data_source(split)
        return np.stack([example["image"][..., 0] for example in source])
    except Exception as error:  # TFDS raises nearly anything where files are missing
        reason = " ".join(str(error).split())[:200]
        where = directory or "the default directory of tensorflow_datasets"
        raise InputError(f"fashion_mnist in {where}: cannot be read as ArrayRecord: {reason}") from error
