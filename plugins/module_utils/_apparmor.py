# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""AppArmor's policy as text, and the rules in it that give guests more than a guest needs (apparmor.d(5)). Pure."""

from __future__ import annotations

import itertools
import re
import typing as t
from dataclasses import dataclass

# Directories of which no guest needs everything: whoever may write there has the host, or another guest.
_WRITE = """
/ /bin/ /boot/ /dev/ /dev/hugepages/ /dev/mapper/ /dev/shm/ /etc/ /home/ /lib/ /media/ /mnt/ /opt/ /proc/ /root/ /run/
/run/libvirt/ /sbin/ /srv/ /sys/ /tmp/ /usr/ /var/ /var/lib/ /var/lib/libvirt/ /var/lib/libvirt/images/
/var/lib/libvirt/qemu/ /var/run/ /var/tmp/
"""
# The same for reading: secrets of the host, and what belongs to other guests.
_READ = """
/ /dev/ /dev/hugepages/ /dev/mapper/ /dev/shm/ /etc/ /home/ /media/ /mnt/ /root/ /srv/ /var/ /var/lib/ /var/lib/libvirt/
/var/lib/libvirt/images/ /var/lib/libvirt/qemu/
"""
_WIDE_TO_WRITE = frozenset(_WRITE.split())
_WIDE_TO_READ = frozenset(_READ.split())
# capabilities(7): with one of these a process gets out of what AppArmor holds it in, or at the kernel's memory.
_STRONG = frozenset(
    ("bpf", "mac_admin", "mac_override", "perfmon", "sys_admin", "sys_boot", "sys_module", "sys_ptrace", "sys_rawio")
)
_MEMORY_RE = re.compile(r"/dev/(?:k?mem|port|kcore)|/proc/kcore")
_DISKS_RE = re.compile(r"/dev/(?:(?:[shv]|xv)d|nvme|dm-|md|zd|dasd|disk/|mapper/)[^/]*\*.*")
_VARIABLES = {
    "PROC": "/proc", "sys": "/sys", "run": "/run", "HOME": "/home/*", "HOMEDIRS": "/home/", "etc_rw": "/etc",
    "etc_ro": "/etc", "pid": "*", "tid": "*", "multiarch": "*",
}  # fmt: skip
_QUALIFIERS = re.compile(r"(?:(?:audit|allow|owner|quiet|prompt|priority\s*=\s*-?\d+)\s+)+")
_PERMISSIONS = "[rwalkmxiupcUPC]+"
_PATH = r'"[^"]*"|[/@{]\S*'
_FILE_RE = re.compile(
    rf"(?:file\s+)?(?:(?P<path>{_PATH})\s+(?P<late>{_PERMISSIONS})|(?P<early>{_PERMISSIONS})\s+(?P<after>{_PATH}))"
    r"(?:\s*->.*)?"
)
# Quoted text stays; a sharp at the begin of a word starts a comment, unless it is that of #include.
_COMMENT_RE = re.compile(r'("[^"\n]*")|(?<!\S)#(?!include\b)[^\n]*')
# A comma ends a rule, and a brace that is none of a path begins or ends a block; but not inside of other brackets.
_TOKEN_RE = re.compile(r'"[^"\n]*"?|(?P<end>,|(?<!\S)\{(?!\S)|\})|[{(\[)\]]|\n|[^"{}()\[\],\n]+')
_DEPTH = {"{": 1, "(": 1, "[": 1, "}": -1, ")": -1, "]": -1}
# What needs no comma.
_LINE_RE = re.compile(r"\s*(?:#?include\b|@\{\w+\}\s*\+?=)")
_FLAGS_RE = re.compile(r"flags\s*=\s*\(([^)]*)\)")
_BRACES_RE = re.compile(r"\{([^{}]*)\}")
# Nobody writes more alternatives into one path, or longer rules; a hostile file shall not make us do so.
_MOST_PATHS = 256
_LONGEST = 4096


@dataclass(frozen=True)
class Rule:
    """One rule of a policy file without its comma, or the head of a profile. ``line`` counts from 1."""

    line: int
    text: str


def rules(text: str) -> t.Iterator[Rule]:
    """The rules in a policy file, in their order. What the compiler would refuse comes out as something or other."""
    parts: list[str] = []
    begun, line, depth = 0, 1, 0
    for token in _TOKEN_RE.finditer(_COMMENT_RE.sub(lambda match: match[1] or "", text)):
        word = token[0]
        one_line = word == "\n" and begun == line and _LINE_RE.match("".join(parts))
        if one_line or (token["end"] and depth == 0):
            if parts:
                yield Rule(begun, " ".join("".join(parts).split()))
            parts, depth = [], 0
        elif parts or not word.isspace():
            begun = begun if parts else line
            parts.append(word)
            depth = max(0, depth + _DEPTH.get(word, 0))
        line += word.count("\n")
    if parts:
        yield Rule(begun, " ".join("".join(parts).split()))


def broad(rule: str) -> str:
    """Why a rule gives too much, "" if it does not. It is about every guest: libvirt's abstraction is in each profile.

    :param rule: the text of a Rule.
    """
    flags = lax_flags(rule)
    if len(rule) > _LONGEST:
        return ""
    if flags:
        return f"the profile is not enforced ({flags})"
    text = _QUALIFIERS.sub("", rule, count=1) if _QUALIFIERS.match(rule) else rule
    keyword, _blank, rest = text.partition(" ")
    if keyword in ("all", "file") and not rest:
        return "every file" if keyword == "file" else "everything"
    if keyword == "file" and re.fullmatch(_PERMISSIONS, rest):
        return "every file"
    if keyword == "capability":
        strong = sorted(_STRONG.intersection(rest.split()))
        return f"the capability {', '.join(strong)}" if strong else ("" if rest else "every capability")
    if keyword == "change_profile":
        return "it can leave its profile"
    if keyword in ("mount", "ptrace", "userns") and not rest:
        return f"{keyword} without a limit"
    return _broad_file(text)


def lax_flags(rule: str) -> str:
    """The flags of a profile's head that make it confine nothing, "" for none."""
    found = _FLAGS_RE.search(rule)
    lax = (
        {"complain", "unconfined", "default_allow", "prompt"}.intersection(re.split(r"[\s,]+", found[1]))
        if found
        else ()
    )
    return ", ".join(sorted(lax))


def denies_sound(rule: str) -> bool:
    """Whether a rule keeps guests from the host's sound cards."""
    return re.fullmatch(r'(?:audit\s+)?deny\s+"?/dev/snd/(?:\*|\*\*|\{,\*\*?\})"?\s+[rwkm]*w[rwkm]*', rule) is not None


def _broad_file(text: str) -> str:
    match = _FILE_RE.fullmatch(text)
    if not match:
        return ""
    path, permissions = match["path"] or match["after"], match["late"] or match["early"]
    if "u" in permissions.lower():
        return "a program that runs unconfined"
    for plain in itertools.islice(_expanded(path.strip('"')), _MOST_PATHS):
        reason = _broad_path(plain, write=bool(set("wal") & set(permissions)), read="r" in permissions)
        if reason:
            return reason
    return ""


def _broad_path(path: str, *, write: bool, read: bool) -> str:
    if _MEMORY_RE.fullmatch(path):
        return "the memory of the host"
    if path == "/" and write:
        return "it can write to /"
    fixed = re.split(r"[*?\[]", path)[0]
    base = fixed[: fixed.rfind("/") + 1]
    tail = path[len(base) :]
    if _DISKS_RE.fullmatch(path):
        return "every disk of the host"
    if tail.endswith("/"):  # directories alone, by name
        return ""
    all_below = re.fullmatch(r"[*/]*\*\*[^/]*", tail) or (tail == "*" and base in ("/dev/", "/var/lib/libvirt/images/"))
    if all_below and write and base in _WIDE_TO_WRITE:
        return f"it can write to all of {base}"
    if all_below and read and base in _WIDE_TO_READ:
        return f"it can read all of {base}"
    return ""


def _expanded(path: str) -> t.Iterator[str]:
    """The paths that a path with variables and alternatives stands for."""
    for name, value in _VARIABLES.items():
        path = path.replace(f"@{{{name}}}", value)
    path = re.sub(r"@\{\w+\}", "*", path)
    waiting = [path]
    while waiting:
        here = waiting.pop()
        group = _BRACES_RE.search(here)
        if not group:
            yield re.sub(r"/+", "/", here)
        elif len(waiting) < _MOST_PATHS:
            waiting += [here[: group.start()] + part + here[group.end() :] for part in group[1].split(",")]
