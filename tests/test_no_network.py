"""The block that the whole suite runs under does block."""

import socket
import subprocess
import sys
import urllib.request

import pytest

OUTSIDE = "192.0.2.1"  # an address that documentation may use and nobody has (RFC 5737)


def test_a_connection_to_the_outside_is_refused():
    with pytest.raises(OSError, match="without a network"):
        socket.create_connection((OUTSIDE, 80), timeout=1)
    with socket.socket() as plain, pytest.raises(OSError, match="without a network"):
        plain.connect_ex((OUTSIDE, 80))


def test_a_datagram_to_the_outside_is_refused():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain, pytest.raises(OSError, match="without a network"):
        plain.sendto(b"hello", (OUTSIDE, 53))


def test_no_name_is_looked_up():
    with pytest.raises(OSError, match="without a network"):
        urllib.request.urlopen("http://example.org", timeout=1)


def test_this_machine_can_still_talk_to_itself():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(("localhost", server.getsockname()[1]), timeout=5) as client:
            accepted, _ = server.accept()
            with accepted:
                accepted.sendall(b"here")
                assert client.recv(4) == b"here"


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no unix sockets")
def test_unix_sockets_still_work(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))


def test_processes_that_a_test_starts_are_blocked_too():
    code = f"import socket; socket.create_connection(({OUTSIDE!r}, 80), timeout=1)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode != 0 and "without a network" in result.stderr
