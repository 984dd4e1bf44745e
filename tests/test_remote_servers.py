"""Lists of URLs of many web servers: one that is gone costs its rows, and not the run."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import store_servers
from store_servers import Files, Served

import layerprobe
from layerprobe.errors import SampleError, UnavailableError
from layerprobe.records import Sample
from layerprobe.sources.opening import open_source
from layerprobe.stores import attempts

pytestmark = pytest.mark.usefixtures("impatient")

Command = Callable[..., Any]
Images = dict[str, bytes]
NOWHERE = "http://nowhere.invalid/a.png"


@pytest.fixture
def gone() -> str:
    """A web server that refuses connections."""
    with store_servers.web({}) as served:
        return served.url


@pytest.fixture(scope="module")
def untrusted(tmp_path_factory: pytest.TempPathFactory, images: Images) -> Iterator[Served]:
    """A web server with a certificate that nobody signed."""
    pem = tmp_path_factory.mktemp("tls") / "server.pem"
    pem.write_bytes(self_signed())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    served = Served(Files(dict(images)), ssl_context=context)
    yield served
    served.close()


def self_signed() -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    built = built.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    return built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, form, plain
    )


def listed(tmp_path: Path, *urls: str) -> list[Sample]:
    """The samples of a list."""
    (tmp_path / "urls").write_text("\n".join(urls))
    return list(open_source([], lists=[str(tmp_path / "urls")]))


@pytest.mark.parametrize("workers", ["1", "16"])
def test_a_server_that_is_gone_costs_its_rows_and_not_the_run(
    command: Command, tmp_path: Path, samples: Path, images: Images, gone: str, workers: str
) -> None:
    with store_servers.web(dict(images)) as served:
        urls = [f"{gone}/a.png", f"{gone}/b.png", *(f"{served.url}/{name}" for name in images), NOWHERE]
        (tmp_path / "urls").write_text("\n".join(urls))
        line = ("extract", samples / "vgg_shapes.h5", "-l", "predictions", "--workers", workers)
        ended = command(*line, "--from-file", tmp_path / "urls", "-o", tmp_path / "out.npz")
    assert ended.code == 3, ended.err
    with layerprobe.open(tmp_path / "out.npz") as found:
        failed = [row for row, status in enumerate(found.status) if status == "failed"]
        assert failed == [0, 1, len(urls) - 1]
        assert all(found.error[row].startswith("the store does not answer") for row in failed)


def test_what_was_given_up_is_asked_once_a_row_until_it_answers(
    tmp_path: Path, images: Images, gone: str
) -> None:
    with store_servers.web(dict(images)) as served:
        first, *others, last = listed(
            tmp_path, *(f"{gone}/{number}.png" for number in range(4)), f"{served.url}/star_09.png"
        )
        with pytest.raises(SampleError, match=f"tried {attempts.TRIES} times"):
            first.read()
        attempts.repeated_requests()
        for sample in others:
            with pytest.raises(SampleError, match=r"does not answer (?!.*tried)"):
                sample.read()
        assert attempts.repeated_requests() == []
        assert last.read() == images["star_09.png"]


def test_when_no_server_answers_any_more_the_run_ends(tmp_path: Path, images: Images, gone: str) -> None:
    with store_servers.web(dict(images)) as served:
        name = next(iter(images))
        rows = listed(tmp_path, f"{served.url}/{name}", f"{gone}/a.png", f"{served.url}/{name}")
        rows[0].read()
        with pytest.raises(SampleError):
            rows[1].read()
    for row in rows:
        with pytest.raises(UnavailableError, match="does not answer"):
            row.read()


def test_a_certificate_that_is_not_accepted_is_not_tried_again(
    tmp_path: Path, images: Images, untrusted: Served
) -> None:
    (alone,) = listed(tmp_path, f"{untrusted.url}/star_09.png")
    with pytest.raises(UnavailableError, match=r"certificate is not accepted \(self-signed certificate\)"):
        alone.read()
    with store_servers.web(dict(images)) as served:
        bad, good = listed(tmp_path, f"{untrusted.url}/star_09.png", f"{served.url}/star_09.png")
        with pytest.raises(SampleError, match="certificate is not accepted"):
            bad.read()
        assert good.read() == images["star_09.png"]
    (good, *_) = listed(tmp_path, f"{served.url}/star_09.png")
    with pytest.raises(UnavailableError):
        good.read()  # one whose certificate is not accepted is no sign of a network
    assert not [told for told in attempts.repeated_requests() if "certificate" in told]
