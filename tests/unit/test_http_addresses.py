import socket
import threading
import time
from ipaddress import ip_address

import pytest

from jobsched.tasks.addresses import NotAllowed, is_public, places
from jobsched.tasks.deadline import Deadline

PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:4700:4700::1111", "2a00:1450::1", "64:ff9b::808:808"]
NOT_PUBLIC = [
    "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1",  # loopback, private
    "169.254.169.254", "100.64.0.1", "0.0.0.0", "0.1.2.3",  # link-local, shared, unspecified
    "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255",  # multicast, reserved, broadcast
    "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "100::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1",  # IPv4 in IPv6
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808",  # behind NAT64
    "2002:7f00:1::", "2002:808:808::1", "2001::1", "2001:0:a00:1::1", "2001:db8::1", "3fff::1",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_an_address_of_the_public_internet_is_public(text):
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_any_other_is_not(text):
    assert not is_public(ip_address(text))


def reach(host, *allow):
    return [address[0] for _, address in places(host, 80, allow, Deadline(5))]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "::1", "0"]
)
def test_this_machine_is_refused_however_it_is_spelled(host):
    with pytest.raises(NotAllowed, match=r"not public; to allow it, add to categories.toml: \[http\] allow"):
        reach(host)


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.0/8", "0.0.0.0/0"])
def test_what_the_operator_allows_can_be_reached(entry):
    assert reach("127.0.0.1", "hooks.internal", entry) == ["127.0.0.1"]


@pytest.mark.parametrize("entry", ["127.0.0.2", "10.0.0.0/8", "::/0", "hooks.internal"])
def test_what_it_does_not_name_cannot(entry):
    with pytest.raises(NotAllowed):
        reach("127.0.0.1", entry)


def resolved(*addresses):
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]


@pytest.fixture
def resolver(monkeypatch):
    """The system's resolver with answers of our own: the one seam that no dispatcher can reach."""
    answers = {}
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: answers[host]())
    return answers


def test_one_private_address_among_public_ones_is_enough_to_refuse_a_name(resolver):
    resolver["two.example"] = lambda: resolved("8.8.8.8", "10.0.0.1")
    with pytest.raises(NotAllowed, match=r"'two\.example'") as caught:
        reach("two.example")
    assert "10.0.0.1" not in str(caught.value)  # what a name stands for inside is not told
    assert reach("two.example", "10.0.0.0/8") == ["8.8.8.8", "10.0.0.1"]
    with pytest.raises(NotAllowed):
        reach("two.example", "10.0.0.2")


def test_a_name_that_is_allowed_may_have_any_address(resolver):
    resolver["Hooks.internal"] = lambda: resolved("10.0.0.1")
    assert reach("Hooks.internal", "hooks.internal") == ["10.0.0.1"]


def test_a_resolver_that_does_not_answer_is_not_waited_for(resolver):
    answer = threading.Event()
    resolver["slow.example"] = lambda: answer.wait(30) and resolved("8.8.8.8")
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        places("slow.example", 80, (), Deadline(0.2))
    assert time.monotonic() - began < 2
    answer.set()


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
def test_a_name_that_cannot_be_one_is_an_error_of_the_connection(host):
    with pytest.raises(OSError):  # noqa: PT011 (the resolver words it)
        reach(host)
