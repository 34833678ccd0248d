# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Headers of qcow2 images, made up as QEMU's docs/interop/qcow2.rst describes them; qemu-img's own are in
tests/integration."""

from __future__ import annotations

import struct
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _qcow2
from ansible_collections.hypervisor.hardening.plugins.module_utils._imagechain import Images
from ansible_collections.hypervisor.hardening.plugins.module_utils._reader import Reader
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost


def image(*, backing: str = "", size: int = 1 << 40, data_file: str | None = None, version: int = 3) -> bytes:
    extensions = b""
    for kind, value in ((0xE2792ACA, b"qcow2"), (0x44415441, (data_file or "").encode())):
        extensions += struct.pack(">II", kind, len(value)) + value.ljust((len(value) + 7) // 8 * 8, b"\0")
    extensions += struct.pack(">II", 0, 0)
    name = backing.encode()
    offset = 104 + len(extensions) if name else 0
    head = b"QFI\xfb" + struct.pack(">IQIIQ", version, offset, len(name), 16, size)
    head = head.ljust(72, b"\0")
    if version == 3:
        head += struct.pack(">QQQII", 0 if data_file is None else 4, 0, 0, 4, 104)
    return head.ljust(104, b"\0") + extensions + name


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    return TreeHost(tmp_path)


def put(host: TreeHost, path: str, data: bytes) -> None:
    host.put(path)
    Path(host.path(path)).write_bytes(data)


def layers(host: TreeHost, *paths: str, remote: str = "/net") -> tuple[list[dict[str, t.Any]], Images]:
    images = Images(Reader(host), lambda path: path.startswith(remote))
    return images.layers(paths, ["/pool"]), images


@pytest.mark.parametrize("version", [2, 3])
def test_an_image_that_stands_alone(host: TreeHost, version: int) -> None:
    put(host, "/pool/a", image(version=version))
    assert _qcow2.header(host, "/pool/a") == _qcow2.Header(1 << 40, "", "")
    assert layers(host, "/pool/a")[0] == []


def test_a_raw_image_has_no_header(host: TreeHost) -> None:
    put(host, "/pool/a", bytes(512))
    assert _qcow2.header(host, "/pool/a") is None
    assert layers(host, "/pool/a")[1].promised("/pool/a") == 512


def test_a_chain_is_followed_to_its_end(host: TreeHost) -> None:
    put(host, "/pool/c", image(backing="b"))
    put(host, "/pool/b", image(backing="../srv/a", version=2))
    put(host, "/srv/a", image(data_file="/dev/sda"))
    found, _images = layers(host, "/pool/c")
    assert [(one["name"], one["kind"], one["source"], one["directory"], one["in_pool"]) for one in found] == [
        ("/pool/c", "backing", "/pool/b", "/pool", True),
        ("/pool/b", "backing", "/srv/a", "/srv", False),
        ("/srv/a", "data", "/dev/sda", "/dev", False),
    ]


def test_an_image_below_itself_ends(host: TreeHost) -> None:
    put(host, "/pool/a", image(backing="/pool/b"))
    put(host, "/pool/b", image(backing="/pool/a"))
    assert len(layers(host, "/pool/a")[0]) == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nbd://10.0.0.1/x", ("nbd://10.0.0.1/x", True)),
        ('json:{"driver": "https", "url": "https://h/x"}', None),
        ('json:{"file": {"driver": "file", "filename": "/etc/shadow"}}', ("/etc/shadow", False)),
        ('json:{"driver": "qcow2", "file.filename": "/srv/x"}', ("/srv/x", False)),
        ("json:{", ("json:{", True)),
        ("file:/srv/x", ("/srv/x", False)),
        ("/a/../b", ("/b", False)),
        ("x/y", ("/pool/x/y", False)),
    ],
)
def test_what_a_name_leads_to(name: str, expected: tuple[str, bool] | None) -> None:
    assert _qcow2.target(name, "/pool/a") == (expected or (name, True))


def test_what_cannot_be_read_is_told(host: TreeHost) -> None:
    put(host, "/pool/cut", image()[:50])
    put(host, "/pool/long", image(backing="x" * 2000))
    found, images = layers(host, "/pool/cut", "/pool/long", "/net/a", "/pool/gone")
    assert found == []
    assert images.unknown == {"/pool/cut", "/pool/long", "/net/a"}
    assert {entry["path"] for entry in images.reader.unread} == {"/pool/cut", "/pool/long"}
