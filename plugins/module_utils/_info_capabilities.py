# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the running libvirt says of itself over a read-only connection, and what the kernel has of SEV."""

from __future__ import annotations

import re
import typing as t

from . import _cpumap, _qemu
from ._host import HardeningError, Host, HostError
from ._infocontext import Context
from ._libvirtd import CONNECT_SECONDS

if t.TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_KVM_AMD = "/sys/module/kvm_amd/parameters"
_VALIDATE = "virt-qemu-sev-validate"
_MACHINE_RE = re.compile(r"(.+)-(\d[\d.]*)")
_DAC_RE = re.compile(r"\+(\d+):\+(\d+)")


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``capabilities``; its keys are documented in hypervisor_info."""
    answer, reason = context.answer
    host_xml, domain_xml = (_parsed(answer.get(key)) for key in ("capabilities", "domain"))
    secmodels = _secmodels(host_xml)
    iommu = None if host_xml is None else host_xml.find("host/iommu")
    return {
        "connected": bool(answer),
        "reason": reason,
        "libvirt_version": _version(answer.get("libvirt")),
        "qemu_version": _version(answer.get("qemu")),
        "host_uuid": None if host_xml is None else host_xml.findtext("host/uuid"),
        "host_uuid_configured": _setting(context, "host_uuid"),
        "host_uuid_source": _setting(context, "host_uuid_source"),
        "secmodels": secmodels,
        "mac": None
        if secmodels is None
        else [one["model"] for one in secmodels if one["model"] not in ("dac", "none")],
        "dac": _dac(context, secmodels),
        "iommu": None if iommu is None else iommu.get("support") == "yes",
        "machine_default": None if domain_xml is None else domain_xml.findtext("machine"),
        "machines": _machines(host_xml),
        "cpu_features": cpu_features(context),
        "machines_deprecated": _deprecated(context, host_xml),
        "domain_type": None if domain_xml is None else domain_xml.findtext("domain"),
        "firmware": None if domain_xml is None else _enum(domain_xml, "os/enum", "firmware"),
        "secure_boot": None if domain_xml is None else "yes" in _enum(domain_xml, "os/loader/enum", "secure"),
        "launch_security": None if domain_xml is None else _enum(domain_xml, "features/launchSecurity/enum", "sectype"),
        "sev": _sev(context, domain_xml, reason),
        "sev_snp": _sev_snp(context, domain_xml, answer.get("libvirt"), reason),
        "sev_device": context.host.exists("/dev/sev"),
        "sev_validate": context.host.has_command(_VALIDATE),
    }


def _deprecated(context: Context, document: Element | None) -> list[str] | None:
    """The machine types of guests that QEMU means to drop (formatcaps.rst); None where one of the two is not known."""
    if document is None:
        return None
    try:
        read, _unread = context.definitions
    except HardeningError:
        return None
    used = {one.definition.machine for one in read}
    machines = document.findall("guest/arch/machine") + document.findall("guest/arch/domain/machine")
    return sorted({entry.text or "" for entry in machines if entry.get("deprecated") == "yes"} & used)


def ask(context: Context) -> tuple[dict[str, t.Any], str]:
    """What libvirt answers (versions and documents), or nothing and why not. ``Context.answer`` asks once."""
    layout = context.layout
    if layout.kind == "none":
        return {}, "libvirt is not installed."
    if layout.suspended:
        return {}, f"{layout.daemon} is suspended and would not answer."
    if not layout.active and not layout.idle:
        return {}, f"{layout.daemon} does not run, and nothing listens for it."
    if layout.idle and not context.connect:
        return {}, f"{layout.daemon} is idle and was not woken (connect: false)."
    if _elsewhere(context.host):
        return {}, "This is not the host's own root directory."
    try:
        found = context.host.in_child(lambda: _ask(layout.uri), timeout=CONNECT_SECONDS)
    except (HardeningError, OSError) as error:
        return {}, f"No connection to {layout.daemon}: {error}"
    return t.cast("dict[str, t.Any]", found), ""


def _elsewhere(host: Host) -> bool:
    """Whether paths are below another directory, where libvirt's client would not look for sockets."""
    return host.root != ""


def _ask(uri: str) -> dict[str, t.Any]:
    """In a child: the versions as numbers, and two documents."""
    try:
        import libvirt
    except ImportError:
        raise HostError("python3-libvirt is not installed for this interpreter.") from None
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.openReadOnly(uri)
        return {
            "libvirt": connection.getLibVersion(),
            "qemu": connection.getVersion(),
            "capabilities": connection.getCapabilities(),
            "domain": _domain_capabilities(uri),
        }
    except libvirt.libvirtError as error:
        raise HostError(str(error)) from None


def _domain_capabilities(uri: str) -> str | None:
    """What libvirt tells of guests of the host's own architecture.

    Asked over another connection: libvirt refuses this on a read-only one, as a client may name a program to be run
    (CVE-2019-10167), which is not done here.
    """
    import libvirt

    try:
        return str(libvirt.open(uri).getDomainCapabilities(None, None, None, None, 0))
    except libvirt.libvirtError:  # no emulator for the host's architecture, or root has to authenticate
        return None


def _parsed(text: str | None) -> Element | None:
    from xml.etree import ElementTree

    return None if text is None else ElementTree.fromstring(text)


def _version(number: int | None) -> str | None:
    """libvirt's virConnectGetVersion: 1000000 * major + 1000 * minor + micro."""
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}" if number else None


def _enum(document: Element, path: str, name: str) -> list[str]:
    found = (entry for entry in document.findall(path) if entry.get("name") == name)
    return [value.text or "" for entry in found for value in entry.findall("value")]


def _secmodels(document: Element | None) -> list[dict[str, t.Any]] | None:
    if document is None:
        return None
    return [
        {
            "model": model.findtext("model") or "",
            "doi": model.findtext("doi") or "",
            "baselabels": {label.get("type", ""): label.text or "" for label in model.findall("baselabel")},
        }
        for model in document.findall("host/secmodel")
    ]


def _machines(document: Element | None) -> dict[str, list[str]] | None:
    """The machine types of guests of the host's own architecture, the names that stand for another one left out: what
    comes before a version -> the versions, which is short."""
    arch = None if document is None else document.findtext("host/cpu/arch")
    if document is None or not arch:
        return None
    found = document.findall(f"guest/arch[@name='{arch}']/machine")
    versions: dict[str, list[str]] = {}
    for name in sorted({machine.text or "" for machine in found if machine.get("canonical") is None}):
        match = _MACHINE_RE.fullmatch(name)
        versions.setdefault(match[1] if match else name, []).append(match[2] if match else "")
    return versions


def cpu_features(context: Context) -> list[str] | None:
    """What a guest's processor can have here at most (libvirt's host-model); None where libvirt does not tell."""
    document = _parsed(context.answer[0].get("domain"))
    mode = None if document is None else document.find("cpu/mode[@name='host-model']")
    return None if mode is None else _cpumap.of_element(context.host, mode)


def _dac(context: Context, secmodels: list[dict[str, t.Any]] | None) -> dict[str, t.Any]:
    """The numbers that QEMU runs as: by libvirt's word, otherwise by what the host shows of its last start."""
    for model in secmodels or ():
        found = [_DAC_RE.fullmatch(label) for label in model["baselabels"].values() if model["model"] == "dac"]
        for match in found:
            if match:
                return {"uid": int(match[1]), "gid": int(match[2]), "source": "capabilities"}
    uid, gid, source = None, None, ""
    if context.layout.kind != "none":
        uid, gid, source = _qemu.user(context.host, context.configuration("qemu.conf"))
    return {"uid": uid, "gid": gid, "source": source}


def _setting(context: Context, key: str) -> t.Any:
    """A setting of the daemon that drives QEMU."""
    daemon = context.layout.daemon
    return context.configuration(f"{daemon}.conf").get(key) if daemon else None


def _sev(context: Context, document: Element | None, reason: str) -> dict[str, t.Any]:
    """AMD SEV (formatdomaincaps.rst): by libvirt's word, otherwise by what the kernel has not."""
    kernel = {name: _parameter(context.host, name) for name in ("sev", "sev_es", "sev_snp")}
    if document is not None:
        found = document.find("features/sev")
        if found is None:
            return {"state": "absent", "source": "domain capabilities: no element sev", "kernel": kernel}
        word = found.get("supported")
        state = "present" if word == "yes" else "absent"
        return {"state": state, "source": f"domain capabilities: <sev supported='{word}'/>", "kernel": kernel}
    return {**_without_libvirt(context, "sev", reason), "kernel": kernel}


def _sev_snp(context: Context, document: Element | None, version: int | None, reason: str) -> dict[str, str]:
    """SEV-SNP: the element launchSecurity lists it from libvirt 10.5.0 on (formatdomaincaps.rst, NEWS.rst)."""
    if document is None:
        return _without_libvirt(context, "sev_snp", reason)
    security = document.find("features/launchSecurity")
    if security is not None:
        present = "sev-snp" in _enum(document, "features/launchSecurity/enum", "sectype")
        words = f"launchSecurity has {'' if present else 'no '}sectype sev-snp"
        return {"state": "present" if present else "absent", "source": f"domain capabilities: {words}"}
    if version is not None and version < 10005000:
        return {"state": "absent", "source": f"libvirt {_version(version)}: launchSecurity sev-snp is of 10.5.0"}
    sev = document.find("features/sev")
    if sev is None or sev.get("supported") != "yes":
        return {"state": "absent", "source": "domain capabilities: no sev, which sev-snp is built on"}
    return {"state": "unknown", "source": "domain capabilities have no element launchSecurity"}


def _without_libvirt(context: Context, parameter: str, reason: str) -> dict[str, str]:
    """The kernel can rule it out, but not promise it: QEMU and libvirt have to know it, too."""
    if not context.host.exists("/dev/sev") and _parameter(context.host, parameter) is not True:
        value = _parameter(context.host, parameter)
        said = "is off" if value is False else "is not there"
        return {"state": "absent", "source": f"there is no /dev/sev, and {_KVM_AMD}/{parameter} {said}"}
    return {"state": "unknown", "source": reason}


def _parameter(host: Host, name: str) -> bool | None:
    """Whether kvm_amd has it on; None without the module or the parameter (arch/x86/kvm/svm/sev.c)."""
    text = host.text_optional(f"{_KVM_AMD}/{name}")
    return None if text is None else text.strip() in ("Y", "1")
