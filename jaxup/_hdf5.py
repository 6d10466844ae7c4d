"""HDF5 files that may lead nowhere: what a file holds is read from this file alone, and no larger than allowed.

Links to other files, data in other files, virtual datasets and filters of plugins are refused. It needs h5py.
"""

import math
from typing import Any

import h5py
import numpy as np

# Gzip, shuffle, checksum, szip, n-bit and scale-offset, which are HDF5's own, and h5py's lzf.
_FILTERS = {1, 2, 3, 4, 5, 6, 32000}


def member(parent: Any, name: str) -> Any:
    """What a group has under a name, by links that stay in the file; None where there is nothing.

    Raises:
        ValueError: a link to another file, or a soft one.
    """
    for part in name.split("/"):
        link = parent.get(part, getlink=True) if isinstance(parent, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name}: expected an array of this file, got a link")
        parent = parent[part]
    return parent


def dataset(parent: Any, name: str) -> Any:
    """A dataset whose numbers are in the file itself.

    Raises:
        ValueError: there is none of this name, or it is kept or made in another way.
    """
    found = member(parent, name)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"no array {name!r}")
    return checked(found)


def checked(found: Any) -> Any:
    """The same dataset, if its numbers are in the file itself and made of it by HDF5's own filters."""
    if found.is_virtual or found.external:
        raise ValueError(f"{found.name}: expected an array of this file, got one of other files")
    made = found.id.get_create_plist()
    filters = {made.get_filter(i)[0] for i in range(made.get_nfilters())}
    if not filters <= _FILTERS:
        raise ValueError(f"{found.name}: is packed by unknown filters {sorted(filters - _FILTERS)}")
    return found


def numbers(found: Any, most: int, index: Any = ()) -> np.ndarray:
    """The numbers of a dataset, or references; all, or those at an index of the first axis, at most so many bytes.

    Raises:
        ValueError: more than that, or something else.
    """
    checked(found)
    shape = found.shape if index == () else (found.shape or ())[1:]
    if found.dtype.kind not in "biuf" and h5py.check_ref_dtype(found.dtype) is not h5py.Reference:
        raise ValueError(f"{found.name}: expected numbers, got {found.dtype}")
    if shape is None or max(math.prod(shape), math.prod(found.chunks or (0,))) * found.dtype.itemsize > most:
        raise ValueError(f"{found.name}: an array of {shape} is larger than {most} bytes")
    return np.asarray(found[index])
