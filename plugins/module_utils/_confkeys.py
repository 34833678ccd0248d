# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of libvirt's configuration files and their types, as the installed libvirt tells them by its own lenses."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ._host import HardeningError, Host

if t.TYPE_CHECKING:
    from ._virconf import Document, Plain

QEMU_CONF = "qemu.conf"
LENSES = "/usr/share/augeas/lenses"
LENS = f"{LENSES}/libvirtd_qemu.aug"
SAMPLE = "/usr/share/augeas/lenses/tests/test_libvirtd_qemu.aug"

BOOL = "0 or 1"
INT = "a whole number from -2147483648 to 2147483647"
UINT = "a whole number from 0 to 4294967295"
LIMIT = 'a number of bytes, or "unlimited"'
SIZE = 'a number of bytes, or a string such as "10GiB"'
STRING = "a string"
LIST = "a list of strings"
STRING_OR_LIST = "a string or a list of strings"
LENGTH = "a whole number from 0 to 9223372036854775807"
ANY = "a bool, a number, a string or a list of strings"

# What the functions of the lens stand for. One that is not here makes a key that is known, of ANY type.
_LENS_TYPES = {"bool": BOOL, "int": UINT, "limits": LIMIT, "bytes": SIZE, "str": STRING, "str_array": LIST}

# Where libvirt's parser (qemu_conf.c) reads more than its lens says.
_CORRECTIONS = {
    "security_driver": STRING_OR_LIST,  # virQEMUDriverConfigLoadSecurityEntry: a string list, or a string for one
    "hugetlbfs_mount": STRING_OR_LIST,  # virQEMUDriverConfigLoadProcessEntry: likewise
    "seccomp_sandbox": INT,  # virQEMUDriverConfigLoadSecurityEntry: virConfGetValueInt
    "keepalive_interval": INT,  # virQEMUDriverConfigLoadRPCEntry: virConfGetValueInt, -1 turns it off
}

# The same in the daemons' own files.
_DAEMON_CORRECTIONS = {
    "keepalive_interval": INT,  # remote_daemon_config.c: virConfGetValueInt, -1 turns it off
    "admin_keepalive_interval": INT,
    "max_size": LENGTH,  # log_daemon_config.c: virConfGetValueSizeT
    "max_backups": LENGTH,
    "max_age_days": LENGTH,
}

# Those whose lens is not called like the file.
_LENS_NAMES = {
    QEMU_CONF: "libvirtd_qemu",
    "lxc.conf": "libvirtd_lxc",
    "libxl.conf": "libvirtd_libxl",
    "network.conf": "libvirtd_network",
    "nwfilter.conf": "libvirtd_nwfilter",
    "secret.conf": "libvirt_secrets",
    "qemu-lockd.conf": "libvirt_lockd",
    "libxl-lockd.conf": "libvirt_lockd",
    "qemu-sanlock.conf": "libvirt_sanlock",
    "libxl-sanlock.conf": "libvirt_sanlock",
}

# In the lenses, so that old files stay readable; no parser from 7.0 on reads them.
_NO_LONGER_READ = ("clear_emulator_capabilities", "keepalive_required", "admin_keepalive_required")

# The key whose sample is libvirt's built-in list (qemu_cgroup.c, defaultDeviceACL). The samples of the other lists are
# mere examples, or their default depends on the host.
_SAMPLE_IS_DEFAULT = ("cgroup_device_acl",)

# virconf.c: a number of the file is a signed 64-bit one; beyond that 9.0 takes another number, and 11.3 refuses.
_RANGES = {INT: (-(2**31), 2**31 - 1), UINT: (0, 2**32 - 1), LIMIT: (0, 2**63 - 1), SIZE: (0, 2**63 - 1)}
_RANGES[LENGTH] = (0, 2**63 - 1)
_TRUTH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

_COMMENT_RE = re.compile(r"\(\*(?:(?!\(\*|\*\)).)*\*\)", re.DOTALL)
_ENTRY_RE = re.compile(r'\b([a-z][a-z0-9_]*)_entry\s+"([A-Za-z][A-Za-z0-9_]*)"')
_SAMPLE_RE = re.compile(r'let\s+conf\s*=\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)


class ConfError(HardeningError):
    """A file or a setting that libvirt would refuse, or take without a word and ignore."""


@dataclass(frozen=True)
class Keys:
    """The keys that a libvirt knows: name to type (one of the constants of this file).

    ``source`` is ``lens`` (the installed libvirt says so) or ``fallback`` (this collection does); ``file``: the name of
    the file that they are for.
    """

    types: t.Mapping[str, str]
    source: str
    file: str = QEMU_CONF


def known(host: Host, file: str = QEMU_CONF) -> Keys:
    """The keys of a file to the installed libvirt; where it ships no lens, those of all releases from 7.0 to 12.8.

    :param file: its name in /etc/libvirt. Of one that nobody knows there are no keys.
    """
    corrections = _CORRECTIONS if file == QEMU_CONF else _DAEMON_CORRECTIONS
    types = lens_types(host.text_optional(f"{LENSES}/{_LENS_NAMES.get(file, file.replace('.conf', ''))}.aug") or "")
    source = "lens"
    if not types:
        types, source = _fallback(file), "fallback"
    return Keys({**types, **{key: kind for key, kind in corrections.items() if key in types}}, source, file)


def _fallback(file: str) -> dict[str, str]:
    from . import _confkeys_daemons, _confkeys_fallback

    types = _confkeys_fallback.TYPES if file == QEMU_CONF else _confkeys_daemons.types(file)
    return {key: _LENS_TYPES[kind] for kind, keys in types.items() for key in keys.split()}


def is_secret(key: str) -> bool:
    """Whether a key holds a password: vnc_password, spice_password, rdp_password, and what may come."""
    return key.endswith("_password")


def lens_types(text: str) -> dict[str, str]:
    """Key to type, from the entries of a lens of libvirt's (``str_entry "user"``), comments left out."""
    while True:
        bare = _COMMENT_RE.sub(" ", text)  # comments nest: the innermost go first
        if bare == text:
            break
        text = bare
    return {key: _LENS_TYPES.get(kind, ANY) for kind, key in _ENTRY_RE.findall(text) if key not in _NO_LONGER_READ}


def sample(host: Host) -> Document | None:
    """The sample configuration inside the lens's own test, which nobody edits; None where there is none."""
    from ._virconf import Document, VirConfError

    found = _SAMPLE_RE.search(host.text_optional(SAMPLE) or "")
    if not found:
        return None
    try:
        return Document.parse(re.sub(r"\\(.)", r"\1", found[1]).encode("utf-8", "surrogateescape"))
    except VirConfError:
        return None


def extended(key: str, more: t.Any, default: Document | None) -> list[str]:
    """The installed libvirt's built-in list of ``key``, and ``more`` after it.

    :raises ConfError: ``more`` is no list of strings, or the built-in list cannot be told.
    """
    items = t.cast("list[str]", convert(key, LIST, more))
    if key not in _SAMPLE_IS_DEFAULT:
        raise ConfError(
            f"{key} cannot be extended: libvirt does not say what its built-in list is. Give the whole list in "
            f"settings; extend is for {', '.join(_SAMPLE_IS_DEFAULT)}."
        )
    value = default.get(key) if default else None
    if value is None or not isinstance(value.content, tuple):
        raise ConfError(
            f"{key} cannot be extended: {SAMPLE}, where libvirt's package tells its built-in list, is missing or does "
            "not hold it. Give the whole list in settings."
        )
    first = [str(item.content) for item in value.content]
    return [*first, *(item for item in dict.fromkeys(items) if item not in first)]


def exists(key: str, keys: Keys) -> bool:
    """Whether the installed libvirt, or any release from 7.0 to 12.8, has had such a key."""
    return key in keys.types or key in _NO_LONGER_READ or key in _fallback(keys.file)


def unknown(key: str, keys: Keys) -> str:
    """Why a key cannot be set: libvirt would skip it without a word. With the nearest known ones."""
    if key in _NO_LONGER_READ:
        return f"{key}: no libvirt since 7.0 reads this key, so it has no effect. null removes the line."
    who = "the installed libvirt" if keys.source == "lens" else "any libvirt this collection knows"
    return f"{key} is no key of {keys.file} to {who}, which would ignore it without a message.{nearest(key, keys)}"


def nearest(key: str, keys: Keys) -> str:
    """The known keys that a misspelt one may have meant, as a question; "" where none is near."""
    import difflib

    near = difflib.get_close_matches(key, keys.types, n=3, cutoff=0.7)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def convert(key: str, kind: str, value: t.Any, *, secret: bool = False) -> Plain:
    """The value as libvirt reads it; strings that can only mean one bool or number are taken as such (surveys).

    :raises ConfError: another type, or a number out of range; the value is not quoted where it is ``secret``.
    """
    converted = _converted(kind, value)
    if converted is not None:
        return converted
    shown = "the value" if secret else repr(value)
    raise ConfError(f"{key}: {shown} is {_noun(value)}, but libvirt reads {kind} there.{_hint(kind, value)}")


def suits(kind: str, value: t.Any) -> bool:
    """Whether a value that stands in a file is of the type that libvirt reads there."""
    converted = _converted(kind, value)
    return converted is not None and isinstance(converted, str) == isinstance(value, str)


def _converted(kind: str, value: t.Any) -> Plain | None:
    if kind == BOOL:
        return _truth(value)
    if kind in _RANGES:
        if (kind == LIMIT and value == "unlimited") or (kind == SIZE and _is_size(value)):
            return t.cast("Plain", value)
        return _number(value, *_RANGES[kind])
    if isinstance(value, str):
        return value if kind in (STRING, STRING_OR_LIST, ANY) else None
    if isinstance(value, (list, tuple)):
        wanted = kind in (LIST, STRING_OR_LIST, ANY) and all(isinstance(item, str) for item in value)
        return list(value) if wanted else None
    return value if kind == ANY and isinstance(value, int) else None


def _truth(value: t.Any) -> bool | None:
    if isinstance(value, int):
        return bool(value) if value in (0, 1) else None
    return _TRUTH.get(value.strip().lower()) if isinstance(value, str) else None


def _number(value: t.Any, least: int, most: int) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if least <= value <= most else None


def _is_size(value: t.Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9]+[a-zA-Z]+", value) is not None


def _noun(value: t.Any) -> str:
    if isinstance(value, bool):
        return "a bool"
    if isinstance(value, (list, tuple)):
        return "a list of strings" if all(isinstance(item, str) for item in value) else "a list of more than strings"
    nouns = {int: "a number", float: "a number with a fraction", str: "a string", dict: "a dictionary"}
    return nouns.get(type(value), type(value).__name__)


def _hint(kind: str, value: t.Any) -> str:
    if kind in (STRING, STRING_OR_LIST) and isinstance(value, bool):
        return " Quote it: YAML reads a bare on, off, yes or no as a bool."
    if kind in (STRING, STRING_OR_LIST) and isinstance(value, int):
        return " Quote it."
    if kind == LIST and isinstance(value, str):
        return " Make it a list, even of one."
    return ""
