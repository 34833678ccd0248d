# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS files: where they are looked for (qemu_conf.c), what they hold by openssl's word, and whether that works."""

from __future__ import annotations

import os
import subprocess
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_tls
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.rig import certificates
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost

AS_ROOT = 'user = "root"\ngroup = "root"\n'


@pytest.fixture(scope="module")
def authority() -> t.Iterator[certificates.Authority]:
    with certificates.authority() as made:
        yield made


@pytest.fixture
def host(tmp_path: Path) -> LibvirtHost:
    host = LibvirtHost(tmp_path)
    host.put("/proc/sys/kernel/hostname", "h1\n")
    return host


def look(host: LibvirtHost) -> dict[str, t.Any]:
    return _info_tls.facts(Context(host))


def use(host: LibvirtHost, name: str) -> dict[str, t.Any]:
    (found,) = [entry for entry in look(host)["uses"] if entry["name"] == name]
    return t.cast("dict[str, t.Any]", found)


def test_without_anything_the_general_directory_counts(host: LibvirtHost) -> None:
    found = use(host, "migrate")
    assert (found["directory"], found["configured"], found["exists"]) == ("/etc/pki/qemu", False, False)
    assert found["missing"] == ["ca-cert.pem", "server-cert.pem", "server-key.pem", "client-cert.pem", "client-key.pem"]
    assert len(use(host, "vnc")["missing"]) == 3
    assert look(host)["certificates"] == []


def test_a_directory_for_one_purpose_counts_if_it_exists(host: LibvirtHost) -> None:
    host.put("/etc/pki/libvirt-migrate/ca-cert.pem", "")
    assert use(host, "migrate")["directory"] == "/etc/pki/libvirt-migrate"
    assert use(host, "nbd")["directory"] == "/etc/pki/qemu"


def test_what_is_configured_counts_first(host: LibvirtHost) -> None:
    host.put("/etc/pki/libvirt-vnc/ca-cert.pem", "")
    host.put("/etc/libvirt/qemu.conf", 'vnc_tls_x509_cert_dir = "/srv/vnc"\ndefault_tls_x509_cert_dir = "/srv/all"\n')
    assert (use(host, "vnc")["directory"], use(host, "vnc")["configured"]) == ("/srv/vnc", True)
    assert use(host, "backup")["directory"] == "/srv/all"


def test_the_files_of_the_daemon(host: LibvirtHost) -> None:
    host.put("/etc/libvirt/libvirtd.conf", 'key_file = "/srv/key.pem"\n')
    host.put("/srv/key.pem", "")
    found = use(host, "daemon")
    assert (found["configured"], found["present"]) == (True, ["/srv/key.pem"])
    assert found["missing"] == ["cacert.pem", "servercert.pem"]


@pytest.mark.parametrize(
    ("key", "algorithm", "bits"),
    [("rsa:2048", "rsaEncryption", 2048), ("ec:prime256v1", "id-ecPublicKey", 256)],
)
def test_a_certificate(host: LibvirtHost, key: str, algorithm: str, bits: int, tmp_path: Path) -> None:
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


def test_what_is_no_certificate(host: LibvirtHost) -> None:
    host.put("/etc/pki/qemu/ca-cert.pem", "nonsense\n")
    (found,) = look(host)["certificates"]
    assert (found["expires"], found["days_left"], found["bits"], found["alternative_names"]) == (None, None, None, None)
    assert found["reason"]


def place(host: LibvirtHost, authority: certificates.Authority, server: str = "h1", *, client: bool = True) -> None:
    shown = authority.issue(server, ["server"])
    texts = {"ca-cert": authority.certificate, "server-cert": shown.certificate, "server-key": shown.key}
    if client:
        calling = authority.issue("h1", ["client"])
        texts.update({"client-cert": calling.certificate, "client-key": calling.key})
    for name, text in texts.items():
        host.put(f"/etc/pki/qemu/{name}.pem", text)


def problems(host: LibvirtHost) -> dict[str, list[str] | None]:
    return {entry["name"]: entry["problems"] for entry in look(host)["uses"]}


def test_a_set_that_works(host: LibvirtHost, authority: certificates.Authority) -> None:
    host.put("/etc/libvirt/qemu.conf", AS_ROOT)
    place(host, authority)
    assert problems(host) == {
        **{name: [] for name in ("migrate", "vnc", "spice", "chardev", "nbd", "backup")},
        "daemon": None,
    }


def test_a_server_alone(host: LibvirtHost, authority: certificates.Authority) -> None:
    """A viewer's name for the host is not known, so it is not asked for."""
    host.put("/etc/libvirt/qemu.conf", AS_ROOT)
    place(host, authority, "console.example", client=False)
    assert problems(host) == {
        **{name: [] for name in ("vnc", "spice", "backup")},
        **dict.fromkeys(("migrate", "chardev", "nbd", "daemon")),
    }


def test_the_name_for_migrations(host: LibvirtHost, authority: certificates.Authority) -> None:
    host.put("/etc/libvirt/qemu.conf", AS_ROOT)
    place(host, authority, "h2")
    assert problems(host)["migrate"] == ["server-cert.pem does not name h1."]
    assert problems(host)["chardev"] == []
    host.put("/etc/libvirt/qemu.conf", f'{AS_ROOT}migration_host = "h2"\n')
    assert problems(host)["migrate"] == []


def test_a_key_of_another_certificate(host: LibvirtHost, authority: certificates.Authority) -> None:
    host.put("/etc/libvirt/qemu.conf", AS_ROOT)
    place(host, authority)
    host.put("/etc/pki/qemu/client-key.pem", authority.issue("h1").key)
    assert problems(host)["migrate"] == ["client-key.pem is not the key of client-cert.pem."]
    assert problems(host)["vnc"] == [], "which has no client"


def test_what_qemu_may_not_read(host: LibvirtHost, authority: certificates.Authority) -> None:
    place(host, authority)
    os.chmod(host.root, 0o700)
    host.put("/etc/libvirt/qemu.conf", 'user = "libvirt-qemu"\ngroup = "kvm"\n')
    found = problems(host)["vnc"]
    assert found == [
        f"/etc/pki/qemu/{name}.pem cannot be read by QEMU, which runs as uid 64055."
        for name in ("ca-cert", "server-cert", "server-key")
    ]


def test_the_files_of_the_daemon_are_proven_too(host: LibvirtHost, authority: certificates.Authority) -> None:
    pair = authority.issue("h1", ["server"])
    host.put("/etc/pki/CA/cacert.pem", authority.certificate)
    host.put("/etc/pki/libvirt/servercert.pem", pair.certificate)
    host.put("/etc/pki/libvirt/private/serverkey.pem", pair.key)
    assert problems(host)["daemon"] == []
    host.put("/etc/pki/libvirt/private/serverkey.pem", authority.issue("h1").key)
    assert problems(host)["daemon"] == ["serverkey.pem is not the key of servercert.pem."]


def test_the_first_of_several_to_end_counts(host: LibvirtHost, authority: certificates.Authority) -> None:
    near, far = (authority.issue("h1", days=days).certificate for days in (20, 300))
    host.put("/etc/pki/qemu/ca-cert.pem", far + near)
    (found,) = look(host)["certificates"]
    assert found["days_left"] in (19, 20)
    assert found["names"] == ["h1"]
    host.put("/etc/pki/qemu/ca-cert.pem", near + far)
    assert look(host)["certificates"][0]["digest"] == found["digest"]


def test_no_key_is_ever_read(host: LibvirtHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("server-key.pem", "client-key.pem"):
        host.put(f"/etc/pki/qemu/{name}", "-----BEGIN PRIVATE KEY-----\n")
    monkeypatch.setattr(host, "read", lambda path, limit=0: pytest.fail(path) if "key" in path else b"")
    assert look(host)["certificates"] == []
