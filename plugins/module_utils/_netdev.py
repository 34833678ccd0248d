# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Network devices, TAP above all, and who holds them, as sysfs and /proc show them."""

from __future__ import annotations

import os
import typing as t
from dataclasses import asdict, dataclass

from ._host import HardeningError, Host

if t.TYPE_CHECKING:
    from ._journal import Journal

SYSFS = "/sys/class/net"
# IFNAMSIZ of include/uapi/linux/if.h less the closing NUL.
NAME_LIMIT = 15
# include/uapi/linux/if_tun.h
_IFF_TUN, _IFF_TAP, _IFF_MULTI_QUEUE, _IFF_PERSIST, _IFF_VNET_HDR = 0x0001, 0x0002, 0x0100, 0x0800, 0x4000
# include/uapi/linux/if_arp.h
_ARPHRD_LOOPBACK = "772"
# include/uapi/linux/if.h
_IFF_UP = 0x1
_UNSET = 0xFFFFFFFF


class NetdevError(HardeningError):
    """What sysfs and /proc say of network devices cannot be had, or is not about the host."""


@dataclass(frozen=True)
class Device:
    """One network device.

    ``kind`` is ``tap``, ``tun``, ``macvtap``, ``physical``, ``loopback``, ``veth``, the kernel's own word (DEVTYPE of
    the device's uevent: ``bridge``, ``vlan``, ``bond`` and so on) or ``other``. ``owner`` and ``group`` (numbers) are
    who may open a TAP beside root (both must fit); None for no such condition, so with neither everybody may
    (tun_not_capable of drivers/net/tun.c). ``bridge`` is the device that it is a port of, "" for none.
    ``attached`` tells whether some process holds a TAP, None where the kernel does not say (the link is down) and for
    other devices.
    """

    name: str
    kind: str
    index: int
    mac: str
    mtu: int
    bridge: str
    persistent: bool
    owner: int | None
    group: int | None
    multi_queue: bool
    vnet_hdr: bool
    attached: bool | None


@dataclass(frozen=True)
class Holder:
    """A process that has a TAP open. ``here``: it lives in the host's own network namespace."""

    pid: int
    comm: str
    here: bool


def valid_name(name: str) -> bool:
    """Whether the kernel takes this name for a device, its length apart (dev_valid_name of net/core/dev.c)."""
    return name not in ("", ".", "..") and not any(sign in "/:%\0" or sign.isspace() for sign in name)


def too_long(name: str) -> bool:
    """Whether a name is longer than the kernel's 15 bytes."""
    return len(name.encode("utf-8", "surrogateescape")) > NAME_LIMIT


def names(host: Host) -> list[str]:
    """The devices of the host's network namespace.

    :raises NetdevError: this process lives in another network namespace, whose devices sysfs shows instead.
    """
    try:
        same = host.readlink("/proc/self/ns/net") == host.readlink("/proc/1/ns/net")
    except PermissionError:
        raise NetdevError(
            "The network namespace of PID 1 cannot be looked at (/proc/1/ns/net): run as root (become: true)."
        ) from None
    if not same:
        raise NetdevError(
            "This task runs in another network namespace than PID 1, so /sys/class/net does not show the devices of "
            "the host: run it on the host itself, outside containers and without 'ip netns exec'."
        )
    return host.list(SYSFS)


def device(host: Host, name: str) -> Device | None:
    """What sysfs says of a device, None where there is none of this name.

    Files of sysfs: Documentation/ABI/testing/sysfs-class-net of the kernel, and drivers/net/tun.c for a TAP's own.
    """
    if not valid_name(name) or too_long(name):
        return None
    index = _value(host, name, "ifindex")
    if not index:
        return None
    flags = int(_value(host, name, "tun_flags") or "0", 16)
    return Device(
        name=name,
        kind=_kind(host, name, flags),
        index=int(index),
        mac=_value(host, name, "address"),
        mtu=int(_value(host, name, "mtu") or 0),
        bridge=_link(host, name, "master"),
        persistent=bool(flags & _IFF_PERSIST),
        owner=_number(_value(host, name, "owner")),
        group=_number(_value(host, name, "group")),
        multi_queue=bool(flags & _IFF_MULTI_QUEUE),
        vnet_hdr=bool(flags & _IFF_VNET_HDR),
        attached={"1": True, "0": False}.get(_value(host, name, "carrier")) if flags else None,
    )


def alias(host: Host, name: str) -> str:
    """The alias of a device (``ip link set alias``), "" for none."""
    return _value(host, name, "ifalias")


def is_up(host: Host, name: str) -> bool:
    """Whether the link of a device was set up; what its carrier is does not matter."""
    return bool(int(_value(host, name, "flags") or "0", 16) & _IFF_UP)


def remove(host: Host, found: Device, journal: Journal, **record: t.Any) -> None:
    """Remove a TAP exactly as it was seen, or not at all, journal first.

    The kernel itself refuses to let go of a single-queue TAP that somebody has taken meanwhile (EBUSY from TUNSETIFF).

    :param record: what the journal is to keep of it beside its properties.
    :raises NetdevError: it is no longer what it was, somebody holds it, or the kernel refuses.
    """
    if device(host, found.name) != found or any(holders(host, [found]).values()):
        raise NetdevError(f"{found.name} changed or was taken into use since it was looked at; it stays as it is.")
    journal.record_value(f"{SYSFS}/{found.name}", {**asdict(found), **record}, None)
    queues = ["multi_queue"] if found.multi_queue else []
    done = host.run(["ip", "tuntap", "del", "dev", found.name, "mode", "tap", *queues])
    if done.rc != 0:
        raise NetdevError(f"The TAP device {found.name} could not be removed: {done.err.strip()}")
    host.changed = True


def holders(host: Host, devices: t.Iterable[Device]) -> dict[str, tuple[Holder, ...]]:
    """Which processes have which of these devices open, by the device's name.

    A file descriptor of /dev/net/tun shows its device as ``iff:`` in /proc/PID/fdinfo (tun_chr_show_fdinfo of
    drivers/net/tun.c); that of a macvtap is /dev/tapINDEX. Links are read, not followed, which never blocks; fdinfo is
    read only for those of the tun device, whatever mount namespace their path belongs to.

    :raises NetdevError: the processes cannot be looked at.
    """
    taps = {f"tap{device.index}": device.name for device in devices if device.kind == "macvtap"}
    found: dict[str, list[Holder]] = {device.name: [] for device in devices}
    for pid in filter(str.isdigit, host.list("/proc")):
        try:
            held = _held(host, pid, taps) & found.keys()
            for name in held:
                found[name].append(_holder(host, pid))
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            raise NetdevError(
                f"The open files of process {pid} cannot be looked at (/proc/{pid}/fd), so nobody can tell who holds a "
                "TAP device: run as root (become: true)."
            ) from None
    return {name: tuple(sorted(who, key=lambda holder: holder.pid)) for name, who in found.items()}


def _held(host: Host, pid: str, taps: t.Mapping[str, str]) -> set[str]:
    held: set[str] = set()
    for fd in host.list(f"/proc/{pid}/fd"):
        try:
            link = host.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
        base = link.rpartition("/")[2]
        if base in taps:
            held.add(taps[base])
        elif base == "tun" and link.startswith("/"):
            held.add(_attached_to(host.text_optional(f"/proc/{pid}/fdinfo/{fd}") or ""))
    return held


def _attached_to(fdinfo: str) -> str:
    for line in fdinfo.splitlines():
        key, _colon, value = line.partition(":")
        if key == "iff":
            return value.strip()
    return ""


def _holder(host: Host, pid: str) -> Holder:
    here = host.readlink(f"/proc/{pid}/ns/net") == host.readlink("/proc/1/ns/net")
    return Holder(int(pid), host.text(f"/proc/{pid}/comm").rstrip("\n"), here)


def _kind(host: Host, name: str, flags: int) -> str:
    if flags & _IFF_TAP:
        return "tap"
    if flags & _IFF_TUN:
        return "tun"
    if host.exists(f"{SYSFS}/{name}/macvtap"):
        return "macvtap"
    for line in _value(host, name, "uevent").splitlines():
        key, _equals, value = line.partition("=")
        if key == "DEVTYPE":
            return value
    if host.exists(f"{SYSFS}/{name}/device"):
        return "physical"
    if _value(host, name, "type") == _ARPHRD_LOOPBACK:
        return "loopback"
    # The link of a veth is its peer.
    return "veth" if _value(host, name, "iflink") != _value(host, name, "ifindex") else "other"


def _value(host: Host, name: str, attribute: str) -> str:
    """An attribute of sysfs, "" where the device has none or does not tell it (the carrier of a link that is down)."""
    try:
        return (host.text_optional(f"{SYSFS}/{name}/{attribute}") or "").strip()
    except OSError:
        return ""


def _link(host: Host, name: str, attribute: str) -> str:
    try:
        return os.path.basename(host.readlink(f"{SYSFS}/{name}/{attribute}"))
    except OSError:
        return ""


def _number(value: str) -> int | None:
    """A uid or gid of tun.c: "-1" stands for unset, and so does its unsigned spelling."""
    number = int(value or -1)
    return None if number in (-1, _UNSET) else number
