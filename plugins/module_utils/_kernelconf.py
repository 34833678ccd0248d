# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the next boot will give the kernel: its command line, modprobe.d(5) and sysctl.d(5)."""

from __future__ import annotations

import fnmatch
import re
import typing as t
from dataclasses import dataclass, field

from ._reader import Reader

# modprobe.d(5): a file shadows those of its name in the directories after it.
_BELOW = ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
_MODPROBE = tuple(f"{parent}/modprobe.d" for parent in _BELOW)
# sysctl.d(5). /etc/sysctl.conf counts where a distribution links it into one of these.
_SYSCTL = tuple(f"{parent}/sysctl.d" for parent in _BELOW)
_GRUB = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
_GRUB_ENVIRONMENT = "/boot/grub2/grubenv"
_ENTRIES = "/boot/loader/entries"
_KERNEL_CMDLINE = "/etc/kernel/cmdline"

_LINUX_RE = re.compile(r"^\s*linux(?:16|efi)?\s+\S+(.*)$", re.MULTILINE)
_OPTIONS_RE = re.compile(r"^options\s+(.*)$", re.MULTILINE)
_RESCUE = {"single", "rescue", "emergency", "recovery", "systemd.unit=rescue.target", "systemd.unit=emergency.target"}
# modprobe.d(5): "install MODULE COMMAND" replaces loading by a command; these load nothing.
_NOTHING = {"true", "false", ":"}


@dataclass(frozen=True)
class Setting:
    """A configured value and the file that sets it."""

    value: str
    path: str


@dataclass(frozen=True)
class Modprobe:
    """modprobe.d: ``options`` by (module, parameter); who blacklists a module, and who keeps it from loading at all."""

    options: dict[tuple[str, str], Setting] = field(default_factory=dict)
    blacklisted: dict[str, str] = field(default_factory=dict)
    disabled: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Boot:
    """The command line that the boot loader's configuration holds. ``words`` None: not known, for ``reason``."""

    words: tuple[str, ...] | None
    path: str | None
    reason: str


def words(command_line: str) -> tuple[str, ...]:
    """The parameters of a kernel command line; double quotes protect blanks (lib/cmdline.c, next_arg)."""
    found = re.findall(r'(?:"[^"]*"|[^\s"])+', command_line)
    return tuple(word.replace('"', "") for word in found)


def module_options(parameters: t.Iterable[str], path: str) -> dict[tuple[str, str], Setting]:
    """The ``MODULE.PARAMETER=VALUE`` among the words of a command line; the last one counts, no value means 1."""
    found = {}
    for word in parameters:
        name, equals, value = word.partition("=")
        module, dot, parameter = name.partition(".")
        if dot:
            found[module.replace("-", "_"), parameter.replace("-", "_")] = Setting(value if equals else "1", path)
    return found


def by_command_line(boot: Boot, running: t.Sequence[str]) -> dict[tuple[str, str], Setting]:
    """The parameters of modules on the next boot's command line; where that is not known, on the running kernel's.

    libkmod appends the command line to what modprobe.d says, so that it counts.
    """
    if boot.words is None:
        return module_options(running, "/proc/cmdline")
    return module_options(boot.words, boot.path or "")


def modprobe(reader: Reader) -> Modprobe:
    """What modprobe.d says; of several values of a parameter the kernel takes the last one."""
    found = Modprobe()
    for path in _fragments(reader, _MODPROBE):
        for line in re.sub(r"\\\n", " ", reader.text(path) or "").splitlines():
            parts = line.split("#", 1)[0].split()
            if len(parts) > 1:
                _directive(found, parts[0], parts[1].replace("-", "_"), parts[2:], path)
    return found


def _directive(found: Modprobe, directive: str, module: str, rest: list[str], path: str) -> None:
    if directive == "options":
        for word in rest:
            name, equals, value = word.partition("=")
            found.options[module, name.replace("-", "_")] = Setting(value if equals else "1", path)
    elif directive == "blacklist":
        found.blacklisted[module] = path
    elif directive == "install" and rest and rest[0].rpartition("/")[2] in _NOTHING:
        found.disabled[module] = path


def sysctls(reader: Reader, names: t.Iterable[str], *, without: str = "") -> dict[str, Setting]:
    """What sysctl.d sets of these kernel parameters (their names with dots); an exact name beats a pattern.

    :param without: the path of a file that does not count.
    """
    exact: dict[str, Setting] = {}
    patterns: dict[str, Setting] = {}
    for key, setting in _sysctl_lines(reader, without):
        (patterns if any(sign in key for sign in "*?[") else exact)[key] = setting
    found = {}
    for name in names:
        matching = [setting for pattern, setting in patterns.items() if fnmatch.fnmatchcase(name, pattern)]
        if name in exact or matching:
            found[name] = exact.get(name) or matching[-1]
    return found


def later_sysctls(reader: Reader, names: t.Collection[str], path: str) -> dict[str, Setting]:
    """What files of sysctl.d that are read after ``path`` set of these parameters by their exact names."""
    after = path.rpartition("/")[2]
    lines = _sysctl_lines(reader, path)
    return {key: found for key, found in lines if key in names and found.path.rpartition("/")[2] > after}


def _sysctl_lines(reader: Reader, without: str) -> t.Iterator[tuple[str, Setting]]:
    for path in _fragments(reader, _SYSCTL):
        for line in (reader.text(path) or "").splitlines() if path != without else ():
            key, equals, value = line.strip().partition("=")
            key = key.strip().lstrip("-").strip()
            if equals and not key.startswith(("#", ";")):
                yield dotted(key), Setting(value.strip(), path)


def dotted(key: str) -> str:
    """The name of a kernel parameter with dots, in whichever of its two forms it is given."""
    # sysctl.d(5): if the first separator is a slash, slashes and dots change places.
    first = re.search(r"[./]", key)
    return key.translate({ord("."): "/", ord("/"): "."}) if first and first[0] == "/" else key


def boot(reader: Reader) -> Boot:
    """What the boot loader is configured to give the kernel.

    Entries for rescue aside, all entries must agree in what tells of security (``telling``): which of them is booted
    is the boot loader's affair.
    """
    for path, lines in _boot_lines(reader):
        if not lines:
            continue
        choices = {telling(words(line)) for line in lines}
        if len(choices) > 1:
            return Boot(None, path, "The entries of the boot loader differ in what matters here.")
        return Boot(choices.pop(), path, "")
    return Boot(None, None, "No configuration of a known boot loader was found.")


def _boot_lines(reader: Reader) -> t.Iterator[tuple[str, list[str]]]:
    for path in _GRUB:
        yield path, _usual(_LINUX_RE.findall(reader.text(path) or ""))
    variables = dict(re.findall(r"^(\w+)=(.*)$", reader.text(_GRUB_ENVIRONMENT) or "", re.MULTILINE))
    lines = []
    for name in reader.list(_ENTRIES):
        if name.endswith(".conf") and "rescue" not in name:
            line = " ".join(_OPTIONS_RE.findall(reader.text(f"{_ENTRIES}/{name}") or ""))
            lines.append(re.sub(r"\$(\w+)", lambda match: variables.get(match[1], ""), line))
    yield _ENTRIES, _usual(lines)
    text = reader.text(_KERNEL_CMDLINE)
    yield _KERNEL_CMDLINE, [] if text is None else [text]


def _usual(lines: list[str]) -> list[str]:
    return [line for line in lines if not _RESCUE & set(words(line))]


_TELLING_RE = re.compile(
    r"(?:mitigations|no?spec\w*|nopti|pti|kpti|spec\w*|l1tf|l1d_flush|mds|tsx\w*|mmio_stale_data|reg_file_data_sampling"
    r"|gather_data_sampling|retbleed|srbds|tsa|vmscape|indirect_target_selection|nosmt|kvm[\w-]*\..+|vfio\w*\..+"
    r"|iommufd\..+|iommu(?:\..+)?|intel_iommu|amd_iommu|pcie_acs_override|nested\w*|lockdown|module\..+|security|lsm"
    r"|apparmor|selinux|enforcing|crashkernel|modprobe\.blacklist|module_blacklist|init_on_\w+|slab_\w+|nokaslr"
    r"|randomize_kstack_offset|page_poison|(?:default_)?hugepagesz?|audit|fips|mem_encrypt|efi|vsyscall|debugfs)"
)


def telling(parameters: t.Iterable[str]) -> tuple[str, ...]:
    """The words of a command line that tell of security. The others may hold passwords (those of iSCSI do)."""
    return tuple(word for word in parameters if _TELLING_RE.fullmatch(word.partition("=")[0]))


def _fragments(reader: Reader, directories: t.Sequence[str]) -> list[str]:
    """The ``*.conf`` of several directories in the order of their names, each from the first that has it."""
    found: dict[str, str] = {}
    for directory in directories:
        for name in reader.list(directory):
            if name.endswith(".conf"):
                found.setdefault(name, f"{directory}/{name}")
    return [found[name] for name in sorted(found)]
