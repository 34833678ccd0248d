# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of certificates, against what openssl prints of the same."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _x509

NAMES = "subjectAltName=DNS:h1.example,IP:192.0.2.7,IP:2001:db8::7,email:root@h1.example,DNS:*.h1.example"


def openssl(*words: str) -> str:
    return subprocess.run(["openssl", *words], check=True, capture_output=True, text=True).stdout


def made(tmp_path: Path, key: str, *words: str, days: int = 40) -> Path:
    path = tmp_path / "cert.pem"
    kind, _colon, what = key.partition(":")
    curve = ["-pkeyopt", f"ec_paramgen_curve:{what}"] if kind == "ec" else []
    given = ["-newkey", key if kind == "rsa" else kind, *curve]
    subject = "/O=Example/CN=h1.example/OU=after it"
    paths = ["-out", str(path), "-keyout", str(tmp_path / "key.pem")]
    openssl("req", "-x509", "-nodes", *given, "-days", str(days), "-subj", subject, *paths, *words)
    return path


def seconds(path: Path, which: str) -> int:
    text = openssl("x509", "-noout", f"-{which}", "-in", str(path)).strip().partition("=")[2]
    return int(subprocess.run(["date", "-d", text, "+%s"], check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("key", ["rsa:2048", "rsa:3071", "ec:prime256v1", "ec:secp384r1", "ec:secp521r1", "ed25519"])
def test_as_openssl_reads_it(tmp_path: Path, key: str) -> None:
    path = made(tmp_path, key, "-addext", NAMES)
    (found,) = _x509.read(path.read_bytes())
    text = openssl("x509", "-noout", "-text", "-in", str(path))
    bits = re.search(r"Public-Key: \((\d+) bit\)", text)
    assert found.algorithm == re.findall(r"Public Key Algorithm: (\S+)", text)[0]
    assert found.bits == (int(bits[1]) if bits else None)
    assert (found.begins, found.ends) == (seconds(path, "startdate"), seconds(path, "enddate"))
    printed = openssl("x509", "-noout", "-fingerprint", "-sha256", "-in", str(path)).partition("=")[2]
    assert found.sha256 == printed.strip().replace(":", "").lower()
    assert found.names == ("h1.example", "192.0.2.7", "2001:db8::7", "*.h1.example")
    assert found.subject == "h1.example"


def test_years_beyond_2049(tmp_path: Path) -> None:
    """From 2050 on the year has four digits (RFC 5280, 4.1.2.5)."""
    path = made(tmp_path, "ed25519", days=20_000)
    (found,) = _x509.read(path.read_bytes())
    assert found.ends == seconds(path, "enddate") > 2_524_608_000  # 2050-01-01


def test_without_extensions(tmp_path: Path) -> None:
    """As openssl before 3.2 makes it: of version 1, which has neither a version's number nor extensions."""
    made(tmp_path, "ed25519")
    request, path = tmp_path / "request.pem", tmp_path / "old.pem"
    openssl("req", "-new", "-key", str(tmp_path / "key.pem"), "-subj", "/O=nobody", "-out", str(request))
    openssl("x509", "-req", "-in", str(request), "-signkey", str(tmp_path / "key.pem"), "-out", str(path))
    (found,) = _x509.read(path.read_bytes())
    assert (found.subject, found.names) == ("", ())


def test_several_in_one_file(tmp_path: Path) -> None:
    one, other = (made(tmp_path, "ed25519").read_bytes() for _time in range(2))
    found = _x509.read(b"a comment\n" + one + b"\n" + other.replace(b"\n", b"\r\n"))
    assert _x509.digest(found) == _x509.digest(found[::-1])
    assert _x509.digest(found) not in {entry.sha256 for entry in found}
    assert _x509.digest(found[:1]) == found[0].sha256
    assert [entry.sha256 for entry in found] == [_x509.read(part)[0].sha256 for part in (one, other)]


@pytest.mark.parametrize("key", ["rsa:2048", "ec:prime256v1", "ed25519"])
def test_keys(tmp_path: Path, key: str) -> None:
    path = made(tmp_path, key)
    plain = (tmp_path / "key.pem").read_bytes()
    assert _x509.holds_key(plain) and not _x509.is_encrypted(plain)
    assert not _x509.holds_key(path.read_bytes())
    assert _x509.holds_key(path.read_bytes() + plain)
    # The form that OpenSSL 1 writes has to be asked for from 3 on.
    old_form = [] if openssl("version").startswith("OpenSSL 1.") else ["-traditional"]
    for words in (["pkcs8", "-topk8", "-v2", "aes256"], ["rsa", "-aes256", *old_form]):
        if words[0] == "rsa" and not key.startswith("rsa"):
            continue
        kept = tmp_path / "locked.pem"
        openssl(*words, "-in", str(tmp_path / "key.pem"), "-out", str(kept), "-passout", "pass:secret")
        assert _x509.holds_key(kept.read_bytes()) and _x509.is_encrypted(kept.read_bytes())


@pytest.mark.parametrize("data", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\n-----END RSA KEY-----\n"])
def test_no_certificate(data: bytes) -> None:
    with pytest.raises(_x509.CertificateError, match="no PEM certificate is in it"):
        _x509.read(data)


@pytest.mark.parametrize("body", ["", "!!!!", "MA==", "MIIB", "MAA=", "MAMCAQE=", "MIGAgICA"])
def test_broken_ones(body: str) -> None:
    with pytest.raises(_x509.CertificateError, match="broken"):
        _x509.read(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n".encode())


def test_no_cut_off_certificate_is_read_or_hangs(tmp_path: Path) -> None:
    text = made(tmp_path, "ec:prime256v1", "-addext", NAMES).read_text()
    lines = text.splitlines()
    for kept in range(1, len(lines) - 2):
        cut = "\n".join([lines[0], *lines[1:kept], lines[-1]]) + "\n"
        with pytest.raises(_x509.CertificateError):
            _x509.read(cut.encode())


def test_a_moment() -> None:
    assert _x509.moment(951_782_400) == "2000-02-29T00:00:00Z"
