"""One writer per folder: whoever writes results there holds a lock, and everybody else is told who that is."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from .errors import UsageError

LOCK_NAME = ".lock"
"""The lock's file in the folder. It is there only while somebody writes, or after a writer was killed."""

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""How file systems say that they have no locks."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def hold_folder(folder: str | Path, flag: str = "--out") -> Iterator[str | None]:
    """Be the only process that writes into `folder`, which is made; yield a note for the user, or None.

    The kernel's lock (flock) decides: it ends with its process, however that ends, and processes that are forked do
    not inherit it. What the file says of its holder is for the message. Where the file system has no such locks, the
    file itself decides: its holder counts as dead if it was a process of this host that is gone, so two processes
    that take over the lock of a dead one in the same millisecond are not told apart there.

    Parameters
    ----------
    folder : str or pathlib.Path
    flag : str
        The flag that named the folder, for the message.

    Yields
    ------
    str or None
        A sentence when the lock of a holder that was killed is taken over.

    Raises
    ------
    UsageError
        When another process holds the folder: one line that names it.

    Examples
    --------
    >>> import tempfile
    >>> with hold_folder(tempfile.mkdtemp()) as note:
    ...     print(note)
    None
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path, owner = folder / LOCK_NAME, os.getpid()
    descriptor, previous = _acquire(path, f"{flag} {folder}")
    _held.add(descriptor)
    try:
        _write_holder(descriptor)
        yield f"{flag} {folder} was left by {previous}, which was killed; this run took over." if previous else None
    finally:
        if os.getpid() == owner:  # a forked process may leave by an exception, too
            if _is_file(descriptor, path):
                path.unlink()
            _held.discard(descriptor)
            os.close(descriptor)


def _acquire(path: Path, name: str) -> tuple[int, Holder | None]:
    """A descriptor of the locked file, and who held it without releasing it."""
    while True:
        descriptor, is_new = _open(path)
        try:
            holder = _read_holder(descriptor)
            if not _try_to_lock(descriptor, is_new, holder):
                raise UsageError(
                    f"{name} is in use by {holder or 'another process'}: wait until it ends, or give another folder."
                )
            if _is_file(descriptor, path):  # else the holder removed it after it was opened here
                return descriptor, _read_holder(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(path: Path) -> tuple[int, bool]:
    """A descriptor, and whether the file is new."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), True
    except FileExistsError:
        pass
    try:
        return os.open(path, os.O_RDWR), False
    except FileNotFoundError:  # removed in between
        return _open(path)


def _try_to_lock(descriptor: int, is_new: bool, holder: Holder | None) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return is_new or (holder is not None and _is_dead(holder))
    return True


def _is_dead(holder: Holder) -> bool:
    """Whether the holder was a process of this host and is gone."""
    if holder.host != socket.gethostname():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write_holder(descriptor: int) -> None:
    holder = Holder(socket.gethostname(), os.getpid(), datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"))
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)


def _read_holder(descriptor: int) -> Holder | None:
    """Who the file names; None for nobody, as between the making of the lock and the writing of the name."""
    try:
        entry = json.loads(os.pread(descriptor, 4096, 0))
        return Holder(str(entry["host"]), int(entry["pid"]), str(entry["since"]))
    except (ValueError, KeyError, TypeError):
        return None


_held: set[int] = set()


def _forget_held() -> None:
    """Close a forked process's copies of the descriptors, which would keep the locks after the holder's death."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_held)
