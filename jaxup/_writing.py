"""How every file is written: whole or not at all, and through no link.

What is written goes to a file of a random name beside the one that is asked for, which nobody else made, and takes its
place once all of it is on the disk. So a full disk, an error or a kill leaves the former file as it was; a kill may
leave `.NAME.` and sixteen digits beside it. A symbolic link is replaced by the file, and what it pointed to stays as
it is; so do other names (hard links) of a file that is replaced. New files have the permissions that the umask gives,
replaced ones keep theirs.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_OURS = os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)  # the latter two not on every system


def write_file(path: Path, content: bytes) -> None:
    """Write a file.

    Raises:
        OSError: it cannot be written; the error names it, and what was there before still is.
    """
    with replacing(path, len(content)) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path, size: int | None = None) -> Iterator[BinaryIO]:
    """A new file to write to, which takes the place of another one at the end of the block.

    Args:
        path: what it is called then.
        size: its size in bytes, where that is known.

    Raises:
        OSError: it cannot be written, or the block raised one; the error names it, and what was there still is.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with _created(temporary, _mode(path)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if size is not None and os.fstat(file.fileno()).st_size != size:
                raise OSError(errno.EIO, "not all of it was written")
        os.replace(temporary, path)
    except OSError as error:
        raise _named(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file of lines, which is made if need be: all of the line or nothing.

    Raises:
        OSError: it cannot be written, or the file is a link; the error names the file.
    """
    rest = f"{line}\n".encode()
    try:
        with contextlib.closing(os.fdopen(os.open(path, _OURS | os.O_APPEND | os.O_CREAT, 0o666), "wb", 0)) as file:
            before = os.fstat(file.fileno()).st_size
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except BaseException:
                os.ftruncate(file.fileno(), before)
                raise
    except OSError as error:
        raise _named(error, path) from error


def _created(path: Path, mode: int | None) -> BinaryIO:
    descriptor = os.open(path, _OURS | os.O_CREAT | os.O_EXCL, 0o666)
    if mode is not None and hasattr(os, "fchmod"):
        os.fchmod(descriptor, mode)
    return os.fdopen(descriptor, "wb")


def _mode(path: Path) -> int | None:
    """The permissions of a file that is replaced; links have none."""
    try:
        found = path.lstat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found) and not stat.S_ISLNK(found):
        raise OSError(errno.EINVAL, "is no regular file")
    return stat.S_IMODE(found) & 0o777 if stat.S_ISREG(found) else None


def _named(error: OSError, path: Path) -> OSError:
    """The error of the temporary file as that of the file that was asked for."""
    return OSError(error.errno or errno.EIO, error.strerror or str(error), str(path))
