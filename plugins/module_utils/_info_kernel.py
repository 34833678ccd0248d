# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the kernel: how it runs, and what its next boot is configured to be."""

from __future__ import annotations

import re
import typing as t

from . import _kernelconf, _packages
from ._infocontext import Context
from ._reader import Reader, integer, scalar, truth

_MODULES = ("/usr/lib/modules", "/lib/modules")
_EFI = "/sys/firmware/efi"
# UEFI specification, EFI_GLOBAL_VARIABLE
_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
# tainted-kernels.rst, bit 0 first; a P stands for a module that is not free.
_TAINTS = "PFSRMBUDAWCIOELKXTNJ"

# Whose presence tells something; the first ones are those that guests cannot do without.
_NAMED = (
    *("kvm", "kvm_intel", "kvm_amd", "tun", "vhost_net", "bridge"),
    *("vfio", "vfio_pci", "vfio_iommu_type1", "iommufd", "vhost_vsock", "nbd", "vhost_scsi"),
)
# Documentation/admin-guide/kernel-parameters.txt; True: a switch.
_PARAMETERS: dict[str, bool] = {
    "kvm.nested": True,  # s390
    "kvm.ignore_msrs": True,
    "kvm.report_ignored_msrs": True,
    "kvm.enable_vmware_backdoor": True,
    "kvm.enable_pmu": True,
    "kvm.mitigate_smt_rsb": True,
    "kvm.nx_huge_pages": False,
    "kvm_intel.nested": True,
    "kvm_intel.ept": True,
    "kvm_intel.vmentry_l1d_flush": False,
    "kvm_intel.tdx": True,
    "kvm_amd.nested": True,
    "kvm_amd.npt": True,
    "kvm_amd.sev": True,
    "kvm_amd.sev_es": True,
    "kvm_amd.sev_snp": True,
    "vfio.enable_unsafe_noiommu_mode": True,
    "vfio_iommu_type1.allow_unsafe_interrupts": True,
    "iommufd.allow_unsafe_interrupts": True,
}
_SYSCTLS = (
    *("kernel.kptr_restrict", "kernel.dmesg_restrict", "kernel.perf_event_paranoid", "kernel.yama.ptrace_scope"),
    *(
        "kernel.unprivileged_bpf_disabled",
        "kernel.kexec_load_disabled",
        "kernel.randomize_va_space",
        "kernel.core_pattern",
    ),
    *("kernel.modules_disabled", "kernel.unprivileged_userns_clone", "kernel.apparmor_restrict_unprivileged_userns"),
    *("net.core.bpf_jit_harden", "dev.tty.ldisc_autoload", "vm.unprivileged_userfaultfd", "fs.suid_dumpable"),
    *("fs.protected_hardlinks", "fs.protected_symlinks", "user.max_user_namespaces"),
    *("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.all.disable_ipv6"),
    *("net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter"),
    *(f"net.bridge.bridge-nf-call-{tables}" for tables in ("iptables", "ip6tables", "arptables")),
)


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``kernel``; its keys are documented in hypervisor_info.

    :raises OSError: /proc cannot be read.
    """
    reader = Reader(context.host)
    release = context.host.text("/proc/sys/kernel/osrelease").strip()
    running = _kernelconf.words(context.host.text("/proc/cmdline"))
    told = _kernelconf.telling(running)
    boot = _kernelconf.boot(reader)
    if boot.words is None:
        reader.note(boot.path or "/boot", boot.reason)
    modprobe = _kernelconf.modprobe(reader)
    installed = _installed(reader)
    return {
        "release": release,
        "cmdline": {
            "running": list(told),
            "left_out": len(running) - len(told),
            "configured": None if boot.words is None else list(boot.words),
            "configured_by": boot.path,
        },
        "installed": installed,
        "newest": max((name for name in installed if _flavour(name) == _flavour(release)), key=_order, default=None),
        "reboot": _reboot(reader, release, installed, context.packages.packages),
        "modules": [_module(reader, name, modprobe) for name in _NAMED],
        "parameters": list(_parameters(reader, modprobe, running, boot)),
        "sysctls": _sysctls(reader),
        "lockdown": _lockdown(reader),
        "secure_boot": _secure_boot(reader),
        "sig_enforce": reader.truth("/sys/module/module/parameters/sig_enforce"),
        "taint": _taint(reader),
        "core": _core(reader),
        "kdump": _kdump(reader),
        "unread": reader.unread,
    }


def _installed(reader: Reader) -> list[str]:
    """The releases that have modules and an image to boot; what a removed package leaves has neither."""
    names = {(name, f"{directory}/{name}") for directory in _MODULES for name in reader.list(directory)}
    exists = reader.host.exists
    return sorted(
        {
            name
            for name, path in names
            if exists(f"{path}/modules.dep")
            and any(map(exists, (f"{path}/vmlinuz", f"/boot/vmlinuz-{name}", f"/boot/vmlinux-{name}")))
        },
        key=_order,
    )


def _order(release: str) -> tuple[tuple[int, ...], str]:
    """What a release is sorted by: 6.1.0-18-amd64 and 5.14.0-427.13.1.el9_4.x86_64 begin with their version."""
    numbers = re.match(r"\d+(?:[.-]\d+)*", release)
    return tuple(map(int, re.split("[.-]", numbers[0]))) if numbers else (), release


def _flavour(release: str) -> str:
    """What is not version: a cloud, realtime or debug kernel is no later one of another flavour."""
    return re.sub(r"\d+", "", re.sub(r"^\d+(?:[.-]\d+)*", "", release))


def _reboot(
    reader: Reader, release: str, installed: t.Sequence[str], packages: t.Sequence[_packages.Package]
) -> dict[str, t.Any]:
    reasons = []
    newer = [name for name in installed if _flavour(name) == _flavour(release) and _order(name) > _order(release)]
    if newer:
        reasons.append(f"The kernel {newer[-1]} is installed, {release} is running.")
    if installed and release not in installed:
        reasons.append(f"The running kernel {release} is not installed any more.")
    # Debian's kernel names its package's version, which rises without a new release.
    built = re.search(r" Debian (\d\S+)", reader.text("/proc/version") or "")
    for package in packages:
        if built and package.name == f"linux-image-{release}" and package.version != built[1]:
            reasons.append(f"{package.name} {package.version} is installed, {built[1]} is running.")
    if reader.host.exists("/run/reboot-required"):
        wanting = sorted(set((reader.text("/run/reboot-required.pkgs") or "").split()))
        reasons.append(" ".join(["/run/reboot-required is there.", *(["For:", *wanting[:20]] if wanting else [])]))
    if not reasons and not installed:
        reader.note(_MODULES[0], "No kernel is installed here, so none can wait for a reboot or not.")
    return {"required": True if reasons else False if installed else None, "reasons": reasons}


def _module(reader: Reader, name: str, modprobe: _kernelconf.Modprobe) -> dict[str, t.Any]:
    return {
        "name": name,
        "loaded": reader.host.exists(f"/sys/module/{name}"),
        "blacklisted_by": modprobe.blacklisted.get(name),
        "disabled_by": modprobe.disabled.get(name),
    }


def _parameters(
    reader: Reader, modprobe: _kernelconf.Modprobe, running: t.Sequence[str], boot: _kernelconf.Boot
) -> t.Iterator[dict[str, t.Any]]:
    of_boot = _kernelconf.by_command_line(boot, running)
    for name, switch in _PARAMETERS.items():
        module, _dot, parameter = name.partition(".")
        value = reader.text(f"/sys/module/{module}/parameters/{parameter}")
        setting = of_boot.get((module, parameter)) or modprobe.options.get((module, parameter))
        if value is None and setting is None:
            continue
        yield {
            "name": name,
            "module": module,
            "loaded": reader.host.exists(f"/sys/module/{module}"),
            "running": None if value is None else _value(value, switch),
            "configured": None if setting is None else _value(setting.value, switch),
            "configured_by": None if setting is None else setting.path,
        }


def _value(text: str, switch: bool) -> t.Any:
    value = truth(text) if switch else None
    return text if value is None else value


def _sysctls(reader: Reader) -> list[dict[str, t.Any]]:
    configured = _kernelconf.sysctls(reader, _SYSCTLS)
    found = []
    for name in _SYSCTLS:
        path = "/proc/sys/" + name.replace(".", "/")
        text = reader.text(path)
        setting = configured.get(name)
        found.append(
            {
                "name": name,
                "present": reader.host.exists(path),
                "running": None if text is None else scalar(text),
                "configured": None if setting is None else scalar(setting.value),
                "configured_by": None if setting is None else setting.path,
            }
        )
    return found


def _lockdown(reader: Reader) -> str | None:
    """``none``, ``integrity``, ``confidentiality`` (kernel_lockdown(7)), ``unsupported``; None where nothing tells."""
    text = reader.text("/sys/kernel/security/lockdown")
    if text is not None:
        found = re.search(r"\[(\w+)\]", text)
        return found[1] if found else None
    if reader.list("/sys/kernel/security"):
        return "unsupported"
    reader.note("/sys/kernel/security/lockdown", "securityfs is not mounted, or this kernel has no lockdown.")
    return None


def _secure_boot(reader: Reader) -> dict[str, t.Any]:
    if not reader.host.exists(_EFI):
        return {"efi": False, "enabled": False, "setup_mode": None}
    enabled, setup = (_efi_variable(reader, name) for name in ("SecureBoot", "SetupMode"))
    if enabled is None:
        reader.note(f"{_EFI}/efivars", "The variable SecureBoot is not to be had: is efivarfs mounted?")
    return {"efi": True, "enabled": enabled, "setup_mode": setup}


def _efi_variable(reader: Reader, name: str) -> bool | None:
    """A variable of one byte; efivarfs puts four bytes of attributes before it (Documentation/filesystems/efivarfs)."""
    try:
        data = reader.host.read_optional(f"{_EFI}/efivars/{name}-{_GLOBAL}")
    except OSError:
        return None
    return None if data is None or len(data) != 5 else data[4] == 1


def _taint(reader: Reader) -> dict[str, t.Any]:
    value = reader.number("/proc/sys/kernel/tainted")
    flags = [] if value is None else [letter for bit, letter in enumerate(_TAINTS) if value >> bit & 1]
    return {"value": value, "flags": flags}


def _core(reader: Reader) -> dict[str, t.Any]:
    """core(5); coredump.conf(5)."""
    pattern = reader.text("/proc/sys/kernel/core_pattern")
    if pattern is None:
        handler = None
    elif pattern.startswith("|"):
        handler = pattern[1:].split()[0].rpartition("/")[2] if pattern[1:].split() else ""
    else:
        handler = "file" if pattern else "none"
    storage = None
    if handler == "systemd-coredump":
        paths = ["/usr/lib/systemd/coredump.conf", "/etc/systemd/coredump.conf"]
        for directory in ("/usr/lib/systemd/coredump.conf.d", "/etc/systemd/coredump.conf.d"):
            paths += [f"{directory}/{name}" for name in reader.list(directory) if name.endswith(".conf")]
        texts = (reader.text(path) or "" for path in paths)
        said = [value for text in texts for value in re.findall(r"^Storage=(\w+)", text, re.MULTILINE)]
        storage = said[-1] if said else "external"  # coredump.conf(5): the default
    return {"pattern": pattern, "handler": handler, "storage": storage}


def _kdump(reader: Reader) -> dict[str, t.Any]:
    """Documentation/admin-guide/kdump; makedumpfile(8): 31 leaves out pages of user space, and so guests' memory."""
    level, source = None, None
    for path, pattern in (
        ("/etc/kdump.conf", r"^\s*core_collector\s+.*\s-d\s*(\d+)"),
        ("/etc/default/kdump-tools", r"^\s*MAKEDUMP_ARGS=.*-d\s*(\d+)"),
        ("/etc/sysconfig/kdump", r"^\s*KDUMP_DUMPLEVEL=\"?(\d+)"),
    ):
        text = reader.text(path)
        if text is None:
            continue
        source = source or path
        said = re.findall(pattern, text, re.MULTILINE)
        if said:
            level, source = integer(said[-1]), path
            break
    return {
        "loaded": reader.truth("/sys/kernel/kexec_crash_loaded") or False,
        "dump_level": level,
        "configured_by": source,
    }
