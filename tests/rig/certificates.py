# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small certificate authority for tests and the demo: its key lies in a temporary directory, without a password.

It calls openssl on this machine, so that hosts need none.
"""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import tempfile
import time
import typing as t
from collections.abc import Sequence

PURPOSES = {"server": "serverAuth", "client": "clientAuth"}
_CONFIG = """\
[ca]
default_ca = authority
[authority]
database = {directory}/index
serial = {directory}/serial
new_certs_dir = {directory}
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
"""


class Pair(t.NamedTuple):
    """A certificate and its private key, as PEM."""

    certificate: str
    key: str


class Authority:
    """``certificate`` is what goes into ca-cert.pem."""

    def __init__(self, directory: pathlib.Path, name: str) -> None:
        self._directory = directory
        self._config = directory / "config"
        self._config.write_text(_CONFIG.format(directory=directory), encoding="utf-8")
        (directory / "index").touch()
        (directory / "serial").write_text("1000\n", encoding="utf-8")
        extensions = ["basicConstraints=critical,CA:true", "keyUsage=critical,keyCertSign,cRLSign"]
        self._key = self._new_key("ca")
        self.certificate = self._sign("ca", name, extensions, 0, 3650, "-selfsign").read_text(encoding="utf-8")

    def issue(
        self,
        name: str,
        purposes: Sequence[str] = ("server", "client"),
        *,
        names: Sequence[str] | None = None,
        begin: int = 0,
        days: int = 365,
        usage: str = "critical,digitalSignature,keyEncipherment",
    ) -> Pair:
        """A certificate on a host's name with a fresh key of an elliptic curve.

        :param names: the alternative names, ``DNS:h1`` or ``IP:192.0.2.1``; by default the name alone.
        :param begin: days from now (an hour before, for clocks that differ) until it is valid.
        :param days: days from now until its end; negative for one that has expired.
        """
        extensions = [
            "basicConstraints=critical,CA:false",
            f"keyUsage={usage}",
            f"extendedKeyUsage={','.join(PURPOSES[purpose] for purpose in purposes)}",
        ]
        alternative = [f"DNS:{name}"] if names is None else names
        if alternative:
            extensions.append(f"subjectAltName={','.join(alternative)}")
        key = self._new_key("host")
        first = min(begin, days - 1)
        certificate = self._sign("host", name, extensions, first, days, "-cert", str(self._directory / "ca.pem"))
        return Pair(certificate.read_text(encoding="utf-8"), key.read_text(encoding="utf-8"))

    def _new_key(self, stem: str) -> pathlib.Path:
        path = self._directory / f"{stem}.key"
        _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(path))
        return path

    def _sign(self, stem: str, name: str, extensions: list[str], begin: int, days: int, *words: str) -> pathlib.Path:
        request, config, path = (self._directory / f"{stem}.{suffix}" for suffix in ("csr", "ext", "pem"))
        key = self._directory / f"{stem}.key"
        _openssl("req", "-new", "-key", str(key), "-subj", f"/CN={name}", "-out", str(request))
        config.write_text("\n".join(extensions) + "\n", encoding="utf-8")
        _openssl(
            *("ca", "-batch", "-notext", "-config", str(self._config), "-keyfile", str(self._key)),
            *("-startdate", _moment(begin), "-enddate", _moment(days), "-extfile", str(config)),
            *("-in", str(request), "-out", str(path), *words),
        )
        return path


@contextlib.contextmanager
def authority(name: str = "test-ca") -> t.Iterator[Authority]:
    """An authority for the length of a ``with`` block."""
    with tempfile.TemporaryDirectory(prefix="rig-ca-") as directory:
        yield Authority(pathlib.Path(directory), name)


def _moment(days: int) -> str:
    seconds = time.time() + days * 86400 - (3600 if days <= 0 else 0)
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(seconds))


def _openssl(*words: str) -> None:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
