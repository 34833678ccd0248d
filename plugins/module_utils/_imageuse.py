# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of guests' images the host's own kernel looks into: loop and network block devices, mounts, device mapper.

Whoever controls a guest writes the file systems, partition tables and LVM metadata that are then read here.
"""

from __future__ import annotations

import os
import stat
import typing as t

from . import _proc
from ._mountinfo import Mount, is_below
from ._reader import Reader

_BLOCK = "/sys/block"
_NUMBERS = "/sys/dev/block"
_LIMIT = 100


def find(
    reader: Reader, sources: t.Mapping[str, t.Sequence[str]], pools: t.Sequence[str], mounts: t.Sequence[Mount]
) -> list[dict[str, t.Any]]:
    """The uses of images beside the guests', as ``{name, how, by, guests}``.

    :param sources: files and devices of guests -> whose.
    :param pools: directories of storage pools; what lies in them counts as an image, install media (.iso) aside.
    """
    found = [*_files(reader, sources, pools, mounts), *_devices(reader, sources, mounts), *_network(reader)]
    return found[:_LIMIT]


def loops(reader: Reader) -> list[dict[str, t.Any]]:
    """The loop devices that are set up (Documentation/ABI/testing/sysfs-block-loop)."""
    names = [name for name in reader.list(_BLOCK) if name.startswith("loop")]
    backed = [(name, reader.text(f"{_BLOCK}/{name}/loop/backing_file")) for name in names]
    return [{"name": f"/dev/{name}", "file": path} for name, path in backed if path][:_LIMIT]


def nbds(reader: Reader) -> list[dict[str, t.Any]]:
    """The network block devices that are connected, and what serves them."""
    found = []
    for name in (name for name in reader.list(_BLOCK) if name.startswith("nbd")):
        pid = reader.text(f"{_BLOCK}/{name}/pid")
        if pid and pid.isdigit():
            words = _proc.command_line(reader.host, int(pid))
            found.append(
                {"name": f"/dev/{name}", "pid": int(pid), "program": os.path.basename(words[0]) if words else ""}
            )
    return found[:_LIMIT]


def _files(
    reader: Reader, sources: t.Mapping[str, t.Sequence[str]], pools: t.Sequence[str], mounts: t.Sequence[Mount]
) -> t.Iterator[dict[str, t.Any]]:
    identities = {identity: path for path in sources if (identity := _identity(reader, path))}
    directories = [path for path in pools if path.startswith("/") and not path.startswith("/dev")]
    for loop in loops(reader):
        path = loop["file"].removesuffix(" (deleted)")
        image = identities.get(_identity(reader, path) or (0, 0)) or (path if path in sources else None)
        below = any(is_below(path, directory) for directory in directories)
        if image is None and (not below or path.lower().endswith(".iso")):
            continue
        block = loop["name"].rpartition("/")[2]
        yield {
            "name": image or path,
            "how": "mounted" if _mounted(reader, block, mounts) else "loop",
            "by": loop["name"],
            "guests": list(sources.get(image or path, [])),
        }


def _identity(reader: Reader, path: str) -> tuple[int, int] | None:
    try:
        status = reader.host.stat_optional(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status and stat.S_ISREG(status.st_mode) else None


def _devices(
    reader: Reader, sources: t.Mapping[str, t.Sequence[str]], mounts: t.Sequence[Mount]
) -> t.Iterator[dict[str, t.Any]]:
    for path, guests in sources.items():
        status = reader.host.stat_optional(path) if path.startswith("/dev/") else None
        if status is None or not stat.S_ISBLK(status.st_mode):
            continue
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        for part in _parts(reader, number):
            for holder in reader.list(f"{part}/holders"):
                name = reader.text(f"{_BLOCK}/{holder}/dm/name") or holder
                yield {"name": path, "how": "device mapper", "by": name, "guests": list(guests)}
            if _number(reader, part) in {mount.device for mount in mounts}:
                yield {"name": path, "how": "mounted", "by": number, "guests": list(guests)}


def _network(reader: Reader) -> t.Iterator[dict[str, t.Any]]:
    for device in nbds(reader):
        yield {"name": device["name"], "how": "nbd", "by": device["program"], "guests": []}


def _mounted(reader: Reader, block: str, mounts: t.Sequence[Mount]) -> bool:
    devices = {mount.device for mount in mounts}
    number = reader.text(f"{_BLOCK}/{block}/dev")
    return any(_number(reader, part) in devices for part in _parts(reader, number or ""))


def _parts(reader: Reader, number: str) -> list[str]:
    """The directories of a block device and of its partitions."""
    directory = f"{_NUMBERS}/{number}"
    partitions = [name for name in reader.list(directory) if reader.host.exists(f"{directory}/{name}/partition")]
    return [directory, *(f"{directory}/{name}" for name in partitions)]


def _number(reader: Reader, directory: str) -> str:
    return reader.text(f"{directory}/dev") or ""
