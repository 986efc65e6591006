"""Pictures from the web: what a name leads to is judged, and how much comes and how long it takes.

A name of the tests has a public address, and connections to that one are led to a server here.
"""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.serving.fetch_picture import fetch_picture, is_public

PUBLIC = "93.184.216.34"
PICTURE = bytes(range(256)) * 40


class Pictures(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]
        path = self.path.partition("?")[0]
        if path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", path.removeprefix("/to/").replace("_", "/"))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for _ in range(4):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(PICTURE), PICTURE))
            self.wfile.write(b"0\r\n\r\n")
        elif path in ("/slow", "/slow-head"):
            try:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                if path == "/slow":
                    self.wfile.write(b"Content-Length: 100\r\n\r\n")
                for _ in range(100):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.1)
            except OSError:
                pass
        elif path == "/cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
            self.close_connection = True
        else:
            status = 200 if path.startswith("/picture") else 404
            self.send_response(status)
            self.send_header("Content-Length", str(len(PICTURE)))
            self.end_headers()
            self.wfile.write(PICTURE)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    made.seen = []  # type: ignore[attr-defined]
    made.handle_error = lambda *_: None  # type: ignore[method-assign]  # of who hangs up
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


Names = dict[str, list[list[str]]]


@pytest.fixture
def names(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> Names:
    """What each name resolves to, time after time; connections to PUBLIC reach the server."""
    known: Names = {"pictures.test": [[PUBLIC]]}

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple]:
        answers = known.get(host, [[host]])
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(0, 0, 0, "", (one, port)) for one in found]

    def create_connection(place: tuple[str, int], timeout: float) -> socket.socket:
        assert place[0] == PUBLIC, f"connected to {place}"
        made = socket.socket()
        made.settimeout(timeout)
        made.connect(("127.0.0.1", server.server_port))
        return made

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "create_connection", create_connection)
    return known


def fetched(url: str, limit_bytes: int = 100_000, timeout: float = 5.0) -> bytes:
    return fetch_picture(url, limit_bytes=limit_bytes, timeout=timeout)


def test_it_gives_the_bytes(names: Names, server: ThreadingHTTPServer) -> None:
    assert fetched("http://pictures.test/picture?size=1 0") == PICTURE
    ((path, headers),) = server.seen  # type: ignore[attr-defined]
    assert path == "/picture?size=1%200"
    assert headers["Host"] == "pictures.test"
    assert not {"Cookie", "Authorization"} & headers.keys()
    assert fetched("http://pictures.test/chunked") == 4 * PICTURE


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1"),
        *("192.0.2.1", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1"),
        *("64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2001:0:7f00:1::"),
    ],
)
def test_an_address_that_is_not_public(address: str, names: Names) -> None:
    assert not is_public(address)
    names["inside.test"] = [[PUBLIC, address]]  # one of several is enough
    with pytest.raises(UserError, match=r"inside\.test is no public address"):
        fetched("http://inside.test/picture")


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_an_address_that_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/picture", "http://[::1]/picture", "http://localhost/picture"),
        *("http://2130706433/picture", "http://0x7f.1/picture", "http://127.1/picture"),
    ],
)
def test_loopback_however_it_is_written(url: str) -> None:
    """By the system's own resolver."""
    with pytest.raises(UserError, match="is no public address"):
        fetched(url)


def test_a_redirect_is_judged_as_well(names: Names, server: ThreadingHTTPServer) -> None:
    assert fetched("http://pictures.test/to/_picture") == PICTURE
    assert fetched("http://pictures.test/to/http:__pictures.test_picture") == PICTURE
    asked = len(server.seen)  # type: ignore[attr-defined]
    for there, said in {
        "http:__169.254.169.254_latest": "is no public address",
        "http:__localhost_picture": "is no public address",
        "file:___etc_passwd": "has to begin with http",
    }.items():
        names["localhost"] = [["127.0.0.1"]]
        with pytest.raises(UserError, match=said):
            fetched(f"http://pictures.test/to/{there}")
    assert len(server.seen) == asked + 3  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="redirects more than 3 times"):
        fetched("http://pictures.test/to/_to__to__to__to_")


def test_a_name_that_changes_its_mind_leads_nowhere_else(names: Names) -> None:
    """`create_connection` of this test fails for anything but the address that was judged."""
    names["rebinds.test"] = [[PUBLIC], ["127.0.0.1"]]
    assert fetched("http://rebinds.test/picture") == PICTURE
    with pytest.raises(UserError, match="is no public address"):
        fetched("http://rebinds.test/picture")


def test_too_much_is_not_read(names: Names) -> None:
    assert len(fetched("http://pictures.test/picture", limit_bytes=len(PICTURE))) == len(PICTURE)
    for path in ("picture", "chunked"):
        with pytest.raises(UserError, match="has more than 10,239 bytes"):
            fetched(f"http://pictures.test/{path}", limit_bytes=len(PICTURE) - 1)


@pytest.mark.parametrize("path", ["slow", "slow-head"])
def test_a_server_that_drips_is_cut_off(names: Names, path: str) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=r"pictures\.test does not come within 0\.5 seconds"):
        fetched(f"http://pictures.test/{path}", timeout=0.5)
    assert time.monotonic() - began < 3


def test_a_name_that_is_not_resolved_in_time(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3))
    began = time.monotonic()
    with pytest.raises(UserError, match=r"does not come within 0\.2 seconds"):
        fetched("http://pictures.test/picture", timeout=0.2)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://pictures.test/picture", "has to begin with http"),
        ("/etc/passwd", "has to begin with http"),
        ("file:///etc/passwd", "has to begin with http"),
        ("http://", "has to begin with http"),
        ("http://user:secret@pictures.test/picture", "must not have a user name"),
        ("http://pictures.test:99999/picture", "is no URL"),
        ("http://[::1/picture", "is no URL"),
        ("http://" + "a" * 70 + ".test/picture", "is no URL"),
        ("http://pictures.test/none", "answers with status 404"),
        ("http://pictures.test/cut", "cannot be fetched"),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(names: Names, url: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        fetched(url)
    assert "secret" not in raised.value.message


def certificate(folder: Path) -> Path:
    """A key and its own certificate for `pictures.test`, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pictures.test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pictures.test")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8
    file.write_bytes(
        key.private_bytes(pem, private, serialization.NoEncryption()) + made.public_bytes(pem)
    )
    return file


def test_a_certificate_is_asked_for_by_name(
    names: Names,
    server: ThreadingHTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection goes to an IP address, and what is judged is the name that was given."""
    file = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    names["other.test"] = [[PUBLIC]]
    with pytest.raises(UserError, match="certificate verify failed"):
        fetched("https://pictures.test/picture")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    assert fetched("https://pictures.test/picture") == PICTURE
    with pytest.raises(UserError, match="certificate verify failed"):
        fetched("https://other.test/picture")
