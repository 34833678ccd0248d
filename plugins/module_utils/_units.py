# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a state come back at the next boot: systemd units, drop-ins and tmpfiles.d(5)."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ._host import HardeningError, Host, HostError

if t.TYPE_CHECKING:
    from ._journal import Journal

DIRECTORY = "/etc/systemd/system"
# systemd.unit(5), the first one wins; the generator's units are those of fstab(5).
SEARCH = (
    DIRECTORY,
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
HEADER = "# Written by hypervisor.hardening. Changes made here are lost at its next run.\n"

# What needs no quoting in a unit, in tmpfiles.d and among mount options.
_PLAIN = re.compile(r"/[A-Za-z0-9/._+@:-]*")


class NoMechanism(HardeningError):
    """There is no known way to keep a state over a reboot."""


@dataclass(frozen=True)
class Boot:
    """Who brings this host up. ``init`` is ``systemd`` or the name of PID 1's program; ``container`` its manager's."""

    init: str
    container: str

    def require_systemd(self, otherwise: str) -> None:
        """Raise NoMechanism on another init.

        :param otherwise: what to do instead.
        """
        if self.init != "systemd":
            raise NoMechanism(
                f"persist: PID 1 of this host is {self.init}, not systemd, and no way is known to repeat this at its "
                f"boot. Set persist to false, and {otherwise}."
            )


@dataclass(frozen=True)
class File:
    """A file that should be there with this text, or not at all (None).

    ``wanted_by``: the unit whose start starts this one, for a unit with an [Install] section.
    """

    path: str
    text: str | None
    wanted_by: str = ""

    @property
    def unit(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def link(self) -> str:
        """The symlink by which ``systemctl enable`` makes it start at boot; "" for none."""
        return f"{DIRECTORY}/{self.wanted_by}.wants/{self.unit}" if self.wanted_by else ""


@dataclass(frozen=True)
class Change:
    """A file that is not as it should be, and what is there instead."""

    file: File
    before: str | None
    enabled: bool

    def __str__(self) -> str:
        if self.file.text is None:
            return f"{self.file.path} is still there"
        if self.before == self.file.text:
            return f"{self.file.unit} is not enabled"
        return f"{self.file.path} {'is missing' if self.before is None else 'has other content'}"

    @property
    def diff(self) -> dict[str, str]:
        enabled = "# enabled\n" if self.file.wanted_by else ""
        return {
            "before_header": self.file.path,
            "after_header": self.file.path,
            "before": (self.before or "") + (enabled if self.enabled else ""),
            "after": "" if self.file.text is None else self.file.text + enabled,
        }


def boot(host: Host) -> Boot:
    """Who brings this host up (sd_booted(3); systemd keeps the manager of its container in /run/systemd/container)."""
    if host.exists("/run/systemd/system"):
        return Boot("systemd", (host.text_optional("/run/systemd/container") or "").strip())
    return Boot((host.text_optional("/proc/1/comm") or "unknown").strip(), "")


def escape(path: str) -> str:
    """A path as systemd writes it in unit names (systemd.unit(5), String Escaping for Inclusion in Unit Names)."""
    trimmed = "/".join(part for part in path.split("/") if part)
    if not trimmed:
        return "-"
    data = trimmed.encode("utf-8", "surrogateescape")
    return "".join(_escaped(byte, first=index == 0) for index, byte in enumerate(data))


def _escaped(byte: int, *, first: bool) -> str:
    char = chr(byte)
    if char == "/":
        return "-"
    if (char.isascii() and char.isalnum()) or char in ":_" or (char == "." and not first):
        return char
    return f"\\x{byte:02x}"


def require_plain(path: str) -> None:
    """Refuse a path that would need quoting in a unit.

    :raises HardeningError: it holds anything but letters, digits and . _ + @ : -
    """
    if not _PLAIN.fullmatch(path):
        raise HardeningError(
            f"{path!r} cannot be used: systemd's units and mount options take letters, digits and . _ + @ : - in an "
            "absolute path as they are, and nothing else. Choose another path."
        )


def fragments(host: Host, unit: str) -> list[str]:
    """The files that define a unit; the first one counts. A masked unit's is a symlink to /dev/null."""
    paths = (f"{place}/{unit}" for place in SEARCH)
    return [path for path in paths if host.stat_optional(path, follow=False)]


def is_masked(host: Host, path: str) -> bool:
    """Whether a unit's file is the symlink to /dev/null by which ``systemctl mask`` forbids its start."""
    try:
        return host.readlink(path) == "/dev/null"
    except OSError:
        return False


def last_value(host: Host, unit: str, key: str, *, without: str = "") -> str:
    """What a unit and its drop-ins assign to ``key`` last, "" for nothing.

    Drop-ins are read in the order of their names, whatever their directories (systemd.unit(5)).

    :param without: the name of a drop-in that does not count.
    """
    main = fragments(host, unit)[:1]
    places = {name: f"{place}/{unit}.d/{name}" for place in reversed(SEARCH) for name in host.list(f"{place}/{unit}.d")}
    paths = [*main, *(path for name, path in sorted(places.items()) if name.endswith(".conf") and name != without)]
    lines = (line.partition("=") for path in paths for line in (host.text_optional(path) or "").split("\n"))
    return ([""] + [value.strip() for name, _equals, value in lines if name.strip() == key])[-1]


def changes(host: Host, files: t.Iterable[File]) -> tuple[Change, ...]:
    """Those of ``files`` that are not as they should be. Reads only."""
    return tuple(change for change in (_change(host, file) for file in files) if change)


def _change(host: Host, file: File) -> Change | None:
    before = host.text_optional(file.path)
    enabled = bool(file.link) and host.stat_optional(file.link, follow=False) is not None
    present = file.text is not None
    if before == file.text and enabled == (present and bool(file.link)):
        return None
    return Change(file, before, enabled)


def check(host: Host, changes: t.Iterable[Change]) -> None:
    """Raise HostError where a file could not be written. Changes nothing."""
    for change in changes:
        path = change.file.path
        while not host.exists(path.rpartition("/")[0]):
            path = path.rpartition("/")[0]
        host.check_writable(path)


def apply(host: Host, changes: t.Sequence[Change], journal: Journal) -> None:
    """Write, remove and enable, journal first; then have systemd read its units again.

    :raises HostError: systemctl refused, with its own words.
    """
    write(host, changes, journal)
    if changes:
        _systemctl(host, "daemon-reload")
    enable = [change.file.unit for change in changes if change.file.wanted_by and change.file.text is not None]
    for change in changes:
        if change.file.unit in enable and not change.enabled:
            journal.make_directory(change.file.link.rpartition("/")[0])
            journal.record_value(f"link:{change.file.link}", None, change.file.path)
    if enable:
        _systemctl(host, "enable", "--quiet", "--", *enable)
        host.changed = True


def write(host: Host, changes: t.Iterable[Change], journal: Journal) -> None:
    """Write and remove files, journal first: all there is to do for those that are no units."""
    for change in changes:
        path, text = change.file.path, change.file.text
        if text is None:
            journal.record_file(path, None)
            if change.enabled:
                journal.record_value(f"link:{change.file.link}", host.readlink(change.file.link), None)
                host.remove(change.file.link)
            host.remove(path)
        elif text != change.before:
            journal.make_directory(path.rpartition("/")[0])
            journal.record_file(path, text.encode())
            before = (change.before or "").encode("utf-8", "surrogateescape")
            host.write(path, text.encode(), expected=before, mode=0o644)


def _systemctl(host: Host, *words: str) -> None:
    done = host.run(["systemctl", *words])
    if done.rc != 0:
        raise HostError(f"systemctl {' '.join(words)} failed: {(done.err or done.out).strip()}")
