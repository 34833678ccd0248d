# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""polkit's rules on libvirt."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _polkit
from ansible_collections.hypervisor.hardening.plugins.module_utils._reader import Reader
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

# As libvirt ships it (src/remote/libvirtd.rules).
SHIPPED = """\
// Allow any user in the 'libvirt' group to connect to system libvirtd
// without entering a password.

polkit.addRule(function(action, subject) {
    if (action.id == "org.libvirt.unix.manage" &&
        subject.isInGroup("libvirt")) {
        return polkit.Result.YES;
    }
});
"""
# libvirt docs/aclpolkit.rst, "Writing access control policies": a rule with a look at the object.
DOCUMENTED = """\
polkit.addRule(function(action, subject) {
    if (action.id == "org.libvirt.api.domain.getattr" &&
        subject.user == "berrange") {
          if (action.lookup("connect_driver") == 'QEMU' &&
              action.lookup("domain_name") == 'demo') {
            return polkit.Result.YES;
          } else {
            return polkit.Result.NO;
          }
    }
});
"""
BLANKET = """\
polkit.addRule(function(action, subject) {
    if (action.id == "org.libvirt.unix.manage") {
        return polkit.Result.YES;
    }
});
"""


def rule(condition: str, result: str = "polkit.Result.YES") -> str:
    return f"polkit.addRule(function(action, subject) {{ if ({condition}) {{ return {result}; }} }});\n"


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    return TreeHost(tmp_path)


def rules(host: TreeHost) -> list[dict[str, t.Any]]:
    found: list[dict[str, t.Any]] = _polkit.facts(Reader(host))["rules"]
    return found


@pytest.mark.parametrize(
    ("text", "verdict", "to"),
    [
        (SHIPPED, "scoped", ["group libvirt"]),
        (DOCUMENTED, "scoped", ["user berrange"]),
        (BLANKET, "blanket", []),
        (rule('action.id.indexOf("org.libvirt.") == 0'), "blanket", []),
        ("polkit.addRule(function(a, s) { return 'yes'; }); // for all", "blanket", []),
        (rule('action.id == "org.libvirt.unix.manage" && subject.local'), None, []),
        (rule('action.id == "org.libvirt.unix.manage" && !subject.isInGroup("guests")'), None, ["group guests"]),
        (rule('action.id == "org.libvirt.unix.manage" || subject.isInGroup("wheel")'), None, ["group wheel"]),
        (
            rule(
                '(action.id == "org.libvirt.unix.manage" || action.id == "org.libvirt.unix.monitor") '
                '&& (subject.isInGroup("a") || subject.user === "b")'
            ),
            "scoped",
            ["group a", "user b"],
        ),
    ],
)
def test_rules(host: TreeHost, text: str, verdict: str | None, to: list[str]) -> None:
    host.put("/etc/polkit-1/rules.d/10.rules", text)
    (found,) = rules(host)
    assert (found["name"], found["verdict"], found["to"]) == ("/etc/polkit-1/rules.d/10.rules", verdict, to)


@pytest.mark.parametrize(
    "text",
    [
        rule('action.id == "org.freedesktop.login1.reboot"'),
        rule('action.id == "org.libvirt.unix.manage"', "polkit.Result.AUTH_ADMIN"),
        "/* " + BLANKET + " */",
        "".join(f"// {line}\n" for line in BLANKET.splitlines()),
        'polkit.addAdminRule(function(action, subject) { return ["unix-group:sudo"]; });',
    ],
)
def test_rules_that_give_nothing_of_libvirt(host: TreeHost, text: str) -> None:
    host.put("/etc/polkit-1/rules.d/10.rules", text)
    assert rules(host) == []


def test_a_file_shadows_those_of_its_name(host: TreeHost) -> None:
    host.put("/usr/share/polkit-1/rules.d/60-libvirt.rules", BLANKET)
    host.put("/etc/polkit-1/rules.d/60-libvirt.rules", "")
    host.put("/usr/share/polkit-1/rules.d/70.rules", SHIPPED)
    assert [found["name"] for found in rules(host)] == ["/usr/share/polkit-1/rules.d/70.rules"]


@pytest.mark.parametrize(
    ("identity", "action", "result", "verdict"),
    [
        ("unix-group:libvirt", "org.libvirt.unix.manage", "ResultActive=yes", "scoped"),
        ("unix-user:*", "org.libvirt.unix.manage", "ResultAny=yes", "blanket"),
        ("unix-group:*", "org.libvirt.*", "ResultAny=yes", "blanket"),
        ("unix-user:*", "org.*", "ResultInactive=yes", "blanket"),
        ("unix-user:*", "org.libvirt.unix.manage", "ResultAny=auth_admin", None),
        ("unix-user:*", "org.freedesktop.*", "ResultAny=yes", None),
    ],
)
def test_local_authority(host: TreeHost, identity: str, action: str, result: str, verdict: str | None) -> None:
    # pklocalauthority(8)
    text = f"[Some name]\nIdentity={identity}\nAction={action}\n{result}\n"
    host.put("/etc/polkit-1/localauthority/50-local.d/libvirt.pkla", text)
    assert [found["verdict"] for found in rules(host)] == ([verdict] if verdict else [])


def test_the_defaults_of_the_policy(host: TreeHost) -> None:
    assert _polkit.facts(Reader(host))["manage"] == {"any": None, "inactive": None, "active": None}
    # as libvirt ships it, cut down
    host.put(
        _polkit.POLICY,
        '<policyconfig><action id="org.libvirt.unix.monitor"><defaults><allow_any>yes</allow_any></defaults></action>'
        '<action id="org.libvirt.unix.manage"><defaults>\n<allow_any>auth_admin_keep</allow_any>\n'
        "<allow_inactive>auth_admin</allow_inactive>\n<allow_active>yes</allow_active></defaults></action></policyconfig>",
    )
    assert _polkit.facts(Reader(host))["manage"] == {
        "any": "auth_admin_keep",
        "inactive": "auth_admin",
        "active": "yes",
    }
