# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What guests may use beyond their definitions, as rules of AppArmor (apparmor.d(5)) that name nothing else. Pure."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from . import _apparmor
from ._host import HardeningError

ACCESS = {"read": "rk", "write": "rwk"}
# Directories in which everybody may make names.
_SHARED = ("/tmp", "/var/tmp", "/dev/shm")
_SPECIAL_RE = re.compile(r"([\\*?\[\]{}^])")
# A path of these would end the rule, or the line.
_UNUSABLE_RE = re.compile(r'["\x00-\x1f\x7f]')
# What mkstemp(3) puts in the place of one X.
_RANDOM = "[A-Za-z0-9]"


class GrantError(HardeningError):
    """A grant that cannot be given, or gives too much."""


@dataclass(frozen=True)
class Grant:
    """``below``: everything below the directory ``path``; ``guest``: its name or UUID, "" for all guests."""

    path: str
    access: str = "read"
    below: bool = False
    guest: str = ""


def rules(grant: Grant, path: str) -> tuple[str, ...]:
    """The rules of a grant.

    :param path: where ``grant.path`` leads: AppArmor knows a file by the path without symbolic links.
    :raises GrantError: it gives too much, or the path cannot be written in a rule.
    """
    for one in (grant.path, path):
        if not one.startswith("/") or _UNUSABLE_RE.search(one):
            raise GrantError(f"{one!r} is no absolute path that a rule can name. Nothing was done.")
    if grant.below and any(path == shared or path.startswith(f"{shared}/") for shared in _SHARED):
        raise GrantError(
            f"grants: everything below {path} is refused: any process of the host can make names there. Name the file, "
            "or move it to a directory of its own. Nothing was done."
        )
    plain = _quoted(path.rstrip("/") or "/")
    letters = ACCESS[grant.access]
    found = (f'"{plain}/" r', f'"{plain}/**" {letters}') if grant.below else (f'"{plain}" {letters}',)
    for rule in found:
        refuse_broad(rule, "grants")
    return found


def refuse_broad(rule: str, option: str) -> None:
    """Refuse what would give every guest more than a guest needs.

    :param option: the option of the module that the rule comes from.
    :raises GrantError: it would.
    """
    # Quotes hide a path from the eyes of the audit's rules, backslashes do not matter to them.
    reason = _apparmor.broad(rule)
    if reason:
        raise GrantError(
            f"{option}: the rule {rule!r} gives too much: {reason}. Name the file or directory that the guest needs. "
            "Nothing was done."
        )


def verbatim(text: str) -> str:
    """A rule as the operator wrote it, without its comma.

    :raises GrantError: it is not one rule, or gives too much.
    """
    found = [rule.text for rule in _apparmor.rules(text)]
    if len(found) != 1 or re.search(r"[{}]\s|[{}]$|^#?include\b|^profile\b|^@", found[0]) or "\n" in text.strip():
        raise GrantError(
            f"rules: {text!r} is not one rule. Give each rule for itself, without blocks, includes, variables and "
            "comments. Nothing was done."
        )
    refuse_broad(found[0], "rules")
    return found[0]


def memfd_fallback(directory: str, uuid: str) -> tuple[str, ...]:
    """The file that QEMU makes, and unlinks, where memfd_create(2) fails (util/memfd.c, qemu_memfd_alloc).

    A name of QEMU's own, with or without the guest's UUID in it, and the six characters of mkstemp(3); no more.
    """
    return (f'owner "{_quoted(directory)}/memfd-{{{uuid}-,}}{_RANDOM * 6}" rw',)


def pool(path: str) -> tuple[str, ...]:
    """What virt-aa-helper needs of a storage pool: to find out on what an image is built, it reads the image."""
    plain = _quoted(path.rstrip("/"))
    return f'"{plain}/" r', f'"{plain}/**" r'


def kept(path: str) -> str:
    """Keeps a guest's profile from a virt-aa-helper that deletes it when the guest stops (its option -D)."""
    return f'deny "{path}" w'


def _quoted(path: str) -> str:
    return _SPECIAL_RE.sub(r"\\\1", path)


def lines(found: t.Iterable[str]) -> list[str]:
    """Rules as lines of a policy file, each once."""
    return [f"  {rule}," for rule in dict.fromkeys(found)]
