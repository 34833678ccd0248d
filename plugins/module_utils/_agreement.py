# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hosts of a migration group agree on: the values that libvirt does not compare when a guest moves.

As JSON: ``{"version": 1, "group": NAME, "values": {KEY: VALUE}, "digest": SHA-256}``. A key that is not among the
values is not agreed on. The digest is of the other three in canonical JSON: where it is equal, so are the agreements.
"""

from __future__ import annotations

import hashlib
import json
import typing as t
from dataclasses import dataclass

from ._host import HardeningError

VERSION = 1
# Far above what all keys can need.
SIZE_LIMIT = 256 * 1024

NUMBER = "a whole number from 0 to 4294967294"
BOOL = "true or false"
STRING = "a string that is not empty"
LIST = "a list of strings"

# Each is the effective value, with libvirt's default where qemu.conf is silent.
KEYS: dict[str, str] = {
    "qemu_uid": NUMBER,
    "qemu_gid": NUMBER,
    "dynamic_ownership": BOOL,
    "remember_owner": BOOL,
    "security_models": LIST,  # as in virsh capabilities, without "none", which stands for there being none
    "namespaces": LIST,
    "seccomp_sandbox": BOOL,  # whether it is another number than 0
    "cgroup_controllers": LIST,
    "cgroup_device_acl": LIST,
    "sched_core": STRING,
    "max_core": STRING,  # "unlimited", or a number of bytes in digits
    "memory_backing_dir": STRING,
    "lock_manager": STRING,  # "nop" where none is set
    "migrate_tls_force": BOOL,
    "memfd_create": BOOL,  # whether the call works for QEMU's user
}

_FIELDS = ("version", "group", "values", "digest")
_LARGEST_ID = 2**32 - 2  # the next one stands for no user at all (chown(2))


class AgreementError(HardeningError):
    """This is no agreement that this version can go by."""


@dataclass(frozen=True)
class Agreement:
    """``values``: key to value as in ``KEYS``, lists sorted and without doubles, as ``make`` leaves them."""

    group: str
    values: t.Mapping[str, t.Any]

    @property
    def digest(self) -> str:
        """SHA-256 of version, group and values, in hexadecimal."""
        return hashlib.sha256(
            canonical({"version": VERSION, "group": self.group, "values": dict(self.values)})
        ).hexdigest()

    @property
    def data(self) -> dict[str, t.Any]:
        """The whole as JSON types, with its digest."""
        return {"version": VERSION, "group": self.group, "values": dict(self.values), "digest": self.digest}

    def render(self) -> bytes:
        """The bytes of its file, for people as well."""
        return json.dumps(self.data, indent=2, sort_keys=True).encode() + b"\n"


def canonical(data: t.Any) -> bytes:
    """JSON in its one spelling: keys sorted, no blanks, ASCII."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def make(group: t.Any, values: t.Mapping[str, t.Any]) -> Agreement:
    """An agreement from a group's name and values; None among them stands for a key that is not agreed on.

    :raises AgreementError: every objection at once, each with its key.
    """
    objections = [] if isinstance(group, str) and group.strip() else [f"group: {group!r} is no name of a group."]
    found = {}
    for key, value in values.items():
        try:
            if value is not None:
                found[key] = _value(key, value)
        except AgreementError as error:
            objections.append(str(error))
    if objections:
        raise AgreementError("The agreement cannot be used. " + " ".join(objections))
    return Agreement(group, dict(sorted(found.items())))


def of(data: t.Any) -> Agreement:
    """The agreement that JSON types stand for; a digest in it has to be right.

    :raises AgreementError: of another version or form, with a value that is none, or altered.
    """
    if not isinstance(data, dict):
        raise AgreementError("The agreement is no dictionary with version, group, values and digest.")
    version = data.get("version")
    if version != VERSION or isinstance(version, bool):
        raise AgreementError(
            f"The agreement is of version {version!r}, and this is for version {VERSION}: make it, and install the "
            "gate, with the same release of the collection."
        )
    strange = sorted(str(key) for key in data if key not in _FIELDS)
    if strange:
        raise AgreementError(f"The agreement holds what does not belong in it: {', '.join(strange)}.")
    values = data.get("values")
    if not isinstance(values, dict):
        raise AgreementError("The agreement has no values: a dictionary is wanted there.")
    found = make(data.get("group", ""), values)
    if data.get("digest", found.digest) != found.digest:
        raise AgreementError(
            "The agreement was altered after it was made: its digest is not that of its values. Make it anew; by hand, "
            "leave the digest out."
        )
    return found


def parse(data: bytes | None) -> Agreement:
    """The agreement that a file holds, which must have its digest.

    :param data: None where there is no file.
    :raises AgreementError: missing, empty, cut off, no JSON, of another version, or altered.
    """
    if data is None:
        raise AgreementError("The agreement is missing.")
    if len(data) > SIZE_LIMIT:
        raise AgreementError(f"The agreement is longer than {SIZE_LIMIT} bytes.")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise AgreementError("The agreement is no JSON; it may be cut off.") from None
    if isinstance(found, dict) and found.get("version") == VERSION and "digest" not in found:
        raise AgreementError("The agreement has no digest, so nobody can tell whether it is whole.")
    return of(found)


@dataclass(frozen=True)
class Mismatch:
    """A key whose value on this host is not the agreed one. ``known`` is False where the host does not tell: then
    ``live`` is the reason in words."""

    key: str
    agreed: t.Any
    live: t.Any
    known: bool = True

    def __str__(self) -> str:
        if not self.known:
            return f"{self.key} is not known here ({self.live}), agreed is {shown(self.agreed)}"
        return f"{self.key} is {shown(self.live)} here, agreed is {shown(self.agreed)}"


def mismatches(agreement: Agreement, live: t.Mapping[str, t.Any], unknown: t.Mapping[str, str]) -> list[Mismatch]:
    """Where a host departs from an agreement, in the order of ``KEYS``.

    :param live: the host's own values in their one form (``value``).
    :param unknown: key to the reason why the host's value is not known.
    """
    found = []
    for key in (key for key in KEYS if key in agreement.values):
        agreed = agreement.values[key]
        if key not in live:
            found.append(Mismatch(key, agreed, unknown.get(key, "nobody looked"), known=False))
        elif live[key] != agreed:
            found.append(Mismatch(key, agreed, live[key]))
    return found


def shown(value: t.Any) -> str:
    """A value in the words of one line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _value(key: str, value: t.Any) -> t.Any:
    """A value in the one form of its key.

    :raises AgreementError: an unknown key, or a value of another type.
    """
    kind = KEYS.get(key)
    if kind is None:
        raise AgreementError(f"{key} is nothing that can be agreed on; that are {', '.join(KEYS)}.")
    right = {
        NUMBER: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_ID,
        BOOL: isinstance(value, bool),
        STRING: isinstance(value, str) and bool(value.strip()),
        LIST: isinstance(value, (list, tuple)) and all(isinstance(item, str) and item for item in value),
    }[kind]
    if not right:
        raise AgreementError(f"{key}: {value!r} is not {kind}.")
    if kind == LIST:
        none = {"none"} if key == "security_models" else set()
        return sorted(set(value) - none)
    return int(value) if kind == NUMBER else value
