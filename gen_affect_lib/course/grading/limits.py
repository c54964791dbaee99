"""What a graded notebook may not do: use the network, start or signal other processes, take too much memory or disk.

These limits stop accidents. They are no protection against malice: see INSTRUCTORS.md.
"""

from __future__ import annotations

import os
import sys

OUT_OF_MEMORY = 77  # the exit code of a run that reached its memory limit
LARGEST_FILE = 2**30  # bytes
_CONNECTS = {
    "socket.connect",
    "socket.sendto",
    "socket.sendmsg",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
}
_STARTS = {
    "subprocess.Popen",
    "os.system",
    "os.fork",
    "os.forkpty",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "pty.spawn",
    "_winapi.CreateProcess",
}
_KILLS = {"os.kill", "os.killpg"}
_NO_PROGRAMS = "no other program or process can be started while a notebook is graded"


def impose(memory_gb: float) -> None:
    """Impose all limits on this process, for the rest of its life."""
    _limit_memory(memory_gb)
    sys.addaudithook(_refuse)  # an audit hook cannot be removed
    _refuse_multiprocessing()


def _limit_memory(memory_gb: float) -> None:
    """Make allocations beyond the limit fail, so that the cell raises an error; limit the size of files, too.

    Only Linux can do this; on every system `sandbox` watches the memory. The limit is not on the address space
    (RLIMIT_AS), because torch reserves more than a gigabyte that it never uses.
    """
    if sys.platform == "linux":
        import resource

        memory = int(memory_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))


def _refuse(event: str, arguments: tuple) -> None:
    """An audit hook: raises PermissionError for what is not allowed."""
    if event in _CONNECTS:
        raise PermissionError("the network is closed while a notebook is graded")
    if event in _STARTS:
        raise PermissionError(_NO_PROGRAMS)
    if event in _KILLS and arguments[0] != os.getpid():
        raise PermissionError("no signal can be sent to other processes while a notebook is graded")


def _refuse_multiprocessing() -> None:
    """multiprocessing starts its processes without an audit event."""
    from multiprocessing import util

    def refuse(*_: object) -> int:
        raise PermissionError(_NO_PROGRAMS)

    util.spawnv_passfds = refuse
