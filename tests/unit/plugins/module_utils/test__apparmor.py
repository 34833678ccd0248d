# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of AppArmor's policy: how they are told apart, and which give guests too much (apparmor.d(5))."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.module_utils import _apparmor

# In the style of libvirt's abstraction for QEMU.
POLICY = """\
#include <tunables/global>
include if exists <local/abstractions/libvirt-qemu>
@{ROOTS}=/a /b
# a comment with /** rw, in it

profile LIBVIRT_TEMPLATE flags=(attach_disconnected) {
  capability dac_override,   # another, with a comma
  ptrace (readby, tracedby) peer=libvirtd,
  /{usr/,}bin/dash rmix,
  /run/udev/data/c16[6,7]* r, /dev/kvm rw,
  "/srv/with, comma/**"
    rw,
  profile passt {
    /usr/bin/passt r,
  }
}
"""


def test_rules_and_their_lines() -> None:
    assert [(rule.line, rule.text) for rule in _apparmor.rules(POLICY)] == [
        (1, "#include <tunables/global>"),
        (2, "include if exists <local/abstractions/libvirt-qemu>"),
        (3, "@{ROOTS}=/a /b"),
        (6, "profile LIBVIRT_TEMPLATE flags=(attach_disconnected)"),
        (7, "capability dac_override"),
        (8, "ptrace (readby, tracedby) peer=libvirtd"),
        (9, "/{usr/,}bin/dash rmix"),
        (10, "/run/udev/data/c16[6,7]* r"),
        (10, "/dev/kvm rw"),
        (11, '"/srv/with, comma/**" rw'),
        (13, "profile passt"),
        (14, "/usr/bin/passt r"),
    ]


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("/** rw", "it can write to all of /"),
        ("/** r", "it can read all of /"),
        ("owner /** rwk", "it can write to all of /"),
        ("audit allow owner rw /**", "it can write to all of /"),
        ("priority=5 /** w", "it can write to all of /"),
        ("file rw /**", "it can write to all of /"),
        ("file", "every file"),
        ("file rw", "every file"),
        ("allow all", "everything"),
        ("capability", "every capability"),
        ("capability sys_admin", "the capability sys_admin"),
        ("capability net_admin sys_rawio mac_admin", "the capability mac_admin, sys_rawio"),
        ("change_profile", "it can leave its profile"),
        ("change_profile -> unconfined", "it can leave its profile"),
        ("mount", "mount without a limit"),
        ("ptrace", "ptrace without a limit"),
        ("/ rw", "it can write to /"),
        ("/dev/** rw", "it can write to all of /dev/"),
        ("/dev/* rw", "it can write to all of /dev/"),
        ("/dev/{,**} r", "it can read all of /dev/"),
        ("/dev/mem r", "the memory of the host"),
        ("/dev/sd* rw", "every disk of the host"),
        ("/dev/nvme[0-9]*n* rw", "every disk of the host"),
        ("/dev/mapper/* r", "every disk of the host"),
        ("/var/lib/libvirt/images/** rwk", "it can write to all of /var/lib/libvirt/images/"),
        ("/var/lib/libvirt/images/* r", "it can read all of /var/lib/libvirt/images/"),
        ("/var/lib/libvirt/{images,qemu}/** r", "it can read all of /var/lib/libvirt/qemu/"),
        ("@{HOME}/** r", "it can read all of /home/"),
        ("@{HOMEDIRS}/** rw", "it can write to all of /home/"),
        ("@{PROC}/** rw", "it can write to all of /proc/"),
        ("/dev/hugepages/** rw", "it can write to all of /dev/hugepages/"),
        ("/tmp/** rwk", "it can write to all of /tmp/"),
        ("/**.img rw", "it can write to all of /"),
        ('"/etc/**" r', "it can read all of /etc/"),
        ("/usr/bin/helper ux", "a program that runs unconfined"),
        ("/usr/bin/helper rPUx", "a program that runs unconfined"),
        ("profile LIBVIRT_TEMPLATE flags=(attach_disconnected, complain)", "the profile is not enforced (complain)"),
    ],
)  # fmt: skip
def test_broad_rules(rule: str, reason: str) -> None:
    assert _apparmor.broad(rule) == reason


@pytest.mark.parametrize(
    "rule",
    [
        # of libvirt's own abstraction
        "capability dac_read_search",
        "capability ipc_lock",
        "network inet stream",
        "signal (receive) peer=/usr/sbin/libvirtd",
        "/dev/kvm rw",
        "/dev/snd/* rw",
        "@{PROC}/sys/kernel/cap_last_cap r",
        "owner @{PROC}/*/auxv r",
        "/sys/devices/**/usb[0-9]*/** r",
        "/usr/share/qemu/** rk",
        "/etc/pki/libvirt{,-spice,-vnc}/** r",
        "/{usr/,}bin/swtpm rmpix",
        "/usr/bin/passt Cx -> passt",
        "/{,var/}tmp/ r",
        "owner /{,var/}tmp/**/ r",
        "/ r",
        "owner /var/lib/libvirt/qemu/nvram/*_VARS.fd rwk",
        "include if exists <local/abstractions/libvirt-qemu>",
        "profile LIBVIRT_TEMPLATE flags=(attach_disconnected)",
        # narrow grants, and what takes away
        "/var/lib/libvirt/images/web.qcow2 rwk",
        "/data/images/** rwk",
        "/dev/sdb rw",
        "owner /tmp/memfd-* rw",
        "deny /** w",
        "audit deny /dev/** rw",
        "mount fstype=proc -> /proc/",
        "ptrace (read) peer=libvirtd",
        "",
    ],
)
def test_rules_that_are_narrow(rule: str) -> None:
    assert _apparmor.broad(rule) == ""


@pytest.mark.parametrize(
    ("rule", "denied"),
    [
        ("deny /dev/snd/* rw", True),
        ("audit deny /dev/snd/** rwk", True),
        ("deny /dev/snd/{,*} w", True),
        ("/dev/snd/* rw", False),
        ("deny /dev/snd/* r", False),
        ("deny /dev/snd/timer rw", False),
    ],
)
def test_whether_sound_is_denied(rule: str, denied: bool) -> None:
    assert _apparmor.denies_sound(rule) is denied


@given(st.text(alphabet='/*{}[](),# \n"@=axrwu\u00e9', max_size=200))
def test_no_text_is_too_strange(text: str) -> None:
    found = [(rule, _apparmor.broad(rule.text)) for rule in _apparmor.rules(text)]
    assert all(1 <= rule.line <= text.count("\n") + 1 and rule.text for rule, _reason in found)


@pytest.mark.parametrize(
    "text",
    [
        "/" + "{a,b}" * 40 + "/** rw,",
        "{," * 200_000,
        "@" + "\n" * 200_000,
        '"' * 200_000,
        "/{" + "," * 200_000 + "} rw,",
    ],
)
def test_hostile_policy_takes_no_time(text: str) -> None:
    begun = time.monotonic()
    for rule in _apparmor.rules(text):
        _apparmor.broad(rule.text)
    assert time.monotonic() - begun < 3
