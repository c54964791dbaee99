"""Starts a program in namespaces of its own: `python -I -S namespaces.py SPEC PROGRAM ARGUMENT...`, on Linux.

The program sees the folders in SPEC and nothing else of the machine: no other file, process or network. It has no
rights that it could win back, and whatever it starts ends with it. Only the standard library is used, since every
submission waits for this.

SPEC is JSON: {"root": an empty folder, "read": [paths to show, read-only], "write": [folders to show], "cwd"}; for
{"plain": true} the program is only tied to the life of its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys

NOBODY = 65534
MOST_PROCESSES = 4096  # threads of the same user, in all programs together
_NEW = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x8000000, "uts": 0x4000000}
_NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _PRIVATE, _REMOUNT, _RDONLY = 2, 4, 8, 4096, 16384, 1 << 18, 32, 1
_MOUNT_SETATTR, _PIVOT_ROOT = 442, {"x86_64": 155, "aarch64": 41, "ppc64le": 203, "s390x": 217, "riscv64": 41}
_SET_PARENT_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES = 1, 38
_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    spec, program = json.loads(sys.argv[1]), sys.argv[2:]
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if spec.get("plain"):
        os.execv(program[0], program)
    root = os.geteuid() == 0
    uid, gid = os.geteuid(), os.getegid()
    kinds = [bit for name, bit in _NEW.items() if not (root and name == "user")]
    check(_LIBC.unshare(sum(kinds)), "unshare")
    if not root:  # in a user namespace, in which nobody is root
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{NOBODY} {uid} 1")
        write("/proc/self/gid_map", f"{NOBODY} {gid} 1")
    read, report = os.pipe()
    os.set_inheritable(report, True)
    child = os.fork()
    if child == 0:
        os.close(read)
        init(spec, program, root, report)
    os.close(report)
    for standard in (0, 1):
        os.close(standard)
    status = os.read(read, 64)
    os.waitpid(child, 0)
    end_like(int(status) if status else 256 * 125)


def init(spec: dict, program: list[str], root: bool, report: int) -> None:
    """The first process of the new namespaces: with it, all others end."""
    die_with_parent()
    try:
        mounts(spec)
    except OSError as error:
        os.write(2, f"{error.strerror}: {error.filename}\n".encode())
        os._exit(125)
    player = os.fork()
    if player == 0:
        os.close(report)
        resource.setrlimit(resource.RLIMIT_NPROC, (MOST_PROCESSES, MOST_PROCESSES))
        if root:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        check(_LIBC.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "prctl")
        os.execv(program[0], program)  # without root, the rights in the namespaces end here, too
    for standard in (0, 1):
        os.close(standard)
    while True:
        ended, status = os.wait()
        if ended == player:
            os.write(report, str(status).encode())
            os._exit(0)


def mounts(spec: dict) -> None:
    """A new root with what the program may see."""
    root = spec["root"]
    mount(None, "/", None, _REC | _PRIVATE)
    mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "mode=755,size=16m")
    for folder in ("/tmp", "/dev/shm"):
        os.makedirs(root + folder)
        mount("tmpfs", root + folder, "tmpfs", _NOSUID | _NODEV, "mode=1777,size=256m")
    os.makedirs(f"{root}/proc")
    mount("proc", f"{root}/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    for name in ("sys", "sysrq-trigger", "irq", "bus", "fs"):
        if os.path.exists(f"{root}/proc/{name}"):
            bind(f"{root}/proc/{name}", f"{root}/proc/{name}", True)
    for device in ("null", "zero", "full", "random", "urandom"):
        bind(f"/dev/{device}", f"{root}/dev/{device}", None)
    for path in sorted(spec["read"], key=len):
        show(root, path, True)
    for path in spec["write"]:
        show(root, path, False)
    os.chdir(root)
    mount(None, root, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)
    check(_LIBC.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    check(_LIBC.umount2(b".", 2), "umount")
    os.chdir(spec["cwd"])


def show(root: str, path: str, read_only: bool) -> None:
    """Show a path in the new root; links on the way to it are kept, so that it has its name there, too."""
    real = os.path.realpath(path)
    if not os.path.exists(real):
        return
    if real != path and not os.path.lexists(root + path):
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(real, root + path)
    if not (read_only and os.path.exists(root + real)):  # else it is a part of what is shown already
        bind(real, root + real, read_only)


def bind(source: str, target: str, read_only: bool | None) -> None:
    """Mount a file or folder at another place. read_only: None for a device."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT, 0o600))
    mount(source, target, None, _BIND | _REC)
    if read_only is not None:
        change = (ctypes.c_uint64 * 4)(2 | 4 | (1 if read_only else 0), 0, 0, 0)  # nosuid, nodev, and read-only
        result = _LIBC.syscall(_MOUNT_SETATTR, -100, target.encode(), 0x8000, ctypes.byref(change), 32)
        check(result, f"mount_setattr {target}")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    texts = [text if text is None else text.encode() for text in (source, target, kind)]
    check(_LIBC.mount(*texts, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def die_with_parent() -> None:
    parent = os.getppid()
    check(_LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(1)  # it has ended already


def end_like(status: int) -> None:
    """End as the program did: with its exit code, or by its signal."""
    number = os.waitstatus_to_exitcode(status)
    if number < 0:
        if -number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-number, signal.SIG_DFL)
        os.kill(os.getpid(), -number)
    os._exit(number)


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    main()
