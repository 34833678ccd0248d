# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on files."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_files
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    """As the packages of Debian 13 leave it."""
    host = TreeHost(tmp_path)
    for directory in ("/etc", "/etc/libvirt", "/etc/libvirt/qemu", "/etc/libvirt/hooks", "/var", "/var/lib"):
        host.directory(directory, 0o755)
    host.put("/etc/libvirt/libvirtd.conf", mode=0o644)
    host.put("/etc/libvirt/qemu.conf", mode=0o600)
    host.directory("/etc/libvirt/secrets", 0o711)
    host.directory("/var/lib/libvirt/qemu", 0o750, (64055, 64055))
    return host


def facts(host: TreeHost) -> dict[str, t.Any]:
    return _info_files.facts(Context(host))


def paths(host: TreeHost, section: str) -> list[str]:
    return [found["path"] for found in facts(host)[section]["deviations"]]


CLASSES = (
    "configuration",
    "definitions",
    "secrets",
    "tls_keys",
    "ca_keys",
    "saved",
    "dumps",
    "nvram",
    "hooks",
    "polkit",
)


def test_packages_leave_no_deviation(host: TreeHost) -> None:
    found = facts(host)
    assert {name: found[name]["deviations"] for name in CLASSES} == {name: [] for name in CLASSES}
    assert found["configuration"]["checked"] == 4


@pytest.mark.parametrize(
    ("section", "path", "mode", "owner"),
    [
        ("configuration", "/etc/libvirt/virtqemud.conf", 0o646, (0, 0)),
        ("configuration", "/etc/libvirt/qemu.conf", 0o620, (0, 994)),
        ("configuration", "/etc/libvirt/nwfilter/x.xml", 0o600, (64055, 0)),
        ("configuration", "/etc/sasl2/libvirt.conf", 0o666, (0, 0)),
        ("configuration", "/etc/qemu/bridge.conf", 0o666, (0, 0)),
        ("definitions", "/etc/libvirt/qemu/a.xml", 0o644, (0, 0)),
        ("definitions", "/run/libvirt/qemu/a.xml", 0o640, (0, 100)),
        ("secrets", "/etc/libvirt/secrets/1.base64", 0o644, (0, 0)),
        ("secrets", "/etc/libvirt/auth.conf", 0o644, (0, 0)),
        ("secrets", "/etc/libvirt/passwd.db", 0o640, (0, 100)),
        ("tls_keys", "/etc/pki/libvirt/private/serverkey.pem", 0o640, (0, 994)),
        ("tls_keys", "/etc/pki/qemu/server-key.pem", 0o644, (0, 994)),
        ("tls_keys", "/etc/pki/libvirt-vnc/server-key.pem", 0o640, (0, 100)),
        ("ca_keys", "/etc/pki/CA/private/cakey.pem", 0o600, (0, 0)),
        ("ca_keys", "/etc/pki/qemu/ca-key.pem", 0o600, (0, 0)),
        ("saved", "/var/lib/libvirt/swtpm/1/tpm2/tpm2-00.permall", 0o644, (100, 100)),
        ("dumps", "/var/lib/systemd/coredump/core.qemu.zst", 0o644, (0, 0)),
        ("hooks", "/etc/libvirt/hooks/qemu", 0o775, (0, 100)),
        ("hooks", "/etc/libvirt/hooks/qemu.d/10", 0o755, (1001, 0)),
        ("polkit", "/etc/polkit-1/rules.d/10.rules", 0o666, (0, 0)),
    ],
)
def test_deviations(host: TreeHost, section: str, path: str, mode: int, owner: tuple[int, int]) -> None:
    host.put(path, mode=mode, owner=owner)
    assert paths(host, section) == [path]


@pytest.mark.parametrize(
    ("section", "path", "mode", "owner"),
    [
        ("definitions", "/etc/libvirt/qemu/a.xml", 0o600, (0, 0)),
        ("tls_keys", "/etc/pki/libvirt/private/serverkey.pem", 0o600, (0, 0)),
        ("tls_keys", "/etc/pki/qemu/server-key.pem", 0o640, (0, 994)),
        ("tls_keys", "/etc/pki/qemu/server-key.pem", 0o400, (64055, 64055)),
        ("saved", "/var/lib/libvirt/qemu/save/a.save", 0o644, (64055, 64055)),  # below a directory of 0750
        ("saved", "/var/lib/libvirt/swtpm/1/tpm2/tpm2-00.permall", 0o600, (100, 100)),
        ("dumps", "/var/lib/systemd/coredump/core.qemu.zst", 0o640, (0, 0)),
        ("nvram", "/var/lib/libvirt/qemu/nvram/a.fd", 0o600, (64055, 64055)),
    ],
)
def test_as_it_should_be(host: TreeHost, section: str, path: str, mode: int, owner: tuple[int, int]) -> None:
    host.put(path, mode=mode, owner=owner)
    found = facts(host)[section]
    assert (found["deviations"], found["checked"] > 0) == ([], True)


def test_reach_decides(host: TreeHost) -> None:
    host.directory("/var/lib/libvirt/qemu", 0o751, (64055, 64055))
    host.put("/var/lib/libvirt/qemu/save/a.save", mode=0o644, owner=(64055, 64055))
    host.put("/var/lib/libvirt/qemu/nvram/a.fd", mode=0o604, owner=(64055, 64055))
    assert paths(host, "saved") == ["/var/lib/libvirt/qemu/save/a.save"]
    assert paths(host, "nvram") == ["/var/lib/libvirt/qemu/nvram/a.fd"]


def test_places_that_qemu_conf_names(host: TreeHost) -> None:
    host.put(
        "/etc/libvirt/qemu.conf",
        'memory_backing_dir = "/dev/shm"\nauto_dump_path = "/srv/dumps"\nvnc_tls_x509_cert_dir = "/srv/tls"\n'
        'group = "users"\nvnc_password = "hunter2"\nbridge_helper = "/srv/helper"\n',
        mode=0o644,
    )
    host.directory("/dev/shm", 0o1777)
    host.put("/srv/dumps/a", mode=0o644)
    host.put("/srv/tls/server-key.pem", mode=0o640, owner=(0, 100))
    host.put("/srv/helper", mode=0o4755)
    found = facts(host)
    assert [found[name]["deviations_total"] for name in ("saved", "dumps", "tls_keys")] == [1, 1, 0]
    assert paths(host, "secrets") == ["/etc/libvirt/qemu.conf"]
    assert [helper["name"] for helper in found["bridge_helper"]["helpers"]] == ["/srv/helper"]
    assert "hunter2" not in str(found)


def test_keys_that_libvirtd_conf_names(host: TreeHost) -> None:
    host.put("/etc/libvirt/libvirtd.conf", 'key_file = "/srv/server.key"\n')
    host.put("/srv/server.key", mode=0o644)
    assert paths(host, "tls_keys") == ["/srv/server.key"]


def test_hooks_are_listed_by_digest(host: TreeHost) -> None:
    host.put("/etc/libvirt/hooks/qemu", "#!/bin/sh\n", mode=0o755)
    # printf '#!/bin/sh\n' | sha256sum
    digest = "a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf"
    assert facts(host)["hooks"]["files"] == [{"name": "/etc/libvirt/hooks/qemu", "sha256": digest, "executable": True}]


def test_device_nodes(host: TreeHost) -> None:
    host.put("/dev/kvm", mode=0o660, owner=(0, 994))
    host.put("/dev/vhost-net", mode=0o666)
    found = {node["name"]: node for node in facts(host)["devices"]}
    assert {key: found["/dev/kvm"][key] for key in ("present", "mode", "owner", "group", "others")} == {
        "present": True,
        "mode": "0660",
        "owner": "root",
        "group": "kvm",
        "others": False,
    }
    assert found["/dev/vhost-net"]["others"] is True
    assert (found["/dev/sev"]["present"], found["/dev/sev"]["others"]) == (False, None)


def test_a_host_without_libvirt(tmp_path: Path) -> None:
    found = facts(TreeHost(tmp_path))
    assert {name: found[name]["checked"] for name in CLASSES} == dict.fromkeys(CLASSES, 0)
