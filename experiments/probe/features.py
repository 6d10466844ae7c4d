"""Features of a frozen encoder, of all images and their mirror images, computed once and kept in a file.

So are the filters that Upsample Anything fits to each image, which takes longer than all else.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.batching import batched
from experiments.data.images import reading
from experiments.data.photos import Split
from experiments.engine.config import to_json
from experiments.engine.samples import Named
from experiments.probe.data import DataConfig, Squares
from experiments.probe.networks import BARE, Encoder
from experiments.segmentation.features import digest, keep
from jaxup import solvers
from jaxup._writing import replacing
from jaxup.files import InputError

Example = dict[str, np.ndarray]


class Features:
    """The squares of a split with their features, read from a file when they are asked for.

    Args:
        squares: images and what is known of their pixels.
        path: of float16 [N, 2, h w + 1, C]: of each image and of its mirror image the features, row by row, and the
            vector of the whole.
        fits: of float32 [N, 2, h, w, 4], the filters that were fitted to both.

    Raises:
        InputError: a file cannot be read, or is of other images.
    """

    def __init__(self, squares: Squares, path: Path, fits: Path | None = None):
        self.squares, self.maps = squares, _mapped(path)
        self.grid = round((self.maps.shape[2] - 1) ** 0.5) if self.maps.ndim == 4 else 0
        if self.maps.dtype != np.float16 or self.maps.shape[:3] != (len(squares), 2, self.grid**2 + 1):
            raise InputError(f"{path}: expected features of {len(squares)} images, got {self.maps.shape}")
        self.fits = None if fits is None else _mapped(fits)
        if self.fits is not None and self.fits.shape != (len(squares), 2, self.grid, self.grid, 4):
            raise InputError(f"{fits}: expected filters of {len(squares)} images, got {self.fits.shape}")

    def __len__(self) -> int:
        return len(self.squares)

    def name_of(self, index: int) -> str:
        """What an image is called."""
        return self.squares[index].name

    def __getitem__(self, index: int) -> tuple[Example, Example]:
        """An example, "image", "truth", "features", "whole", and "fit" if there are filters; and the mirrored one."""
        image, truth, _ = self.squares[index]
        return self._example(index, 0, image, truth), self._example(index, 1, image[:, ::-1], truth[:, ::-1])

    def _example(self, index: int, side: int, image: np.ndarray, truth: np.ndarray) -> Example:
        found = np.asarray(self.maps[index, side], np.float32)
        parts = {"image": np.ascontiguousarray(image), "truth": np.ascontiguousarray(truth)}
        if self.fits is not None:
            parts["fit"] = np.array(self.fits[index, side])
        return parts | {"features": found[:-1].reshape(self.grid, self.grid, -1), "whole": found[-1]}


def _mapped(path: Path) -> np.ndarray:
    with reading(path):
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


def open_features(
    data: DataConfig, split: Split, encoder: Encoder, name: str, folder: Path, *, fits: bool = False
) -> Features:
    """The features of a split by an encoder of this name, with the fitted filters if they are asked for.

    They are computed only if `folder` does not have them. For depth, colours are not normalised, as JAFAR's protocol
    has it.
    """
    squares, settings = data.open(split), {"data": to_json(data), "encoder": name, "split": split}
    settings["data"].pop("data_dir")
    seen = BARE if data.depth else encoder.colours

    def encoded(both: jax.Array) -> np.ndarray:
        found, whole = map(np.asarray, encoder.encode(both, seen))
        return np.concatenate([found.reshape(2, -1, found.shape[3]), whole[:, None]], axis=1).astype("<f2")

    path = folder / f"features-{data.source}-{split}-{digest(settings)}.npy"
    keep(path, lambda: _write(path, squares, f"features of {len(squares)} images ({split})", encoded))
    found = Features(squares, path)
    if not fits:
        return found
    settings["grid"] = found.grid

    def fitted(both: jax.Array) -> np.ndarray:
        fit = solvers.fit_bilateral(both, size=found.grid)
        return np.concatenate([np.asarray(each, "<f4") for each in fit[:4]], axis=3)

    filters = folder / f"fits-{data.source}-{split}-{digest(settings)}.npy"
    keep(filters, lambda: _write(filters, squares, f"filters fitted to {len(squares)} images ({split})", fitted))
    return Features(squares, path, filters)


def _write(path: Path, squares: Squares, what: str, of: Callable[[jax.Array], np.ndarray]) -> None:
    """What a function makes of each image and its mirror image, [2, H, W, 3] in 0 .. 1, as one array [N, 2, ...]."""
    print(what, flush=True)
    with replacing(path) as file:
        for index in range(len(squares)):
            image = squares[index].image
            rows = of(jnp.asarray(np.stack([image, image[:, ::-1]]), jnp.float32) / 255)
            if index == 0:
                shape = len(squares), *rows.shape
                header: dict[str, Any] = {"descr": rows.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(rows.tobytes())


def training_batches(source: Features, batch_size: int, seed: int) -> grain.IterDataset[Example]:
    """Endless batches of examples, each mirrored or not by chance, shuffled anew each epoch, restorable to the bit."""
    examples = grain.MapDataset.source(Named(source)).seed(seed).shuffle().repeat()
    return batched(examples.random_map(lambda both, rng: both[int(rng.random() < 0.5)]), batch_size)
