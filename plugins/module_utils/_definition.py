# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One guest definition as a value: what of it matters to how the guest is confined, and no password of it."""

from __future__ import annotations

import hashlib
import json
import typing as t
from dataclasses import dataclass

from . import _definitiondevices as _devices
from . import _qemuargs
from ._definitiondevices import attribute, text

if t.TYPE_CHECKING:
    from lxml.etree import _Element

    from ._domainxml import Guest

# src/qemu/qemu_domain.c: the name space of what is passed through.
_QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
_PASSWORDS = ("passwd", "password")
# What a guest's kernel needs to see to protect itself: the names of src/cpu_map/x86_features.xml.
MITIGATIONS = (
    *(
        "spec-ctrl",
        "ssbd",
        "stibp",
        "ibrs",
        "ibpb",
        "virt-ssbd",
        "amd-ssbd",
        "amd-stibp",
        "md-clear",
        "arch-capabilities",
    ),
    *("ibrs-all", "rdctl-no", "mds-no", "taa-no", "tsx-ctrl", "fb-clear", "psdp-no", "skip-l1dfl-vmentry"),
)
_MOST_VCPUS = 4096


@dataclass(frozen=True)
class Seclabel:
    """A ``<seclabel>``. ``where`` is ``domain`` or the device; ``type`` is ``dynamic`` where it has none."""

    where: str
    model: str
    type: str
    relabel: bool
    label: str
    baselabel: str


@dataclass(frozen=True)
class Passthrough:
    """What goes to QEMU past libvirt. ``args`` as they may be shown, ``env`` the names alone; ``digest`` is of that,
    so that an operator can approve it; "" where nothing is passed through."""

    args: tuple[_qemuargs.Argument, ...]
    env: tuple[str, ...]
    capabilities: tuple[str, ...]
    override: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Cpu:
    """``features``: the policies of vmx and svm, and of what protects a guest against its processor, where there are;
    ``pmu`` None where nobody says; ``pinned``: the host's processors that all of its own are bound to, "" for any."""

    mode: str
    model: str
    features: dict[str, str]
    pmu: bool | None
    pinned: str


@dataclass(frozen=True)
class Memory:
    """``<memoryBacking>`` and what else says how a guest's memory is kept."""

    hugepages: bool
    source: str
    access: str
    locked: bool
    sharepages: bool
    dump_core: bool | None
    hard_limit: bool


@dataclass(frozen=True)
class System:
    """``<os>``: firmware and direct boot. ``loader_readonly`` is None for another loader than a flash image."""

    firmware: str
    loader: str
    loader_type: str
    loader_readonly: bool | None
    secure: bool
    nvram: str
    kernel: str
    initrd: str


@dataclass(frozen=True)
class Tpm:
    """A TPM; ``backend`` is ``emulator``, ``passthrough`` or ``external``."""

    model: str
    backend: str
    version: str


@dataclass(frozen=True)
class Vsock:
    """A host-guest socket; ``cid`` is None where libvirt chooses it."""

    cid: int | None


@dataclass(frozen=True)
class LaunchSecurity:
    """``policy`` is None where the definition has none that can be read."""

    type: str
    policy: int | None


@dataclass(frozen=True)
class Definition:
    """What one file says of one guest. ``passwords``: where it holds one in plain text;
    ``traits``: what else a strict operator wants to know of, each by a stable word."""

    name: str
    uuid: str
    path: str
    pid: int | None
    type: str
    arch: str
    machine: str
    emulator: str
    seclabels: tuple[Seclabel, ...]
    passthrough: Passthrough
    graphics: tuple[_devices.Graphics, ...]
    chardevs: tuple[_devices.Chardev, ...]
    host_devices: tuple[_devices.HostDevice, ...]
    filesystems: tuple[_devices.Filesystem, ...]
    disks: tuple[_devices.Disk, ...]
    interfaces: tuple[_devices.Nic, ...]
    shmem: tuple[str, ...]
    cpu: Cpu
    memory: Memory
    os: System
    tpm: Tpm | None
    vsock: Vsock | None
    launch_security: LaunchSecurity | None
    passwords: tuple[str, ...]
    traits: tuple[str, ...]


def of(guest: Guest) -> Definition:
    """The definition of a guest, without its XML."""
    domain = guest.domain
    kind = domain.find("os/type")
    return Definition(
        name=text(guest.name),
        uuid=text(guest.uuid),
        path=guest.path,
        pid=guest.pid,
        type=attribute(domain, "type"),
        arch=attribute(kind, "arch"),
        machine=attribute(kind, "machine"),
        emulator=text(domain.findtext("devices/emulator")),
        seclabels=tuple(_seclabels(domain)),
        passthrough=_passthrough(domain),
        graphics=_devices.graphics(domain),
        chardevs=_devices.chardevs(domain),
        host_devices=_devices.host_devices(domain),
        filesystems=_devices.filesystems(domain),
        disks=_devices.disks(domain),
        interfaces=_devices.nics(domain),
        shmem=tuple(f"shmem {attribute(element, 'name')}" for element in domain.iterfind("devices/shmem")),
        cpu=_cpu(domain),
        memory=_memory(domain),
        os=_system(domain),
        tpm=_tpm(domain),
        vsock=_vsock(domain),
        launch_security=_launch_security(domain),
        passwords=tuple(_passwords(domain)),
        traits=tuple(dict.fromkeys(_traits(domain))),
    )


def name_of_device(element: _Element) -> str:
    """What to call a device in words: its element and its target, or its place among its kind."""
    target = element.find("target")
    name = next((attribute(target, key) for key in ("dev", "dir", "name", "port") if attribute(target, key)), "")
    kind = name or attribute(element, "type")
    return f"{element.tag} {kind}".strip()


def _seclabels(domain: _Element) -> t.Iterator[Seclabel]:
    for element in domain.iterfind("seclabel"):
        yield _seclabel("domain", element)
    for device in domain.iterfind("devices/*"):
        for element in device.iterfind(".//seclabel"):
            yield _seclabel(name_of_device(device), element)


def _seclabel(where: str, element: _Element) -> Seclabel:
    model = attribute(element, "model")
    # src/conf/domain_conf.c, virSecurityLabelDefParseXML: the model "none" is the type "none".
    kind = attribute(element, "type") or ("none" if model == "none" else "dynamic")
    relabel = attribute(element, "relabel") or ("no" if kind in ("static", "none") else "yes")
    return Seclabel(
        where=where,
        model=model,
        type=kind,
        relabel=relabel != "no",
        label=text(element.findtext("label")),
        baselabel=text(element.findtext("baselabel")),
    )


def _passthrough(domain: _Element) -> Passthrough:
    arguments = _qemuargs.arguments(
        str(element.get("value", "")) for element in domain.iterfind(f"{_QEMU}commandline/{_QEMU}arg")
    )
    env = tuple(attribute(element, "name") for element in domain.iterfind(f"{_QEMU}commandline/{_QEMU}env"))
    capabilities = tuple(
        f"{str(element.tag).rpartition('}')[2]} {attribute(element, 'capability')}"
        for element in domain.iterfind(f"{_QEMU}capabilities/*")
    )
    override = tuple(
        f"{attribute(device, 'alias')} {attribute(entry, 'name')}"
        for device in domain.iterfind(f"{_QEMU}override/{_QEMU}device")
        for entry in device.iterfind(f"{_QEMU}frontend/{_QEMU}property")
    )
    shown = [[argument.shown for argument in arguments], env, capabilities, override]
    found = any(shown)
    digest = hashlib.sha256(json.dumps(shown).encode("utf-8", "surrogatepass")).hexdigest()[:16] if found else ""
    return Passthrough(arguments, env, capabilities, override, digest)


def _cpu(domain: _Element) -> Cpu:
    cpu = domain.find("cpu")
    found = {attribute(entry, "name"): attribute(entry, "policy") for entry in domain.iterfind("cpu/feature")}
    pmu = domain.find("features/pmu")
    mode = attribute(cpu, "mode")
    model = "" if cpu is None else text(cpu.findtext("model"))
    return Cpu(
        # A model without a mode is a custom one: formatdomain.rst, "CPU model and topology".
        mode=mode or ("custom" if model else ""),
        model=model,
        features={name: found[name] or "require" for name in ("vmx", "svm", *MITIGATIONS) if name in found},
        pmu=None if pmu is None else pmu.get("state") != "off",
        pinned=_pinned(domain),
    )


def _pinned(domain: _Element) -> str:
    """formatdomain.rst, "CPU Tuning": vcpupin of each virtual processor, for one without that of <vcpu>."""
    vcpu = domain.find("vcpu")
    count = _number(text(vcpu.text) or "1", 10) if vcpu is not None else 1
    default = attribute(vcpu, "cpuset")
    pins = {attribute(pin, "vcpu"): attribute(pin, "cpuset") for pin in domain.iterfind("cputune/vcpupin")}
    numbers = [str(number) for number in range(min(count or 1, _MOST_VCPUS))]
    chosen = [pins.get(number) or default for number in numbers]
    return text(",".join(dict.fromkeys(chosen))) if all(chosen) else ""


def _memory(domain: _Element) -> Memory:
    backing = domain.find("memoryBacking")
    dump = attribute(domain.find("memory"), "dumpCore")
    return Memory(
        hugepages=backing is not None and backing.find("hugepages") is not None,
        source=attribute(domain.find("memoryBacking/source"), "type"),
        access=attribute(domain.find("memoryBacking/access"), "mode"),
        locked=backing is not None and backing.find("locked") is not None,
        sharepages=backing is None or backing.find("nosharepages") is None,
        dump_core={"on": True, "off": False}.get(dump),
        hard_limit=domain.find("memtune/hard_limit") is not None,
    )


def _system(domain: _Element) -> System:
    loader = domain.find("os/loader")
    kind = attribute(loader, "type")
    nvram = domain.find("os/nvram")
    return System(
        firmware=attribute(domain.find("os"), "firmware"),
        loader="" if loader is None else text(loader.text),
        loader_type=kind,
        loader_readonly=attribute(loader, "readonly") == "yes" if kind == "pflash" else None,
        secure=attribute(loader, "secure") == "yes",
        nvram="" if nvram is None else text(nvram.text) or attribute(nvram.find("source"), "file"),
        kernel=text(domain.findtext("os/kernel")),
        initrd=text(domain.findtext("os/initrd")),
    )


def _tpm(domain: _Element) -> Tpm | None:
    tpm = domain.find("devices/tpm")
    backend = domain.find("devices/tpm/backend")
    if tpm is None:
        return None
    return Tpm(attribute(tpm, "model"), attribute(backend, "type"), attribute(backend, "version"))


def _vsock(domain: _Element) -> Vsock | None:
    vsock = domain.find("devices/vsock")
    return None if vsock is None else Vsock(_number(attribute(vsock.find("cid"), "address"), 10))


def _launch_security(domain: _Element) -> LaunchSecurity | None:
    element = domain.find("launchSecurity")
    if element is None:
        return None
    return LaunchSecurity(attribute(element, "type"), _number(text(element.findtext("policy")), 0))


def _passwords(domain: _Element) -> t.Iterator[str]:
    """Where a password stands in plain text; one of a disk or a display is a secret of libvirt's by UUID otherwise."""
    for device in domain.iterfind("devices/*"):
        if any(entry.get(name) for entry in device.iter("*") for name in _PASSWORDS):
            yield name_of_device(device)
        elif device.find("source/cookies/cookie") is not None:
            yield f"{name_of_device(device)} cookies"
    if _qemuargs.secret_words(domain.findtext("os/cmdline") or ""):
        yield "os cmdline"
    for element in domain.iterfind("sysinfo//entry"):
        if _qemuargs.secret_variable(element.get("name", ""), element.text or "") or _qemuargs.secret_words(
            element.text or ""
        ):
            yield "sysinfo"
            break
    previous = ""
    for element in domain.iterfind(f"{_QEMU}commandline/{_QEMU}env"):
        if _qemuargs.secret_variable(element.get("name", ""), element.get("value", "")):
            yield f"qemu:env {attribute(element, 'name')}"
    for argument in _passthrough(domain).args:
        if argument.secret:
            yield f"qemu:arg {previous}".strip()
        previous = argument.shown if argument.shown.startswith("-") else ""


def _traits(domain: _Element) -> t.Iterator[str]:
    """Small things that a stricter operator wants to know of, each by a stable word."""
    yield from (word for word, path in _TRAITS if domain.find(path) is not None)
    for display in _devices.graphics(domain):
        if display.type == "spice":
            yield from (word for word in ("clipboard", "filetransfer") if getattr(display, word) is not False)
    memory = _memory(domain)
    yield from ["sharepages"] if memory.sharepages else []
    yield from ["dump_core"] if memory.dump_core else ["no_dump_core"] if memory.dump_core is False else []
    yield from ["secure_boot"] if _system(domain).secure or _enrolled(domain) else []
    models = {attribute(entry, "type") for entry in domain.iterfind("devices/interface/model")}
    yield from (f"nic {model}" for model in sorted(models & _LEGACY_NICS))
    if any(domain.findtext(name, "").startswith("coredump") for name in ("on_crash", "on_poweroff", "on_reboot")):
        yield "coredump_on_crash"


def _enrolled(domain: _Element) -> bool:
    """Whether libvirt is to choose a firmware with Secure Boot: formatdomain.rst, "Operating system booting"."""
    return any(
        entry.get("name") == "secure-boot" and entry.get("enabled") == "yes"
        for entry in domain.iterfind("os/firmware/feature")
    )


_LEGACY_NICS = {"rtl8139", "ne2k_pci", "ne2k_isa", "pcnet", "e1000", "i82551", "i82557b", "i82559er", "tulip"}
_TRAITS = (
    ("agent", "devices/channel/target[@name='org.qemu.guest_agent.0']"),
    ("vdagent", "devices/channel[@type='qemu-vdagent']"),
    ("spice_agent", "devices/channel[@type='spicevmc']"),
    ("spice", "devices/graphics[@type='spice']"),
    ("smbios_host", "os/smbios[@mode='host']"),
    ("vmport", "features/vmport[@state='on']"),
    ("watchdog_dump", "devices/watchdog[@action='dump']"),
    ("sound", "devices/sound"),
    ("parallel", "devices/parallel"),
    ("floppy", "devices/disk[@device='floppy']"),
    ("ide", "devices/disk/target[@bus='ide']"),
    ("qxl", "devices/video/model[@type='qxl']"),
    ("accel3d", "devices/video/model/acceleration[@accel3d='yes']"),
    ("tpm", "devices/tpm"),
    ("vsock", "devices/vsock"),
    ("cpu_limit", "cputune/quota"),
    ("memory_limit", "memtune/hard_limit"),
    ("io_limit", "devices/disk/iotune/*"),
)


def _number(value: str, base: int) -> int | None:
    try:
        return int(value[:20], base)
    except ValueError:
        return None
