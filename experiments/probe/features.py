"""Features of a frozen encoder, of all images and their mirror images, computed once and kept in a file."""

from pathlib import Path

import grain
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
from jaxup._writing import replacing
from jaxup.files import InputError

Example = dict[str, np.ndarray]


class Features:
    """The squares of a split with their features, read from a file when they are asked for.

    Args:
        squares: images and what is known of their pixels.
        path: of float16 [N, 2, h w + 1, C]: of each image and of its mirror image the features, row by row, and the
            vector of the whole.

    Raises:
        InputError: the file cannot be read, or is of other images.
    """

    def __init__(self, squares: Squares, path: Path):
        self.squares = squares
        with reading(path):
            self.maps = np.load(path, mmap_mode="r", allow_pickle=False)
        self.grid = round((self.maps.shape[2] - 1) ** 0.5) if self.maps.ndim == 4 else 0
        if self.maps.dtype != np.float16 or self.maps.shape[:3] != (len(squares), 2, self.grid**2 + 1):
            raise InputError(f"{path}: expected features of {len(squares)} images, got {self.maps.shape}")

    def __len__(self) -> int:
        return len(self.squares)

    def name_of(self, index: int) -> str:
        """What an image is called."""
        return self.squares[index].name

    def __getitem__(self, index: int) -> tuple[Example, Example]:
        """An example, "image", "truth", "features" and "whole", and the mirrored one."""
        sample, found = self.squares[index], np.asarray(self.maps[index], np.float32)
        return self._example(sample.image, sample.truth, found[0]), self._example(
            sample.image[:, ::-1], sample.truth[:, ::-1], found[1]
        )

    def _example(self, image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> Example:
        parts = {"image": np.ascontiguousarray(image), "truth": np.ascontiguousarray(truth)}
        return parts | {"features": found[:-1].reshape(self.grid, self.grid, -1), "whole": found[-1]}


def open_features(data: DataConfig, split: Split, encoder: Encoder, name: str, folder: Path) -> Features:
    """The features of a split by an encoder of this name; computed only if `folder` does not have them.

    For depth, colours are not normalised, as JAFAR's protocol has it.
    """
    squares, settings = data.open(split), {"data": to_json(data), "encoder": name, "split": split}
    settings["data"].pop("data_dir")
    path = folder / f"features-{data.source}-{split}-{digest(settings)}.npy"
    seen = BARE if data.depth else encoder.colours

    def compute() -> None:
        print(f"features of {len(squares)} images ({split})", flush=True)
        with replacing(path) as file:
            for index in range(len(squares)):
                image = squares[index].image
                both = jnp.asarray(np.stack([image, image[:, ::-1]]), jnp.float32) / 255
                found, whole = map(np.asarray, encoder.encode(both, seen))
                rows = np.concatenate([found.reshape(2, -1, found.shape[3]), whole[:, None]], axis=1)
                if index == 0:
                    header = {"descr": "<f2", "fortran_order": False, "shape": (len(squares), *rows.shape)}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(rows.astype("<f2").tobytes())

    keep(path, compute)
    return Features(squares, path)


def training_batches(source: Features, batch_size: int, seed: int) -> grain.IterDataset[Example]:
    """Endless batches of examples, each mirrored or not by chance, shuffled anew each epoch, restorable to the bit."""
    examples = grain.MapDataset.source(Named(source)).seed(seed).shuffle().repeat()
    return batched(examples.random_map(lambda both, rng: both[int(rng.random() < 0.5)]), batch_size)
