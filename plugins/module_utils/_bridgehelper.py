# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's helper that joins guests of ordinary users to bridges, and whom its list lets (qemu-bridge-helper.c)."""

from __future__ import annotations

import stat
import typing as t

from ._permissions import described
from ._reader import Reader

_LISTS = ("/etc/qemu/bridge.conf", "/etc/qemu-kvm/bridge.conf")
_HELPERS = (
    *("/usr/lib/qemu/qemu-bridge-helper", "/usr/libexec/qemu-bridge-helper", "/usr/lib/qemu-bridge-helper"),
    "/usr/lib64/qemu/qemu-bridge-helper",
)
_DEPTH = 5


def facts(reader: Reader, configured: t.Any) -> dict[str, t.Any]:
    """The helpers that are installed, and the rules that they go by.

    :param configured: ``bridge_helper`` of qemu.conf.
    """
    more = [configured] if isinstance(configured, str) and configured.startswith("/") else []
    helpers = [found for path in sorted({*_HELPERS, *more}) if (found := _helper(reader, path))]
    rules = [rule for path in _LISTS for rule in _rules(reader, path, _DEPTH)]
    return {
        "helpers": helpers,
        "rules": rules,
        "allow_all": any(rule["action"] == "allow" and rule["bridge"] == "all" for rule in rules),
    }


def _helper(reader: Reader, path: str) -> dict[str, t.Any] | None:
    status = reader.host.stat_optional(path)
    if status is None:
        return None
    try:
        capabilities: bool | None = "security.capability" in reader.host.attributes(path)
    except OSError:
        capabilities = None
    found = described(reader, path, status, "")
    setuid = bool(status.st_mode & stat.S_ISUID)
    return {
        "name": path,
        "mode": found["mode"],
        "owner": found["owner"],
        "group": found["group"],
        "setuid": setuid,
        "capabilities": capabilities,
        "privileged": (setuid and status.st_uid == 0) or capabilities,
    }


def _rules(reader: Reader, path: str, depth: int) -> t.Iterator[dict[str, t.Any]]:
    text = reader.text(path)
    status = reader.host.stat_optional(path)
    if text is None or status is None:
        return
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if len(words) != 2:
            continue
        if words[0] in ("allow", "deny"):
            # a list that only some may read is for those
            yield {
                "name": path,
                "action": words[0],
                "bridge": words[1],
                "group": reader.host.group_name(status.st_gid),
                "others": bool(status.st_mode & stat.S_IROTH),
            }
        elif words[0] == "include" and depth > 0:
            yield from _rules(reader, words[1], depth - 1)
