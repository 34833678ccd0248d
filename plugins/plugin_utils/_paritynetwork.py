# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How hosts find and trust each other for a migration: names, addresses, ports and certificates."""

from __future__ import annotations

import fnmatch
import ipaddress
import typing as t
from collections.abc import Hashable

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parityfact import (
    Fact,
    Facts,
    Unknown,
    at,
    entries,
    listed,
    optional,
)
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parityvalues import _truth, _unique, value

ABSENT = "no certificates"
_SOURCE = ("ca-cert.pem", "client-cert.pem", "client-key.pem")
_DESTINATION = ("ca-cert.pem", "server-cert.pem", "server-key.pem")
_BOTH = dict.fromkeys((*_SOURCE, *_DESTINATION))
Problems = tuple[tuple[str, ...], tuple[str, ...]]


def _named(facts: Facts) -> str:
    """What the destination tells the source to send the guest to (src/qemu/qemu_migration.c)."""
    return str(optional(facts, "migration", "host") or at(facts, "migration", "hostname"))


def _name_problem(facts: Facts, _now: float) -> Hashable:
    name = _named(facts)
    if name.lower().startswith("localhost"):
        return f"{name}, which libvirt refuses"
    if not optional(facts, "migration", "host") and optional(facts, "migration", "addresses") == []:
        return f"{name}, which has no address even on the host itself"
    return ""


def _address_problem(facts: Facts, _now: float) -> Hashable:
    given = str(optional(facts, "migration", "address") or "").strip("[]")
    try:
        loopback = ipaddress.ip_address(given).is_loopback
    except ValueError:
        loopback = given.lower().startswith("localhost")
    return f"{given}, which only the host itself can reach" if loopback else ""


def _ports(facts: Facts, _now: float) -> Hashable:
    return at(facts, "migration", "first_port"), at(facts, "migration", "last_port")


def _no_port(facts: Facts, now: float) -> Hashable:
    first, last = t.cast("tuple[int, int]", _ports(facts, now))
    taken = at(facts, "migration", "taken_ports_total")
    return f"all {taken} ports from {first} to {last} are taken" if taken > last - first else ""


def _use(facts: Facts) -> t.Mapping[str, t.Any]:
    found = [one for one in entries(facts, "tls", "uses") if one.get("name") == "migrate"]
    if not found:
        raise Unknown("tls.uses has no migrate")
    return found[0]


def _material(facts: Facts, now: float) -> Hashable:
    """The problems of a host as a source and as a destination, or ABSENT where nothing is set up nor has to be."""
    use = _use(facts)
    if not use.get("present") and not at(facts, "migration", "values", "migrate_tls_force"):
        return ABSENT
    certificates = {str(one.get("name")): one for one in entries(facts, "tls", "certificates")}
    return tuple(tuple(_problems(facts, use, certificates, files, now)) for files in (_SOURCE, _DESTINATION))


def _problems(
    facts: Facts,
    use: t.Mapping[str, t.Any],
    certificates: t.Mapping[str, t.Mapping[str, t.Any]],
    files: tuple[str, ...],
    now: float,
) -> t.Iterator[str]:
    missing = [name for name in files if name in (use.get("missing") or ())]
    if missing:
        yield f"{listed(missing)} missing in {use.get('directory')}"
    for path in use.get("present") or ():
        name = path.rpartition("/")[2]
        certificate = certificates.get(path)
        if name not in files or certificate is None:
            continue
        expires = certificate.get("expires")
        if certificate.get("reason"):
            yield f"{name} cannot be read"
        elif isinstance(expires, (int, float)) and expires <= now:
            yield f"{name} has expired"
        names = certificate.get("names")
        if name == "server-cert.pem" and isinstance(names, list) and not _covers(names, _named(facts)):
            yield f"{name} is for {listed(names)}, not for {_named(facts)}"
    for problem in use.get("problems") or ():
        other = [name for name in _BOTH if name in problem and name not in files]
        if not other or any(name in problem for name in files):
            yield str(problem).rstrip(".")


def _covers(names: list[t.Any], wanted: str) -> bool:
    return any(fnmatch.fnmatchcase(wanted.lower(), str(name).lower()) for name in names)


def _material_breaks(source: t.Any, destination: t.Any) -> str:
    if ABSENT in (source, destination):
        bare = "source" if source == ABSENT else "destination"
        return "" if source == destination else f"A migration over TLS fails: the {bare} has no certificates."
    told = [f"source: {one}" for one in source[0]] + [f"destination: {one}" for one in destination[1]]
    return f"A migration over TLS fails ({'; '.join(told)})." if told else ""


def _material_shown(one: t.Any) -> str:
    return one if isinstance(one, str) else listed(dict.fromkeys((*one[0], *one[1]))) if any(one) else "complete"


def _authority(facts: Facts, _now: float) -> Hashable:
    path = next((name for name in _use(facts).get("present") or () if name.endswith("/ca-cert.pem")), None)
    found = [one for one in entries(facts, "tls", "certificates") if one.get("name") == path]
    return str(found[0].get("digest") or "") if found else ""


def _verify(facts: Facts, _now: float) -> Hashable:
    """Whether a destination asks its client for a certificate (src/qemu/qemu_conf.c: on by default)."""
    general = optional(facts, "configuration", "qemu.conf", "settings", "default_tls_x509_verify")
    own = optional(facts, "configuration", "qemu.conf", "settings", "migrate_tls_x509_verify")
    return bool(own if own is not None else 1 if general is None else general)


def _at_destination(text: str) -> t.Callable[[str, str], str]:
    return lambda _source, destination: f"{text} ({destination})." if destination else ""


NETWORK: tuple[Fact, ...] = (
    Fact(
        "host-name", "name of the host", "high", "N", lambda facts, _now: str(at(facts, "migration", "hostname")),
        lambda a, b: "Both hosts have this name: the guest is sent to whichever the source finds, or to itself."
        if a and a == b else "",
        "Give each host a name of its own.", lambda one: one or "one of its own", _unique,
    ),
    Fact(
        "host-name-usable", "name that the source is sent to", "high", "P", _name_problem,
        _at_destination("The source is told to send the guest to a name that it cannot use"),
        "Set migration_host in qemu.conf to a name or address that the other hosts reach, or name the host properly.",
        lambda one: one or "usable",
    ),
    Fact(
        "migration-address", "address for incoming migrations (migration_address)", "high", "P", _address_problem,
        _at_destination("Nobody can reach the destination, and libvirt refuses"),
        "Set migration_address to the host's address on the migration network.", lambda one: one or "reachable",
    ),
    Fact(
        "migration-ports", "ports for incoming migrations", "low", "N", _ports,
        lambda a, b: "A firewall that lets one range through may stop the other." if a != b else "",
        "Set migration_port_min and migration_port_max to the same everywhere.", lambda one: f"{one[0]}-{one[1]}",
    ),
    Fact(
        "migration-ports-free", "free ports for incoming migrations", "high", "P", _no_port,
        _at_destination("The destination finds no port for the migration and refuses"),
        "Give migrations a range of their own, apart from displays and other services.", lambda one: one or "free",
    ),
    Fact(
        "tls-force", "migrate_tls_force", "medium", "C", value("migrate_tls_force"),
        lambda a, b: "One side refuses a migration without TLS, the other takes either." if a != b else "",
        "Force TLS on all hosts of the group or on none.", _truth,
    ),
    Fact(
        "tls-material", "certificates for migration", "high", "P", _material, _material_breaks,
        "Give each host its CA, server and client certificates and keys (role hypervisor_migration, TLS).",
        _material_shown,
    ),
    Fact(
        "tls-authority", "CA for migration", "high", "P", _authority,
        lambda a, b: "The hosts trust different CAs: a migration over TLS fails." if a and b and a != b else "",
        "Give all hosts of the group the same ca-cert.pem.", lambda one: one[:16] or "none",
    ),
    Fact(
        "tls-verify", "proof of the client (migrate_tls_x509_verify)", "medium", "N", _verify,
        lambda a, b: "The destination takes guests from whoever connects, without a certificate."
        if a and not b else "",
        "Set migrate_tls_x509_verify to the same everywhere.", _truth,
    ),
)  # fmt: skip
