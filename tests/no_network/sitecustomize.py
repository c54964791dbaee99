"""Python loads this file by itself when its folder is on PYTHONPATH: so the tests, and every process and notebook
kernel that they start, can talk to this machine only.
"""

import ipaddress
import socket


class NetworkBlocked(OSError):
    """Something reached for the network while the tests ran."""


def _refuse(host) -> None:
    if host is None or host in ("", "localhost", b"localhost"):
        return
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        if ipaddress.ip_address(text.partition("%")[0]).is_loopback:
            return
    except ValueError:
        pass  # a name: whatever it stands for, it would have to be asked for outside
    raise NetworkBlocked(f"the tests run without a network, but something reached for {text!r}")


def _guarded(method):
    def guard(self, *arguments):
        # connect(address), sendto(data, [flags,] address), sendmsg(buffers, ancillary, flags, address)
        address = arguments[-1]
        if self.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple):
            _refuse(address[0])
        return method(self, *arguments)

    return guard


def _resolving(function):
    def guard(host, *arguments, **options):
        _refuse(host)
        return function(host, *arguments, **options)

    return guard


def block() -> None:
    """Let sockets reach loopback addresses and unix sockets only. Blocking twice is the same as once."""
    if getattr(socket, "only_loopback", False):
        return
    socket.only_loopback = True
    for name in ("connect", "connect_ex", "sendto", "sendmsg"):
        if hasattr(socket.socket, name):
            setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        setattr(socket, name, _resolving(getattr(socket, name)))


block()
