#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_definition_info
short_description: How the definitions of guests leave their confinement
version_added: 0.1.0
description:
  - Reads the definitions of guests from libvirt's files, says what of them matters to the confinement of a guest, and
    names the ways in which they leave it.
  - The configured definition (C(/etc/libvirt/qemu)) is what the next start uses, the running one
    (C(/run/libvirt/qemu)) what the guest was started with, and what was plugged in since. Each is an entry of its own.
  - Needs no connection to libvirt, and gives the same answer while libvirt's daemon is down or hangs.
  - Of arguments that are passed through to QEMU (C(qemu:commandline)) and name a file or a device of the host, it says
    which layers of the confinement will stop QEMU from opening it, and the narrowest grant that lets it through.
  - No password, no value of an environment variable and no free text of an argument is in the result. It is said where
    a definition holds a password in plain text.
  - A file that cannot be read as a definition is listed with the reason. Entities, document types, more than 4 MiB (the
    longest text that libvirt takes), nesting deeper than 256 levels and more than 20,000 elements are refused.
options:
  names:
    description:
      - The guests to look at. All of them, if it is empty.
      - A name that is neither defined nor running is an error.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - hypervisor.hardening.attributes.info
notes:
  - Needs root, and lxml (the package C(python3-lxml)) where there is a definition. If the Python in use has it not, the
    module starts over under the distribution's own.
  - Texts of more than 512 characters are cut.
seealso:
  - module: hypervisor.hardening.guest_confinement_info
    description: What the kernel enforces on running guests, whatever their definitions say.
  - module: hypervisor.hardening.tap_guard
  - name: QEMU command-line passthrough
    description: libvirt on what stops passed-through arguments.
    link: https://libvirt.org/kbase/qemu-passthrough-security.html
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Look at all definitions
  hypervisor.hardening.guest_definition_info:
  register: definitions

- name: No guest is taken out of its label or runs as root
  ansible.builtin.assert:
    that: item.departures | selectattr('id', 'in', ['seclabel_none', 'dac_root', 'relabel_no']) | length == 0
    fail_msg: "{{ item.name }} ({{ item.source }}): {{ item.departures }}"
    quiet: true
  loop: "{{ definitions.guests }}"
  loop_control:
    label: "{{ item.name }}, {{ item.source }}"

- name: Tell which guests keep an earlier definition until they are started again
  ansible.builtin.debug:
    msg: >-
      {{ definitions.guests | selectattr('source', 'eq', 'running') | selectattr('departures')
         | map(attribute='name') }}
"""

RETURN = r"""
guests:
  description: One entry for each definition, by name; of a guest with both, the configured one first.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The guest's name.
      returned: success
      type: str
    uuid:
      description: The guest's UUID, empty if the definition has none.
      returned: success
      type: str
    source:
      description: V(configured) or V(running).
      returned: success
      type: str
    path:
      description: The file.
      returned: success
      type: str
    pid:
      description: The process id of QEMU; null for a configured definition.
      returned: success
      type: int
    transient:
      description: Whether the guest runs without a configured definition, and is gone when it ends.
      returned: success
      type: bool
    autostart:
      description: Whether libvirt starts the guest with its daemon.
      returned: success
      type: bool
    type:
      description: The domain type, V(kvm) or V(qemu) (emulation) as a rule.
      returned: success
      type: str
    arch:
      description: The guest's architecture.
      returned: success
      type: str
    machine:
      description: The machine type.
      returned: success
      type: str
    emulator:
      description: The program that runs the guest.
      returned: success
      type: str
    seclabels:
      description: The security labels that the definition asks for; running ones also show what libvirt chose.
      returned: success
      type: list
      elements: dict
      contains:
        where:
          description: V(domain), or the device that it is for.
          returned: success
          type: str
        model:
          description: V(selinux), V(apparmor), V(dac), or empty for all.
          returned: success
          type: str
        type:
          description: V(dynamic), V(static) or V(none).
          returned: success
          type: str
        relabel:
          description: Whether libvirt gives the guest's files and devices the label.
          returned: success
          type: bool
        label:
          description: The label, empty if libvirt chooses it.
          returned: success
          type: str
        baselabel:
          description: What libvirt makes the label of, empty for its own choice.
          returned: success
          type: str
    commandline:
      description: What C(qemu:commandline) passes through.
      returned: success
      type: dict
      contains:
        args:
          description: The arguments. What is not known to be no secret reads V((hidden)).
          returned: success
          type: list
          elements: str
        env:
          description: The names of environment variables.
          returned: success
          type: list
          elements: str
        digest:
          description:
            - The first 16 digits of the SHA-256 of all that is passed through (arguments and variables as shown here,
              capabilities and overrides), by which it can be approved. Empty if nothing is.
            - A change of nothing but a hidden value does not change it.
          returned: success
          type: str
    capabilities:
      description: What C(qemu:capabilities) adds or takes away, such as V(add blockdev).
      returned: success
      type: list
      elements: str
    override:
      description: What C(qemu:override) sets, as alias and property.
      returned: success
      type: list
      elements: str
    opens:
      description: The files and devices of the host that passed-through arguments name, at most 32.
      returned: success
      type: list
      elements: dict
      contains:
        argument:
          description: The argument, as above.
          returned: success
          type: str
        path:
          description: The path.
          returned: success
          type: str
        kind:
          description: V(file), V(directory), V(device), V(socket), or V(missing) if there is nothing.
          returned: success
          type: str
        layers:
          description: Six verdicts - V(selinux), V(apparmor), V(dac), V(mount_namespace), V(seccomp), V(device_cgroup).
          returned: success
          type: list
          elements: dict
          contains:
            layer:
              description: One of the words above. V(dac) are owner, group, mode and ACL.
              returned: success
              type: str
            stops:
              description: Whether it stops QEMU from opening the path for reading and writing; null if that depends.
              returned: success
              type: bool
            why:
              description: Why.
              returned: success
              type: str
            grant:
              description: The narrowest way to let it through, empty if it does not stop it.
              returned: success
              type: str
    graphics:
      description: The displays.
      returned: success
      type: list
      elements: dict
      contains:
        type:
          description: V(vnc), V(spice), V(rdp) and so on.
          returned: success
          type: str
        listen:
          description: The addresses, V(network NAME), V(socket) or V(none). Empty if C(qemu.conf) decides.
          returned: success
          type: list
          elements: str
        port:
          description: The port, null if libvirt chooses it.
          returned: success
          type: int
        tls_port:
          description: SPICE's port for TLS, null if there is none.
          returned: success
          type: int
        websocket:
          description: VNC's port for WebSockets, null if there is none.
          returned: success
          type: int
        tls:
          description: Whether SPICE insists on TLS; null for the others, for which C(qemu.conf) decides.
          returned: success
          type: bool
        password:
          description: Whether the definition holds a password, in plain text.
          returned: success
          type: bool
        clipboard:
          description: Whether SPICE shares the clipboard, null if the definition does not say (then it does).
          returned: success
          type: bool
        filetransfer:
          description: Whether SPICE transfers files, null if the definition does not say (then it does).
          returned: success
          type: bool
        gl:
          description: The host's render node that it draws with, null if it does not.
          returned: success
          type: str
    chardevs:
      description: The character devices.
      returned: success
      type: list
      elements: dict
      contains:
        element:
          description: V(serial), V(console), V(parallel), V(channel), V(smartcard), V(redirdev) or V(rng).
          returned: success
          type: str
        type:
          description: The back end, such as V(pty), V(unix), V(tcp) or V(udp).
          returned: success
          type: str
        address:
          description: HOST:PORT for V(tcp) and V(udp), otherwise the path, which may be empty.
          returned: success
          type: str
        listens:
          description: Whether it waits for connections.
          returned: success
          type: bool
        tls:
          description: Whether V(tcp) goes over TLS, null if C(qemu.conf) decides and for other types.
          returned: success
          type: bool
        name:
          description: The channel's name in the guest, or the port.
          returned: success
          type: str
    host_devices:
      description: Devices of the host that the guest has, whatever element gives them to it.
      returned: success
      type: list
      elements: dict
      contains:
        kind:
          description: >-
            V(pci), V(usb), V(mdev), V(scsi), V(scsi_host), V(nvme), V(vdpa), V(tpm), V(redirdev), V(rng), V(input),
            V(smartcard), V(gl), or the element of a character device of the host.
          returned: success
          type: str
        id:
          description: Kind and name, such as V(pci 0000:01:00.0).
          returned: success
          type: str
        managed:
          description: Whether libvirt takes it from its driver and gives it back.
          returned: success
          type: bool
    filesystems:
      description: Directories of the host that the guest shares.
      returned: success
      type: list
      elements: dict
      contains:
        type:
          description: V(mount) as a rule.
          returned: success
          type: str
        driver:
          description: V(path) (9p), V(virtiofs), V(mtp) or another.
          returned: success
          type: str
        source:
          description: The directory, or a socket.
          returned: success
          type: str
        target:
          description: The tag by which the guest mounts it.
          returned: success
          type: str
        accessmode:
          description: V(mapped), V(passthrough), V(squash) or empty.
          returned: success
          type: str
        readonly:
          description: Whether the guest may only read.
          returned: success
          type: bool
    disks:
      description: The disks.
      returned: success
      type: list
      elements: dict
      contains:
        device:
          description: V(disk), V(cdrom), V(floppy) or V(lun).
          returned: success
          type: str
        type:
          description: V(file), V(block), V(network), V(volume) and so on.
          returned: success
          type: str
        target:
          description: The name, such as V(vda).
          returned: success
          type: str
        bus:
          description: The bus.
          returned: success
          type: str
        source:
          description: The path, PROTOCOL:NAME, or POOL/VOLUME; empty for an empty drive.
          returned: success
          type: str
        format:
          description: The format, empty if the definition does not say.
          returned: success
          type: str
        readonly:
          description: Whether the guest may only read.
          returned: success
          type: bool
        shareable:
          description: Whether other guests may use it too.
          returned: success
          type: bool
        rawio:
          description: Whether QEMU gets the capability C(CAP_SYS_RAWIO) for it.
          returned: success
          type: bool
        backing:
          description: The images below it that the definition names, from the top.
          returned: success
          type: list
          elements: dict
          contains:
            source:
              description: As above.
              returned: success
              type: str
            format:
              description: As above.
              returned: success
              type: str
        cookies:
          description: Whether the definition holds HTTP cookies for it.
          returned: success
          type: bool
        sgio:
          description:
            - V(unfiltered) where SCSI commands of the guest are not filtered, empty if the definition does not say.
          returned: success
          type: str
        reservations:
          description: Whether persistent reservations of the guest are let through.
          returned: success
          type: bool
        cache:
          description: The mode of the cache, empty for the default.
          returned: success
          type: str
        encrypted:
          description: Whether it is encrypted on the host.
          returned: success
          type: bool
        authenticated:
          description: Whether there is a secret for the server that it lies on.
          returned: success
          type: bool
        tls:
          description: Whether the definition asks for TLS, null if it does not say.
          returned: success
          type: bool
    interfaces:
      description: The network interfaces.
      returned: success
      type: list
      elements: dict
      contains:
        type:
          description: V(network), V(bridge), V(direct), V(ethernet), V(hostdev) and so on.
          returned: success
          type: str
        target:
          description: The name of the host's device, empty if libvirt makes one up.
          returned: success
          type: str
        managed:
          description: Whether libvirt makes the device. V(false) is C(managed='no'), a device that was made for it.
          returned: success
          type: bool
        model:
          description: What the guest sees.
          returned: success
          type: str
        mac:
          description: The MAC address.
          returned: success
          type: str
        source:
          description: The bridge, network, device or socket.
          returned: success
          type: str
        mode:
          description: The mode of a macvtap device, otherwise empty.
          returned: success
          type: str
        filter:
          description: The network filter, empty if there is none.
          returned: success
          type: str
        parameters:
          description: The names of the parameters that the filter is given, such as V(IP).
          returned: success
          type: list
          elements: str
        script:
          description: The script of the host that sets it up.
          returned: success
          type: str
        trusted_rx_filters:
          description: Whether the guest may change what the host's device receives.
          returned: success
          type: bool
        isolated:
          description: Whether it may not reach other isolated ports of the bridge.
          returned: success
          type: bool
        limited:
          description: Whether there is a limit of bandwidth.
          returned: success
          type: bool
    shmem:
      description: Shared memory devices.
      returned: success
      type: list
      elements: str
    cpu:
      description: The processor.
      returned: success
      type: dict
      contains:
        mode:
          description: V(host-passthrough), V(host-model), V(maximum), V(custom), or empty for QEMU's default.
          returned: success
          type: str
        model:
          description: The model.
          returned: success
          type: str
        features:
          description:
            - The policy of V(vmx), of V(svm), and of features that protect a guest against its processor, where the
              definition names them.
          returned: success
          type: dict
          sample: {"vmx": "disable"}
        pmu:
          description: Whether the guest has performance counters, null if the definition does not say.
          returned: success
          type: bool
        pinned:
          description: The host's processors that all of the guest's are bound to, empty for any.
          returned: success
          type: str
    memory:
      description: How its memory is kept.
      returned: success
      type: dict
      contains:
        hugepages:
          description: Whether it lies on huge pages.
          returned: success
          type: bool
        source:
          description: V(file), V(anonymous), V(memfd) or empty.
          returned: success
          type: str
        access:
          description: V(shared), V(private) or empty.
          returned: success
          type: str
        locked:
          description: Whether it is locked.
          returned: success
          type: bool
        sharepages:
          description: Whether the kernel may merge its pages with those of others (KSM).
          returned: success
          type: bool
        dump_core:
          description: Whether it is part of a core dump, null if C(qemu.conf) decides.
          returned: success
          type: bool
        hard_limit:
          description: Whether there is a hard limit of what QEMU may use.
          returned: success
          type: bool
    os:
      description: Firmware and boot.
      returned: success
      type: dict
      contains:
        firmware:
          description: V(efi), V(bios), or empty if libvirt does not choose it.
          returned: success
          type: str
        loader:
          description: The firmware's image.
          returned: success
          type: str
        loader_type:
          description: V(pflash), V(rom) or empty.
          returned: success
          type: str
        loader_readonly:
          description: Whether a flash image is read-only, null for others.
          returned: success
          type: bool
        secure:
          description: Whether the firmware is one with Secure Boot.
          returned: success
          type: bool
        nvram:
          description: The file of the guest's variables.
          returned: success
          type: str
        kernel:
          description: A kernel of the host that is booted directly.
          returned: success
          type: str
        initrd:
          description: Its initial RAM disk.
          returned: success
          type: str
    tpm:
      description: The TPM, null if there is none.
      returned: success
      type: dict
      contains:
        model:
          description: What the guest sees.
          returned: success
          type: str
        backend:
          description: V(emulator), V(passthrough) or V(external).
          returned: success
          type: str
        version:
          description: The version, empty if libvirt chooses.
          returned: success
          type: str
    vsock:
      description: The socket between host and guest, null if there is none.
      returned: success
      type: dict
      contains:
        cid:
          description: Its number, null if libvirt chooses it.
          returned: success
          type: int
    launch_security:
      description: Encrypted memory (SEV, SEV-SNP, TDX), null if there is none.
      returned: success
      type: dict
      contains:
        type:
          description: V(sev), V(sev-snp), V(tdx) or V(s390-pv).
          returned: success
          type: str
        policy:
          description: The policy, null if there is none.
          returned: success
          type: int
    passwords:
      description: Where a password stands in plain text.
      returned: success
      type: list
      elements: str
      sample: [graphics vnc]
    traits:
      description:
        - What else a strict operator wants to know of.
        - V(agent), V(vdagent), V(spice_agent) - channels of agents in the guest.
        - V(spice), V(clipboard), V(filetransfer) - a SPICE display, and what of it is not switched off.
        - V(sharepages) - the kernel may merge its memory with that of others. V(dump_core), V(no_dump_core) - whether
          its memory is part of a core dump, where the definition says so.
        - V(secure_boot), V(tpm) - it has Secure Boot's firmware, or a TPM.
        - V(smbios_host), V(vmport) - what tells the guest of its host.
        - V(floppy), V(ide), V(parallel), V(sound), V(qxl), V(accel3d), C(nic MODEL) - old or rarely needed devices.
        - V(coredump_on_crash), V(watchdog_dump) - the guest can make the host write a dump.
        - V(cpu_limit), V(memory_limit), V(io_limit) - limits that are set.
      returned: success
      type: list
      elements: str
    cut:
      description: Lists that hold only the first 128 of what there is.
      returned: success
      type: list
      elements: str
    departures:
      description:
        - The ways in which the definition leaves the confinement that libvirt gives a guest by itself. Of each way at
          most 16 are listed, the last of which then says how many there are besides.
        - V(seclabel_none) - the guest or a device has no label.
        - V(dac_root) - QEMU, or the owner of a file, is root.
        - V(static_label) - the definition itself names the label, so that another guest can have the same.
        - V(base_label) - the label is made of a type that is not for guests.
        - V(relabel_no) - libvirt leaves the labels of files alone, and the definition has no label of its own for it.
        - V(qemu_arguments), V(qemu_environment), V(qemu_capabilities), V(qemu_override) - passed through to QEMU past
          libvirt. The digest is in C(where).
        - V(not_kvm), V(machine_type) - outside of what QEMU's developers call a security boundary.
        - V(emulator) - the program that runs it is none of the system's.
        - V(nested_virtualization) - its processor offers virtualization, if the host's kernel allows it.
        - V(writable_firmware) - the guest may write to the firmware's image.
        - V(debug_allowed) - the host may debug a guest with encrypted memory.
        - V(graphics_listen) - a display on an address beyond this host, without TLS as far as the definition says.
        - V(chardev_network) - a character device, monitor or debugger on TCP or UDP without TLS.
        - V(host_device), V(host_directory), V(shared_memory) - the guest reaches what is not its own.
        - V(rawio) - QEMU keeps C(CAP_SYS_RAWIO).
        - V(disk_format) - nobody says the format of an image, so that the guest could.
        - V(interface_script) - a program of the host sets up the network.
        - V(unmanaged_target) - it takes a network device that libvirt did not make.
        - V(trusted_rx_filters) - it may change what the host's device receives.
        - V(plain_password) - a password in plain text.
      returned: success
      type: list
      elements: dict
      contains:
        id:
          description: One of the words above.
          returned: success
          type: str
        where:
          description: The place, in words that stay the same.
          returned: success
          type: str
        observed:
          description: What the definition says.
          returned: success
          type: str
        expected:
          description: What a confined guest's says.
          returned: success
          type: str
      sample:
        - id: seclabel_none
          where: domain
          observed: type none, model selinux
          expected: a label of libvirt's
unreadable:
  description: Files that should hold a definition and cannot be read as one.
  returned: success
  type: list
  elements: dict
  contains:
    source:
      description: V(configured) or V(running).
      returned: success
      type: str
    name:
      description: The name of the file, less C(.xml).
      returned: success
      type: str
    path:
      description: The file.
      returned: success
      type: str
    reason:
      description: Why.
      returned: success
      type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils._definitions import gather
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import show


def main() -> None:
    module = AnsibleModule(
        argument_spec={"names": {"type": "list", "elements": "str", "default": []}}, supports_check_mode=True
    )
    show(module, lambda host: gather(host, module.params["names"]))


if __name__ == "__main__":
    main()
