# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what to libvirt by polkit's rules (polkit(8), libvirt's docs/auth.rst and docs/aclpolkit.rst).

Rules are JavaScript, which only polkit can judge; here the plain cases are told apart, and the others left open.
"""

from __future__ import annotations

import re
import typing as t

from ._reader import Reader

RULES = tuple(f"{parent}/polkit-1/rules.d" for parent in ("/etc", "/run", "/usr/local/share", "/usr/share"))
# The local authority of polkit 0.105, or of its compatibility package.
AUTHORITIES = ("/etc/polkit-1/localauthority", "/var/lib/polkit-1/localauthority")
POLICY = "/usr/share/polkit-1/actions/org.libvirt.unix.policy"

_COMMENT_RE = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|//[^\n]*|/\*.*?\*/""", re.DOTALL)
_YES_RE = re.compile(r"""Result\.YES|return\s*\(?\s*["']yes["']""")
_GROUP_RE = re.compile(r"""\.isInGroup\(\s*["']([^"']+)["']""")
_USER_RE = re.compile(r"""\.user\s*={2,3}\s*["']([^"']+)["']""")
_ACTION_RE = re.compile(r"org\.libvirt[\w.]*")
_SECTION_RE = re.compile(r"^\[.*?\]\s*$", re.MULTILINE)
_KEY_RE = re.compile(r"^\s*(\w+)\s*=\s*(.*?)\s*$", re.MULTILINE)
_LISTED = 40
# The same question asked of several actions or subjects.
_ALTERNATIVES = (
    re.compile(r"""action\.id\s*={2,3}\s*["'][^"']*["'](?:\s*\|\|\s*action\.id\s*={2,3}\s*["'][^"']*["'])+"""),
    re.compile(
        r"""subject\.(?:isInGroup\([^)]*\)|user\s*={2,3}\s*["'][^"']*["'])"""
        r"""(?:\s*\|\|\s*subject\.(?:isInGroup\([^)]*\)|user\s*={2,3}\s*["'][^"']*["']))+"""
    ),
)


def facts(reader: Reader) -> dict[str, t.Any]:
    """The rules that say yes to an action of libvirt, each with a ``verdict``: ``scoped`` (to users or groups that it
    names), ``blanket`` (to everybody), None (a person has to read it)."""
    found: list[dict[str, t.Any]] = []
    for path in files(reader):
        text = reader.text(path) or ""
        found += _rules(path, text) if path.endswith(".rules") else _authority(path, text)
    return {"rules": found[:_LISTED], "rules_total": len(found), "manage": _policy(reader)}


def files(reader: Reader) -> list[str]:
    """The files that polkit takes rules from; a .rules file shadows those of its name in later directories."""
    shown: dict[str, str] = {}
    for directory in RULES:
        for name in reader.list(directory):
            if name.endswith(".rules"):
                shown.setdefault(name, f"{directory}/{name}")
    authorities = [
        f"{directory}/{part}/{name}"
        for directory in AUTHORITIES
        for part in reader.list(directory)
        for name in reader.list(f"{directory}/{part}")
        if name.endswith(".pkla")
    ]
    return [*(shown[name] for name in sorted(shown)), *authorities]


def _rules(path: str, text: str) -> t.Iterator[dict[str, t.Any]]:
    code = _COMMENT_RE.sub(lambda match: match[1] or " ", text)
    for part in re.split(r"\baddRule\s*\(", code)[1:]:
        function = part.split("addAdminRule", 1)[0]
        body = function.split("{", 1)[-1]
        actions = sorted(set(_ACTION_RE.findall(body)))
        # without a look at the action, it is about libvirt's, too
        if not _YES_RE.search(body) or not (actions or not re.search(r"\baction\b", body)):
            continue
        to = [f"group {name}" for name in _GROUP_RE.findall(body)] + [f"user {name}" for name in _USER_RE.findall(body)]
        yield {"name": path, "actions": actions or ["*"], "to": sorted(set(to)), "verdict": _verdict(body, to)}


def _verdict(body: str, to: t.Sequence[str]) -> str | None:
    if not re.search(r"\bsubject\b", body):
        return "blanket"  # whatever it branches on, it is not who asks
    for several in _ALTERNATIVES:
        body = several.sub(" ", body)
    plain = len(_YES_RE.findall(body)) == 1 and not re.search(r"\|\||!|\?", body)
    return "scoped" if to and plain else None


def _authority(path: str, text: str) -> t.Iterator[dict[str, t.Any]]:
    """pklocalauthority(8): Identity and Action are lists of patterns, parted by semicolons."""
    for section in _SECTION_RE.split(text)[1:]:
        keys = dict(_KEY_RE.findall(section))
        actions = [action for action in keys.get("Action", "").split(";") if _concerns(action.strip())]
        results = [keys.get(key, "no") for key in ("ResultAny", "ResultInactive", "ResultActive")]
        if not actions or "yes" not in results:
            continue
        to = [part.strip() for part in keys.get("Identity", "").split(";") if part.strip()]
        everybody = any(identity.partition(":")[2] == "*" for identity in to)
        yield {
            "name": path,
            "actions": sorted(actions),
            "to": [identity.replace("unix-", "").replace(":", " ") for identity in sorted(to)],
            "verdict": "blanket" if everybody else "scoped",
        }


def _concerns(action: str) -> bool:
    """Whether a pattern of actions covers some of libvirt's."""
    fixed = re.split(r"[*?\[]", action)[0]
    return action.startswith("org.libvirt") or (fixed != action and "org.libvirt".startswith(fixed))


def _policy(reader: Reader) -> dict[str, str | None]:
    """What everybody may do who is not named in a rule: the defaults for org.libvirt.unix.manage."""
    text = reader.text(POLICY) or ""
    action = re.search(r'<action id="org\.libvirt\.unix\.manage">(.*?)</action>', text, re.DOTALL)
    said = dict(re.findall(r"<allow_(\w+)>\s*(\w+)\s*</", action[1])) if action else {}
    return {key: said.get(key) for key in ("any", "inactive", "active")}
