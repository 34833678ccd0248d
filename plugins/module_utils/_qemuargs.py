# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments that a definition passes through to QEMU: what of them may be shown, and what they open.

A value is shown only where it is known to be no secret (a number, a switch, a path, a key of which nobody makes one);
everything else reads ``(hidden)``. A list of what is secret would never be complete.
"""

from __future__ import annotations

import json
import re
import typing as t
from dataclasses import dataclass, replace

HIDDEN = "(hidden)"

# What follows these is free text, or meant for the guest (qemu-options.hx): not even its paths are the host's.
_FOR_THE_GUEST = frozenset(("append", "prom-env"))
# The first word after these is a name of QEMU's: a driver, a type, a back end.
_NAMES_FIRST = """
accel audiodev blockdev boot chardev compat cpu d device display drive fsdev gdb global incoming k m M machine mon
monitor msg name net netdev nic numa object overcommit parallel qmp qmp-pretty rtc run-with sandbox semihosting serial
set smp spice tpmdev trace usbdevice vga virtfs vnc watchdog-action
"""
# Keys of which nobody makes a secret; of blockdev and device alike.
_PLAIN_KEYS = """
acl addr aio backend bootindex bus cache chardev chassis cid dev dir discard display driver drive endpoint format fsdev
host host-nodes hostaddr hostbus hostdev hostfwd hubport id if ifname index interface ipv4 ipv6 local localaddr mac
media memdev mode model mount_tag multifunction name nbd net netdev node-name path port ports prealloc productid
protocol qom-type queues readonly release role romfile security_model server share size slot sock_fd socket sysfsdev
throttling-group tls-creds to type unit uuid vendorid version vhost vhostfd writeout x-vga
"""
_FLAGS = "server nowait wait telnet tls snapshot readonly password sasl share"
_NAMES_FIRST_SET = frozenset(_NAMES_FIRST.split())
_PLAIN_KEY_SET = frozenset(_PLAIN_KEYS.split())
_FLAG_SET = frozenset(_FLAGS.split())
# Keys that take free text, in which a number or a path can be a secret as well.
_FREE_TEXT = frozenset(("string", "data", "value", "text", "serial", "asset", "sku"))
_SECRET_KEY = re.compile(
    r"pass(?:wd|word|phrase)?|osk|token|secret|cookies?|credentials?|(?:api|access|private)[-_]?key", re.IGNORECASE
)
_SECRET_NAME = re.compile(r"pass(?:wd|word|phrase)?|secret|token|credential|(?:^|_)key(?:$|_)", re.IGNORECASE)
# A password inside what is shown for another reason, such as a path with a comma.
_INSIDE = re.compile(r"(?:pass(?:wd|word|phrase)?|secret|token)=", re.IGNORECASE)
_SWITCH = re.compile(r"(?:on|off|yes|no|true|false|auto|none|0x[0-9a-f]{1,16}|\d{1,9}[kKMGTm]?)\Z")
_OPTION = re.compile(r"--?[a-zA-Z][a-zA-Z0-9_-]{0,30}\Z")
_WORD = re.compile(r"[+-]?[A-Za-z][\w.+-]{0,63}\Z")
_ADDRESS = re.compile(r"(?:tcp|udp|telnet|websocket):[\w.\[\]:@%-]*\Z")
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(?:([^/@]*)@)?([^/?#]*)")
_PATH = re.compile(r"(?:(?:file|unix|pipe|mon|fd|host_device|host_cdrom)[:=]){0,2}(?://)?(/.*)\Z", re.DOTALL)
_PCI = re.compile(r"(?:[0-9a-fA-F]{1,4}:)?[0-9a-fA-F]{1,2}:[0-9a-fA-F]{1,2}\.[0-7]\Z")
_REMOTE = re.compile(r"(?:tcp|udp|telnet|websocket):")
_CHARDEV_OPTIONS = ("monitor", "qmp", "qmp-pretty", "serial", "parallel", "gdb")
_DISPLAY = re.compile(r"[\w.\[\]:%-]*:\d{1,5}\Z")
_LOCAL_DISPLAY = re.compile(r"unix:|none\b|127\.|localhost:|\[?::1\]?:\d")


@dataclass(frozen=True)
class Argument:
    """One argument as it may be shown. ``secret``: it holds a plain password; ``paths``: absolute ones of the host;
    ``network``: it opens a character device on TCP or UDP; ``display``: a VNC server beyond this host;
    ``device``: a device of the host, as a definition's host devices are called (``pci 0000:01:00.0``)."""

    shown: str
    secret: bool = False
    paths: tuple[str, ...] = ()
    network: bool = False
    display: bool = False
    device: str = ""


def arguments(values: t.Iterable[str]) -> tuple[Argument, ...]:
    """The arguments, in order, each read by the option before it."""
    found: list[Argument] = []
    option = ""
    for value in values:
        if _OPTION.match(value):
            option = value.lstrip("-")
            found.append(Argument(value, network=option == "s"))  # -s is -gdb tcp::1234
        else:
            found.append(_argument(option, value))
            option = ""
    return tuple(found)


def secret_variable(name: str, value: str) -> bool:
    """Whether an environment variable looks like one that holds a secret. Its value is for nobody, in any case."""
    return bool(value) and bool(_SECRET_NAME.search(name))


def secret_words(text: str) -> bool:
    """Whether free text, such as a kernel's command line, gives a password (``KEY=VALUE``)."""
    pairs = (word.partition("=") for word in text.split())
    return any(value and _SECRET_NAME.search(key.rpartition(".")[2]) for key, _equals, value in pairs)


def _argument(option: str, value: str) -> Argument:
    if option in _FOR_THE_GUEST:
        return Argument(HIDDEN, secret=secret_words(value))
    if value.startswith(("{", "json:")):
        return replace(_json(value), device=_host_device(value) if option == "device" else "")
    items = [_item(option, place, item) for place, item in enumerate(_split(value))]
    words = ",".join(item.shown for item in items)
    is_secret_object = option == "object" and words.startswith("secret,")
    network = bool(_REMOTE.match(value)) and option in _CHARDEV_OPTIONS
    network = network or (option == "chardev" and _remote_chardev(value))
    return Argument(
        shown=words,
        secret=any(item.secret for item in items) or (is_secret_object and f"data={HIDDEN}" in words),
        paths=tuple(path for item in items for path in item.paths),
        network=network,
        display=option == "vnc" and not _LOCAL_DISPLAY.match(value),
        device=_host_device(value) if option == "device" else "",
    )


def _remote_chardev(value: str) -> bool:
    kind, _comma, rest = value.partition(",")
    keys = {item.partition("=")[0] for item in _split(rest)}
    return kind == "udp" or (kind == "socket" and "port" in keys)


def _host_device(value: str) -> str:
    """The PCI or USB device that vfio-pci or usb-host takes (QEMU's hw/vfio/pci.c, hw/usb/host-libusb.c)."""
    if value.startswith("{"):
        keys = _json_keys(value)
        driver = keys.get("driver", "")
    else:
        driver, _comma, rest = value.partition(",")
        keys = {key: text for key, _equals, text in (item.partition("=") for item in _split(rest))}
    if driver.startswith("vfio-pci") and _PCI.match(keys.get("host", "")):
        address = keys["host"].lower()
        return f"pci {address if address.count(':') == 2 else f'0000:{address}'}"
    if driver == "usb-host":
        names = ("vendorid", "productid") if "vendorid" in keys else ("hostbus", "hostaddr")
        first, second = (keys.get(name, "0") if keys.get(name, "").isalnum() else "0" for name in names)
        return f"usb {first}:{second}" if "vendorid" in keys else f"usb bus {first} device {second}"
    return ""


def _json_keys(value: str) -> dict[str, str]:
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(inner) for key, inner in parsed.items()} if isinstance(parsed, dict) else {}


def _split(value: str) -> list[str]:
    """The items of an option, whose grammar doubles a comma that belongs to a value (util/keyval.c)."""
    return [item.replace("\0", ",") for item in value.replace(",,", "\0").split(",")]


def _item(option: str, place: int, item: str) -> Argument:
    key, equals, value = item.partition("=")
    if equals and re.match(r"[\w.-]{1,64}\Z", key):
        shown = _value(key, value)
        return Argument(f"{key}={shown.shown}", shown.secret, shown.paths)
    if _INSIDE.search(item):
        return Argument(HIDDEN)
    if path := _PATH.match(item):
        return Argument(item, paths=(path[1],))
    if _ADDRESS.match(item) or _SWITCH.match(item) or item in _FLAG_SET:
        return Argument(item)
    if option == "vnc" and place == 0 and _DISPLAY.match(item):
        return Argument(item)
    if _URL.match(item):
        return _url(item)
    known = option in _NAMES_FIRST_SET and (place == 0 or option == "cpu")
    return Argument(item if known and _WORD.match(item) else HIDDEN)


def _value(key: str, value: str) -> Argument:
    """What ``key=value`` shows of its value."""
    if _SWITCH.match(value) and not value.isdigit():
        return Argument(value)
    last = key.rpartition(".")[2]
    if _SECRET_KEY.fullmatch(last):
        return Argument(HIDDEN, secret=bool(value))
    if last in _FREE_TEXT or (_INSIDE.search(value) and not value.startswith("json:")):
        return Argument(HIDDEN)
    if value.startswith("json:"):
        return _json(value)
    if path := _PATH.match(value):
        return Argument(value, paths=(path[1],))
    if _URL.match(value):
        return _url(value)
    if re.match(r"rbd:.*:key=", value):
        return Argument(HIDDEN, secret=True)
    plain = _SWITCH.match(value) or (last in _PLAIN_KEY_SET and re.match(r"[\w.:/@+\[\]-]*\Z", value))
    return Argument(value if plain else HIDDEN)


def _url(text: str) -> Argument:
    """An address less its user, password, path and query."""
    found = _URL.match(text)
    if not found:
        return Argument(HIDDEN)
    scheme, user, host = found.groups()
    # iSCSI writes USER%PASSWORD@ (block/iscsi.c).
    secret = any(sign in (user or "") for sign in ":%")
    return Argument(f"{scheme}://{'' if user is None else HIDDEN + '@'}{host}/{HIDDEN}", secret)


def _json(value: str) -> Argument:
    """JSON (``json:`` in a file name), whose strings are shown by their keys; all of it is hidden where it is none."""
    prefix = "json:" if value.startswith("json:") else ""
    try:
        parsed = json.loads(value[len(prefix) :])
    except (ValueError, RecursionError):
        return Argument(HIDDEN)
    found: list[Argument] = []
    shown = _walk("", parsed, found)
    if isinstance(parsed, dict) and parsed.get("qom-type") == "secret" and "data" in parsed:
        found.append(Argument("", secret=True))
    return Argument(
        prefix + json.dumps(shown, ensure_ascii=False),
        secret=any(part.secret for part in found),
        paths=tuple(path for part in found for path in part.paths),
    )


def _walk(key: str, value: t.Any, found: list[Argument]) -> t.Any:
    if isinstance(value, dict):
        return {str(name): _walk(str(name), inner, found) for name, inner in value.items()}
    if isinstance(value, list):
        return [_walk(key, inner, found) for inner in value]
    if isinstance(value, str):
        part = _value(key, value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        part = _value(key, str(value))
        if part.shown != HIDDEN:
            return value
    else:
        return value
    found.append(part)
    return part.shown
