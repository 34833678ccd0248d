# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Host below a tree of fixtures with a played kernel that runs AppArmor, and a played compiler of its policy.

The compiler refuses a file that includes what is not there, and a rule with permissions that do not exist. The real one
is met in tests/integration/test_mac_vm.py.
"""

from __future__ import annotations

import hashlib
import re
import typing as t
from pathlib import Path

from ansible_collections.hypervisor.hardening.plugins.module_utils._aatext import STDIN
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost

ETC = "/etc/apparmor.d"
PROFILES = "/sys/kernel/security/apparmor/profiles"
POLICY = "/sys/kernel/security/apparmor/policy/profiles"
HELPER = f"{ETC}/usr.lib.libvirt.virt-aa-helper"
HELPER_LOCAL = f"{ETC}/local/usr.lib.libvirt.virt-aa-helper"
# What the releases' profiles are like, as far as includes go: libvirt 11.3 and 9.0 of Debian.
TEMPLATE = "#include <tunables/global>\n\nprofile LIBVIRT_TEMPLATE {\n  #include <abstractions/libvirt-qemu>\n}\n"
NEW = """\
  /dev/kvm rw,
  include if exists <abstractions/libvirt-qemu.d>
  include if exists <local/abstractions/libvirt-qemu>
"""
OLD = "  /dev/kvm rw,\n  #include <local/abstractions/libvirt-qemu>\n"
HELPER_TEXT = """\
#include <tunables/global>

profile virt-aa-helper /usr/lib/libvirt/virt-aa-helper {
  /var/lib/libvirt/images/** r,
  /**.img r,
  include if exists <local/usr.lib.libvirt.virt-aa-helper>
}
"""
_INCLUDE_RE = re.compile(r"^\s*#?include (if exists )?<([^>]+)>$", re.MULTILINE)


class ArmorHost(LibvirtHost):
    """``broken``: from now on, loading fails. Its virt-aa-helper is one that deletes the profiles of guests."""

    def __init__(self, root: Path, abstraction: str = NEW) -> None:
        super().__init__(root)
        self.broken = False
        self.put("/sys/module/apparmor/parameters/enabled", "Y\n")
        self.put(PROFILES, "libvirtd (enforce)\nvirt-aa-helper (enforce)\n/usr/bin/man (enforce)\n")
        self.put(f"{ETC}/tunables/global", "")
        self.put(f"{ETC}/libvirt/TEMPLATE.qemu", TEMPLATE)
        self.put(f"{ETC}/abstractions/libvirt-qemu", abstraction)
        if abstraction == OLD:
            self.put(f"{ETC}/local/abstractions/libvirt-qemu", "# Site\n  /srv/site r,")
        self.put(
            HELPER,
            HELPER_TEXT,
        )
        self.load(HELPER, "virt-aa-helper")
        self.put("/usr/lib/libvirt/virt-aa-helper", "\x7fELF  #include <libvirt/%s.files>\n")

    def define(self, name: str, uuid: str) -> None:
        self.put(f"/etc/libvirt/qemu/{name}.xml", f"<domain><name>{name}</name><uuid>{uuid}</uuid></domain>")

    def load(self, path: str, name: str) -> None:
        """The kernel's view after a profile was loaded."""
        digest = hashlib.sha256(self._whole(self.text(path)).encode()).hexdigest()
        self.put(f"{POLICY}/{name}.7/raw_sha256", f"{digest}\n")

    def run(self, argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        if argv[0] != "apparmor_parser":
            return super().run(argv, stdin=stdin, timeout=timeout)
        self.calls.append(" ".join(argv))
        path = "" if argv[-1] == STDIN else argv[-1]
        try:
            text = self._whole(self.text(path) if path else stdin.decode())
        except FileNotFoundError as error:
            return Completed(tuple(argv), 1, "", f"AppArmor parser error: Could not open {error.filename}\n")
        if " rwq," in text:
            return Completed(tuple(argv), 1, "", self._refusal(stdin.decode()))
        if "--replace" in argv:
            if self.broken:
                return Completed(tuple(argv), 1, "", "Unable to replace.  Permission denied\n")
            self.load(path, "virt-aa-helper")
        return Completed(tuple(argv), 0, text if "--stdout" in argv else "", "")

    def _refusal(self, given: str) -> str:
        """What the compiler says, in the words of 3.0.8: of what it was given, or of a file that this includes."""
        for directory in ("abstractions/libvirt-qemu.d", "local/abstractions", "local", "."):
            for name in self.list(f"{ETC}/{directory}"):
                here = f"{ETC}/{directory}/{name}"
                if Path(self.path(here)).is_file() and " rwq," in self.text(here):
                    return _syntax_error(here, 1)
        number = next(number for number, line in enumerate(given.splitlines(), 1) if line.endswith(" rwq,"))
        return _syntax_error(STDIN, number)

    def _whole(self, text: str) -> str:
        def put(match: re.Match[str]) -> str:
            path = f"{ETC}/{match[2]}"
            if match[1] and not self.exists(path):
                return ""
            is_directory = Path(self.path(path)).is_dir()
            texts = [self.text(f"{path}/{name}") for name in self.list(path)] if is_directory else [self.text(path)]
            return "".join(self._whole(one) for one in texts)

        return _INCLUDE_RE.sub(put, text)


def _syntax_error(file: str, line: int) -> str:
    where = f"for {STDIN} in profile {file} at line {line}"
    return f"AppArmor parser error {where}: syntax error, unexpected TOK_ID, expecting TOK_MODE\n"
