# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS files: where they are looked for (qemu_conf.c), and what a real openssl says of real certificates."""

from __future__ import annotations

import subprocess
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_tls
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost


class WithOpenssl(LibvirtHost):
    """openssl is this machine's."""

    def run(self, argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        assert argv[:4] == ["openssl", "x509", "-noout", "-text"]
        done = subprocess.run([*argv[:-1], self.path(argv[-1])], capture_output=True, text=True, check=False)
        return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)


@pytest.fixture
def host(tmp_path: Path) -> WithOpenssl:
    return WithOpenssl(tmp_path)


def look(host: LibvirtHost) -> dict[str, t.Any]:
    return _info_tls.facts(Context(host))


def use(host: LibvirtHost, name: str) -> dict[str, t.Any]:
    (found,) = [entry for entry in look(host)["uses"] if entry["name"] == name]
    return t.cast("dict[str, t.Any]", found)


def test_without_anything_the_general_directory_counts(host: WithOpenssl) -> None:
    found = use(host, "migrate")
    assert (found["directory"], found["configured"], found["exists"]) == ("/etc/pki/qemu", False, False)
    assert found["missing"] == ["ca-cert.pem", "server-cert.pem", "server-key.pem", "client-cert.pem", "client-key.pem"]
    assert len(use(host, "vnc")["missing"]) == 3
    assert look(host)["certificates"] == []


def test_a_directory_for_one_purpose_counts_if_it_exists(host: WithOpenssl) -> None:
    host.put("/etc/pki/libvirt-migrate/ca-cert.pem", "")
    assert use(host, "migrate")["directory"] == "/etc/pki/libvirt-migrate"
    assert use(host, "nbd")["directory"] == "/etc/pki/qemu"


def test_what_is_configured_counts_first(host: WithOpenssl) -> None:
    host.put("/etc/pki/libvirt-vnc/ca-cert.pem", "")
    host.put("/etc/libvirt/qemu.conf", 'vnc_tls_x509_cert_dir = "/srv/vnc"\ndefault_tls_x509_cert_dir = "/srv/all"\n')
    assert (use(host, "vnc")["directory"], use(host, "vnc")["configured"]) == ("/srv/vnc", True)
    assert use(host, "backup")["directory"] == "/srv/all"


def test_the_files_of_the_daemon(host: WithOpenssl) -> None:
    host.put("/etc/libvirt/libvirtd.conf", 'key_file = "/srv/key.pem"\n')
    host.put("/srv/key.pem", "")
    found = use(host, "daemon")
    assert (found["configured"], found["present"]) == (True, ["/srv/key.pem"])
    assert found["missing"] == ["cacert.pem", "servercert.pem"]


@pytest.mark.parametrize(
    ("key", "algorithm", "bits"),
    [("rsa:2048", "rsaEncryption", 2048), ("ec:prime256v1", "id-ecPublicKey", 256)],
)
def test_a_certificate(host: WithOpenssl, key: str, algorithm: str, bits: int, tmp_path: Path) -> None:
    path = Path(host.path("/etc/pki/qemu/server-cert.pem"))
    path.parent.mkdir(parents=True)
    kind, _colon, what = key.partition(":")
    words = ["-newkey", key] if kind == "rsa" else ["-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{what}"]
    subprocess.run(
        [
            *["openssl", "req", "-x509", "-nodes", *words, "-days", "40", "-subj", "/CN=h", "-out", str(path)],
            *["-keyout", str(tmp_path / "key.pem"), "-addext", "subjectAltName=DNS:h.example"],
        ],
        check=True,
        capture_output=True,
    )
    (found,) = look(host)["certificates"]
    assert (found["name"], found["algorithm"], found["bits"]) == ("/etc/pki/qemu/server-cert.pem", algorithm, bits)
    assert (found["alternative_names"], found["days_left"], found["reason"]) == (True, 39, "")
    end = printed("openssl", "x509", "-noout", "-enddate", "-in", str(path)).partition("=")[2]
    assert found["expires"] == int(printed("date", "-d", end, "+%s"))


def printed(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_what_is_no_certificate(host: WithOpenssl) -> None:
    host.put("/etc/pki/qemu/ca-cert.pem", "nonsense\n")
    (found,) = look(host)["certificates"]
    assert (found["expires"], found["days_left"], found["bits"], found["alternative_names"]) == (None, None, None, None)
    assert found["reason"]


def test_no_key_is_ever_read(host: WithOpenssl, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("server-key.pem", "client-key.pem"):
        host.put(f"/etc/pki/qemu/{name}", "-----BEGIN PRIVATE KEY-----\n")
    monkeypatch.setattr(host, "read", lambda path, limit=0: pytest.fail(path) if "key" in path else b"")
    assert look(host)["certificates"] == []
