# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of passed-through arguments is shown, and what they open."""

from __future__ import annotations

import json
import string
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.module_utils import _qemuargs
from ansible_collections.hypervisor.hardening.tests.unit.plugins.domains import SECRET

# The option, its value, what is shown of the value, whether it holds a password. The forms are those of QEMU's
# docs (qemu-options.hx, secrets.rst) and of block/{rbd,curl,ssh,iscsi}.c.
SHOWN = [
    ("-device", "vfio-pci,host=01:00.0,x-vga=on", "vfio-pci,host=01:00.0,x-vga=on", False),
    ("-cpu", "host,+vmx,-svm", "host,+vmx,-svm", False),
    ("-drive", "file=/dev/sdb,format=raw,if=none", "file=/dev/sdb,format=raw,if=none", False),
    ("-monitor", "tcp:0.0.0.0:4444,server,nowait", "tcp:0.0.0.0:4444,server,nowait", False),
    ("-m", "4096", "4096", False),
    ("-vnc", ":1,password=on", ":1,password=on", False),
    ("-vnc", f":1,password={SECRET}", ":1,password=(hidden)", True),
    ("-spice", f"port=5930,password={SECRET}", "port=5930,password=(hidden)", True),
    ("-spice", "port=5930,password-secret=s0", "port=5930,password-secret=(hidden)", False),
    ("-object", f"secret,id=s0,data={SECRET}", "secret,id=s0,data=(hidden)", True),
    ("-object", "secret,id=s0,file=/root/pw", "secret,id=s0,file=/root/pw", False),
    ("-drive", f"file=https://joe:{SECRET}@nas/a?t={SECRET}", "file=https://(hidden)@nas/(hidden)", True),
    ("-drive", f"file=iscsi://joe%{SECRET}@nas/iqn/0", "file=iscsi://(hidden)@nas/(hidden)", True),
    ("-drive", "file=nbd://nas/export", "file=nbd://nas/(hidden)", False),
    ("-drive", f"file=rbd:pool/image:id=admin:key={SECRET}", "file=(hidden)", True),
    ("-drive", f"file.driver=ssh,file.password={SECRET}", "file.driver=ssh,file.password=(hidden)", True),
    ("-iscsi", f"user=joe,password={SECRET}", "user=(hidden),password=(hidden)", True),
    ("-append", f"root=/dev/vda1 password={SECRET}", "(hidden)", True),
    ("-append", "quiet", "(hidden)", False),
    ("-fw_cfg", f"name=opt/io.x,string={SECRET}", "name=opt/io.x,string=(hidden)", False),
    ("-fw_cfg", "name=opt/pin,string=1234", "name=opt/pin,string=(hidden)", False),
    ("-smbios", f"type=11,value=io.systemd.credential:pw={SECRET}", "type=11,value=(hidden)", False),
    ("-device", f"isa-applesmc,osk={SECRET}", "isa-applesmc,osk=(hidden)", True),
    ("-global", f"isa-applesmc.osk={SECRET}", "isa-applesmc.osk=(hidden)", True),
    ("-nonsense", SECRET, "(hidden)", False),
    ("-nonsense", f"a,b,{SECRET}", "(hidden),(hidden),(hidden)", False),
    ("-drive", f"file=a,,{SECRET}", "file=(hidden)", False),
    ("-drive", f"file=/a,,password={SECRET}", "file=(hidden)", False),
    ("-bios", f"/a,,password={SECRET}", "(hidden)", False),
    ("-object", json.dumps({"qom-type": "secret", "id": "s", "data": SECRET}), '"data": "(hidden)"', True),
    ("-blockdev", json.dumps({"driver": "ssh", "password": SECRET}), '"password": "(hidden)"', True),
    ("-blockdev", json.dumps({"driver": "x", "auth": {"token": 4711}}), '"token": "(hidden)"', True),
    ("-drive", f'file=json:{{"file.password":"{SECRET}"}}', '"file.password": "(hidden)"', True),
    ("-blockdev", f"{{broken {SECRET}", "(hidden)", False),
    ("-blockdev", "{" * 5000 + SECRET, "(hidden)", False),
]


@pytest.mark.parametrize(("option", "value", "shown", "secret"), SHOWN)
def test_shown(option: str, value: str, shown: str, secret: bool) -> None:
    first, argument = _qemuargs.arguments([option, value])
    assert first.shown == option
    assert (shown in argument.shown) if shown.startswith('"') else argument.shown == shown
    assert argument.secret is secret
    assert SECRET not in argument.shown


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["-drive", "file=/dev/sdb"], ("/dev/sdb",)),
        (["-serial", "mon:unix:/tmp/x,server"], ("/tmp/x",)),
        (["-serial", "file:/tmp/log"], ("/tmp/log",)),
        (["-drive", "file=file:///srv/a"], ("/srv/a",)),
        (["-bios", "/opt/bios.bin"], ("/opt/bios.bin",)),
        (["-blockdev", '{"file":{"driver":"file","filename":"/srv/b"}}'], ("/srv/b",)),
        (["-object", "memory-backend-file,id=m,mem-path=/dev/shm/a,share=on"], ("/dev/shm/a",)),
        (["-append", "root=/dev/vda1"], ()),
        (["-device", "vfio-pci,host=01:00.0"], ()),
        (["-drive", "file=/srv/a,,b"], ("/srv/a,b",)),
    ],
)
def test_paths(words: list[str], paths: tuple[str, ...]) -> None:
    assert _qemuargs.arguments(words)[-1].paths == paths


@pytest.mark.parametrize(
    ("words", "network", "display"),
    [
        (["-s"], True, False),
        (["-gdb", "tcp::1234"], True, False),
        (["-qmp", "tcp:localhost:4444,server=on"], True, False),
        (["-monitor", "telnet:0.0.0.0:23,server"], True, False),
        (["-monitor", "unix:/run/m,server"], False, False),
        (["-chardev", "socket,id=c,host=::,port=99"], True, False),
        (["-chardev", "socket,id=c,path=/run/c"], False, False),
        (["-chardev", "udp,id=c,port=99"], True, False),
        (["-netdev", "user,id=n,hostfwd=tcp::22-:22"], False, False),
        (["-vnc", ":1"], False, True),
        (["-vnc", "0.0.0.0:1"], False, True),
        (["-vnc", "127.0.0.1:1"], False, False),
        (["-vnc", "unix:/run/v"], False, False),
        (["-vnc", "none"], False, False),
    ],
)
def test_open_to_others(words: list[str], network: bool, display: bool) -> None:
    last = _qemuargs.arguments(words)[-1]
    assert (last.network, last.display) == (network, display)


@pytest.mark.parametrize(
    ("value", "device"),
    [
        ("vfio-pci,host=01:00.0", "pci 0000:01:00.0"),
        ("vfio-pci,id=a,host=000A:01:00.1", "pci 000a:01:00.1"),
        ('{"driver":"vfio-pci","host":"0000:02:00.0"}', "pci 0000:02:00.0"),
        ("usb-host,hostbus=1,hostaddr=4", "usb bus 1 device 4"),
        ("usb-host,vendorid=0x0951,productid=0x1666", "usb 0x0951:0x1666"),
        ("vfio-pci,host=../../x", ""),
        ("virtio-net-pci,netdev=n", ""),
    ],
)
def test_host_devices(value: str, device: str) -> None:
    assert _qemuargs.arguments(["-device", value])[-1].device == device


SIGNS = string.ascii_letters + string.digits + "=,:/@?&%{}[]\"' -_."


@given(st.text(SIGNS, max_size=20), st.text(SIGNS, max_size=20))
def test_a_password_is_never_shown(before: str, after: str) -> None:
    """Whatever stands around it, as long as it is the value of a key that means a secret."""
    word = "Xq9-never_shown"
    for option in ("-vnc", "-drive", "-nonsense", "-blockdev"):
        for argument in _qemuargs.arguments([option, f"{before},password={word},{after}"]):
            assert word not in argument.shown


@given(st.lists(st.text(max_size=40), max_size=6))
def test_any_arguments(values: list[str]) -> None:
    found: t.Sequence[_qemuargs.Argument] = _qemuargs.arguments(values)
    assert len(found) == len(values)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [("DB_PASSWORD", "x", True), ("API_KEY", "x", True), ("TOKEN", "", False), ("KEYMAP", "de", False)],
)
def test_environment(name: str, value: str, secret: bool) -> None:
    assert _qemuargs.secret_variable(name, value) is secret
