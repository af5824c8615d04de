"""The http task against real servers on the loopback, which the configuration of these tests allows."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jobsched import InvalidOption, Retry, api
from jobsched.codec import encode_result
from jobsched.config import parse_config
from jobsched.dispatcher import Dispatcher
from jobsched.tasks.http import RequestFailed, RequestRefused, http

PATIENCE_S = 5


class Handler(BaseHTTPRequestHandler):
    """Answers by path, and notes what it was asked."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        size = int(self.headers.get("content-length", 0))
        body = self.rfile.read(size)
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        status, headers, data = self.server.answers[self.path.partition("?")[0]]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_HEAD = answer  # noqa: N815 (names that the server looks for)

    def log_message(self, *_): ...


@contextlib.contextmanager
def serving(wrap=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    server.answers, server.asked = {"/": (200, {}, b"hello")}, []
    if wrap:
        server.socket = wrap(server.socket)
    server.port = server.server_address[1]
    server.url = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE_S)


@pytest.fixture
def allow(monkeypatch, tmp_path):
    """Have the configuration allow something."""

    def set_to(*entries):
        text = f"tasks = ['x']\n[http]\nallow = {list(entries)}\n[categories.mail]\n"
        monkeypatch.setattr(api, "_default", Dispatcher(parse_config(text, tmp_path)))

    set_to("127.0.0.1")
    return set_to


@pytest.fixture
def server(allow):
    with serving() as server:
        yield server


@contextlib.contextmanager
def raw(serve):
    """A server that does with its first connection what it likes; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def once():
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    serve(connection)

        thread = threading.Thread(target=once, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def test_an_answer_is_a_plain_value(server):
    server.answers["/a"] = (201, {"X-One": "1", "Set-Cookie": "session=s3cret"}, "grüße".encode())
    found = http(f"{server.url}/a?token=s3cret#part")
    assert found.pop("took_s") < PATIENCE_S
    assert {"x-one": "1"}.items() <= found.pop("headers").items()
    assert found == {"status": 201, "body": "grüße", "cut": False, "url": f"{server.url}/a"}
    assert server.asked[0][:2] == ("GET", "/a?token=s3cret")
    encoded = encode_result(http(f"{server.url}/a?token=s3cret"))
    assert b"s3cret" not in encoded


def test_a_request_is_sent_as_it_was_asked_for(server):
    http(f"{server.url}/", method="POST", headers={"X-Key": "k", "User-Agent": "me"}, body="grüße")
    http(f"{server.url}/", method="PUT", json={"a": [1, None]})
    http(f"{server.url}/", method="POST", body=b"\x00\xff")
    http(f"{server.url}/", method="POST")
    (post, put, data, empty) = server.asked
    assert (post[0], post[3]) == ("POST", "grüße".encode())
    sent = {name.lower(): value for name, value in post[2].items()}
    assert (sent["x-key"], sent["user-agent"], sent["host"]) == ("k", "me", f"127.0.0.1:{server.port}")
    assert (put[3], put[2]["Content-Type"]) == (b'{"a": [1, null]}', "application/json")
    assert data[3] == b"\x00\xff"
    assert empty[2]["Content-Length"] == "0"


def test_a_body_that_is_no_text_stays_bytes(server):
    server.answers["/"] = (200, {}, b"\xff\xfe\x00")
    assert http(server.url)["body"] == b"\xff\xfe\x00"
    assert http(server.url, method="HEAD")["body"] == ""


def test_a_huge_body_is_cut_and_not_read_further(allow):
    sent = []

    def pour(connection):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(4000):
                connection.sendall(bytes(1 << 18))
                sent.append(1)

    with raw(pour) as url:
        found = http(url, max_bytes=1000)
    assert (len(found["body"]), found["cut"]) == (1000, True)
    assert len(sent) < 400


def test_the_longest_body_has_room_in_a_result(server):
    server.answers["/"] = (200, {f"X-{n}": "v" * 2000 for n in range(90)}, b"x" * (2 << 20))
    found = http(server.url)
    assert len(found["body"]) == 960 << 10
    encode_result(found)


def test_a_character_that_is_cut_in_two_does_not_make_bytes_of_a_text(server):
    server.answers["/"] = (200, {}, "€€€".encode())
    assert http(server.url, max_bytes=8)["body"] == "€€"
    assert http(server.url, max_bytes=7)["body"] == "€€"
    server.answers["/"] = (200, {}, "€€€".encode()[:8])
    assert http(server.url)["body"] == "€€€".encode()[:8]


def trickle(head):
    def serve(connection):
        connection.recv(65536)
        connection.sendall(head)
        with contextlib.suppress(OSError):
            for _ in range(200):
                connection.sendall(b"x")
                time.sleep(0.05)

    return serve


@pytest.mark.parametrize(
    "head",
    [b"", b"HTTP/1.1 200 OK\r\nX-A: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"],
    ids=["status", "headers", "body"],
)
def test_the_time_limit_is_for_all_of_it_and_not_for_each_read(allow, head):
    began = time.monotonic()
    with raw(trickle(head)) as url:
        with pytest.raises(RequestFailed, match=r"no whole answer within 0\.4 s"):
            http(url, timeout_s=0.4)
        assert time.monotonic() - began < 2


def test_endless_interim_answers_end_at_the_time_limit(allow):
    def serve(connection):
        with contextlib.suppress(OSError):
            for _ in range(1000):
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                time.sleep(0.01)

    with raw(serve) as url, pytest.raises(RequestFailed, match="no whole answer"):
        http(url, timeout_s=0.3)


def test_a_server_that_does_not_take_the_body_does_not_hold_the_job(allow):
    done = threading.Event()
    with raw(lambda _: done.wait(PATIENCE_S)) as url:
        body = bytes(24 << 20)  # more than the kernel keeps for both sides
        began = time.monotonic()
        with pytest.raises(RequestFailed, match="no whole answer"):
            http(url, method="POST", body=body, timeout_s=0.3)
        assert time.monotonic() - began < 2
        done.set()


@pytest.mark.parametrize("status", [500, 502, 503, 408, 425, 429])
def test_a_busy_server_is_tried_again_when_it_says(server, status):
    server.answers["/"] = (status, {}, b"")
    with pytest.raises(RequestFailed, match=f"status {status}") as caught:
        http(server.url)
    assert type(caught.value) is RequestFailed
    for value, expected in (("7", 7), ("9" * 30, 86_400), ("-1", None), ("soon", None)):
        server.answers["/"] = (status, {"Retry-After": value}, b"")
        with pytest.raises((Retry, RequestFailed)) as caught:
            http(server.url)
        assert getattr(caught.value, "after_s", None) == expected


def test_a_server_may_say_when_by_a_date(server):
    moment = datetime.now(UTC) + timedelta(seconds=100)
    server.answers["/"] = (503, {"Retry-After": format_datetime(moment, usegmt=True)}, b"")
    with pytest.raises(Retry) as caught:
        http(server.url)
    assert 90 < caught.value.after_s <= 100


@pytest.mark.parametrize("status", [400, 401, 404, 422, 302, 304])
def test_what_the_server_does_not_want_is_not_tried_again(server, status):
    server.answers["/"] = (status, {"Retry-After": "5", "Location": "/"}, b"")
    with pytest.raises(RequestRefused, match=f"status {status}"):
        http(server.url)
    assert http.retry_rules[RequestRefused].max_retries == 0
    assert http(server.url, expect=[status])["status"] == status


def test_only_what_is_expected_is_good(server):
    with pytest.raises(RequestRefused, match="status 200"):
        http(server.url, expect=[204])


def test_a_connection_that_fails_may_be_tried_again(allow):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/", "http://no-such-host.invalid/"):
        with pytest.raises(RequestFailed) as caught:
            http(url)
        assert not isinstance(caught.value, RequestRefused)
    for data in (b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"):

        def serve(connection, data=data):
            connection.recv(65536)
            connection.sendall(data)

        with raw(serve) as url, pytest.raises(RequestFailed) as caught:
            http(url)
        assert not isinstance(caught.value, RequestRefused)


# Where it may go.


def test_nothing_private_is_reached_unless_the_configuration_allows_it(server, allow):
    allow()
    with pytest.raises(RequestRefused, match=r"\[http\] allow = \['127.0.0.1'\]"):
        http(server.url)
    assert not server.asked
    allow("127.0.0.0/8")
    assert http(server.url)["body"] == "hello"


def test_nothing_private_is_reached_without_a_configuration(server, monkeypatch, tmp_path):
    monkeypatch.setattr(api, "_default", None)
    monkeypatch.delenv("JOBSCHED_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestRefused, match="not public"):
        http(server.url)
    assert not server.asked


def test_a_name_is_resolved_once_and_connected_to_where_it_was_checked(server, allow, monkeypatch):
    asked = []
    resolve = socket.getaddrinfo

    def rebinding(host, port, *args, **kwargs):
        asked.append(host)
        return resolve("127.0.0.1" if len(asked) == 1 else "127.0.0.2", port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    found = http(f"http://hooks.example:{server.port}/")
    assert (found["status"], asked) == (200, ["hooks.example"])
    assert server.asked[0][2]["Host"] == f"hooks.example:{server.port}"


def test_the_environments_proxies_are_not_used(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert http(server.url)["status"] == 200


# Redirects.


def test_redirects_are_followed_as_far_as_asked(server):
    server.answers |= {"/1": (302, {"Location": "2?q"}, b""), "/2": (307, {"Location": "/"}, b"")}
    with pytest.raises(
        RequestRefused, match=r"GET \S+/1 was answered with status 302, a redirect; `redirects` allows 0"
    ):
        http(f"{server.url}/1")
    with pytest.raises(RequestRefused, match="status 307, a redirect; `redirects` allows 1"):
        http(f"{server.url}/1", redirects=1)
    found = http(f"{server.url}/1", redirects=2)
    assert (found["body"], found["url"]) == ("hello", f"{server.url}/")
    server.answers["/2"] = (302, {"Location": "/2"}, b"")
    with pytest.raises(RequestRefused):
        http(f"{server.url}/2", redirects=20)


def test_a_redirect_to_a_private_address_is_refused(server):
    for location in ("http://127.0.0.2/", "http://169.254.169.254/latest", "http://[::1]:1/", "//10.0.0.1/"):
        server.answers["/away"] = (302, {"Location": location}, b"")
        with pytest.raises(RequestRefused, match="not public"):
            http(f"{server.url}/away", redirects=5)


@pytest.mark.parametrize("location", ["", "file:///etc/passwd", "gopher://x/", "http://u:s3cret@127.0.0.1/"])
def test_a_redirect_to_what_is_no_url_for_us_is_refused(server, location):
    server.answers["/away"] = (302, {"Location": location} if location else {}, b"")
    with pytest.raises(RequestRefused) as caught:
        http(f"{server.url}/away", redirects=5)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "method", "next_method"),
    [
        (301, "POST", "GET"),
        (303, "PUT", "GET"),
        (302, "HEAD", "HEAD"),
        (307, "POST", "POST"),
        (308, "PUT", "PUT"),
    ],
)
def test_a_redirect_changes_the_method_as_browsers_do(server, status, method, next_method):
    server.answers["/1"] = (status, {"Location": "/"}, b"")
    http(f"{server.url}/1", method=method, body="x", redirects=1)
    assert server.asked[1][0] == next_method
    assert server.asked[1][3] == (b"x" if next_method == method else b"")


def test_secrets_stay_with_the_origin_that_they_were_for(server):
    headers = {"Authorization": "Bearer x", "Cookie": "a=b", "X-Api-Key": "k", "X-Plain": "p"}
    with serving() as other:
        server.answers |= {
            "/away": (302, {"Location": f"{other.url}/"}, b""),
            "/here": (302, {"Location": "/"}, b""),
        }
        http(f"{server.url}/away", headers=headers, redirects=1)
        assert other.asked[0][2].keys() & headers.keys() == {"X-Plain"}
        http(f"{server.url}/here", headers=headers, redirects=1)
        assert server.asked[-1][2].keys() >= headers.keys()


# What cannot be sent.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "ftp://x/"}, "url must begin with http:// or https://, got 'ftp'"),
        ({"url": "localhost:80"}, "url must begin with http:// or https://"),
        ({"url": "http:///path"}, "url must name a host"),
        ({"url": "http://x:99999/"}, "url must look like"),
        ({"url": "http://x/a b"}, "url must be printable ASCII"),
        ({"url": "http://x/\r\nX: y"}, "url must be printable ASCII"),
        ({"url": "http://ex%61mple/"}, "url must name a host"),
        ({"url": "http://user:s3cret@x/"}, "url holds a user name or password"),
        ({"url": "http://[::1%25lo]/"}, "url must"),
        ({"method": "get"}, "method must be one like 'GET' or 'POST', got 'get'"),
        ({"method": "CONNECT"}, "method must be"),
        ({"method": "GET / HTTP/1.1\r\n"}, "method must be"),
        ({"headers": {"Host": "x"}}, "'Host' cannot be set"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "cannot be set"),
        ({"headers": {"A:": "x"}}, "cannot be set"),
        ({"headers": {"X-A": "s3cret\r\nX-B: y"}}, "the value of 'X-A' holds a character"),
        ({"headers": {"X-A": "€ s3cret"}}, "the value of 'X-A' holds a character"),
        ({"body": "x", "json": 1}, "cannot both be sent"),
        ({"timeout_s": 0}, "timeout_s must be above 0"),
        ({"timeout_s": float("nan")}, "timeout_s must be"),
        ({"max_bytes": 1 << 20}, "max_bytes must be from 0 to 983040"),
        ({"redirects": 21}, "redirects must be from 0 to 20"),
    ],
)
def test_what_cannot_be_sent_is_refused_without_its_secrets(allow, arguments, message):
    with pytest.raises(InvalidOption) as caught:
        http(**({"url": "http://127.0.0.1:9/"} | arguments))
    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert http.retry_rules[InvalidOption].max_retries == 0


def test_no_error_shows_a_query_or_a_header(server):
    server.answers["/"] = (500, {}, b"")
    secret = server.url[::-1]
    for url in (server.url, "http://127.0.0.2", "http://127.0.0.1:9"):
        with pytest.raises(RequestFailed) as caught:
            http(f"{url}/?key={secret}", headers={"X-A": secret})
        assert secret not in "".join(traceback.format_exception(caught.value))


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost, signed by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("makes a certificate with openssl, which is not installed")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return folder


@pytest.fixture
def tls_server(certificate, allow):
    allow("127.0.0.1", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with serving(lambda plain: context.wrap_socket(plain, server_side=True)) as server:
        yield server


def test_tls_is_verified_against_the_name_that_was_asked_for(tls_server, certificate, monkeypatch):
    url = f"https://localhost:{tls_server.port}/"
    with pytest.raises(RequestFailed, match="CERTIFICATE_VERIFY_FAILED"):
        http(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    assert http(url)["body"] == "hello"
    with pytest.raises(RequestFailed, match="IP address mismatch"):
        http(f"https://127.0.0.1:{tls_server.port}/")
    tls_server.answers["/"] = (302, {"Location": f"http://localhost:{tls_server.port}/"}, b"")
    with pytest.raises(RequestRefused, match="redirects from https to http"):
        http(url, redirects=3)


def test_a_handshake_that_does_not_go_on_ends_at_the_time_limit(allow):
    done = threading.Event()
    with raw(lambda _: done.wait(PATIENCE_S)) as url:
        began = time.monotonic()
        with pytest.raises(RequestFailed, match="no whole answer"):
            http(url.replace("http:", "https:"), timeout_s=0.3)
        assert time.monotonic() - began < 2
        done.set()
