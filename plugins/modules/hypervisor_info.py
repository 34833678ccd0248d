#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hypervisor_info
short_description: What an audit of a hypervisor needs to know, in one call
version_added: 0.1.0
description:
  - Collects of a KVM/QEMU/libvirt host what is configured, what the daemons have loaded, and what the kernel enforces.
    These are different keys, and none is derived from another.
  - Each section that cannot be told is a dictionary with the single key C(error) and never costs the others. Inside a
    section a value that cannot be told is null, with the reason in the section's C(unread). What is absent is said by
    a value (V(false), an empty list), not by a missing key.
  - Changes nothing, and wakes nothing unless O(connect) says so. A host without libvirt gets an answer, too.
  - No password and no guest definition is in the result.
options:
  connect:
    description:
      - Whether libvirt's daemon may be started by a connection, if it is idle (socket activation).
      - Without it, what only an idle daemon could tell is null, and C(capabilities.reason) says so.
      - A daemon that runs is asked in any case, read-only and for 10 seconds at most.
    type: bool
    default: false
extends_documentation_fragment:
  - hypervisor.hardening.attributes.info
notes:
  - Needs root.
  - The libraries lxml (C(python3-lxml)) and libvirt (C(python3-libvirt)) of the host are used where any of its
    interpreters has them. What cannot be told without them is said where it is missing.
seealso:
  - module: hypervisor.hardening.guest_confinement_info
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Learn all about a hypervisor
  hypervisor.hardening.hypervisor_info:
  register: facts

- name: Ask libvirt too, although its daemon may be idle
  hypervisor.hardening.hypervisor_info:
    connect: true
  register: facts

- name: Show who listens to the network
  ansible.builtin.debug:
    msg: "{{ facts.hypervisor.listeners | default([]) | rejectattr('loopback') | list }}"
"""

# Each section has its block here, below a comment with its name. The rules of the audit may use no other paths.
RETURN = r"""
hypervisor:
  description: The facts, by section.
  returned: success
  type: dict
  contains:
    # section: host
    host:
      description: The host itself.
      returned: success
      type: dict
      contains:
        hostname:
          description: The kernel's host name.
          returned: success
          type: str
        os:
          description: The distribution, as C(os-release) tells it.
          returned: success
          type: dict
          contains:
            id:
              description: C(ID), empty where it is not told.
              returned: success
              type: str
              sample: debian
            id_like:
              description: C(ID_LIKE).
              returned: success
              type: list
              elements: str
            version:
              description: C(VERSION_ID), empty where it is not told.
              returned: success
              type: str
              sample: "13"
            name:
              description: C(PRETTY_NAME), empty where it is not told.
              returned: success
              type: str
        kernel:
          description: The release of the running kernel.
          returned: success
          type: str
        architecture:
          description: The machine's architecture, as C(uname -m) prints it.
          returned: success
          type: str
        cpu_vendor:
          description: The C(vendor_id) of C(/proc/cpuinfo), empty on architectures that have none.
          returned: success
          type: str
          sample: AuthenticAMD
        cgroup:
          description: What the resources of guests can be limited with.
          returned: success
          type: dict
          contains:
            version:
              description: The version of cgroups that the host uses; null where none is mounted.
              returned: success
              type: int
            controllers:
              description: The controllers there, by the names of version 2 (V(io) for V(blkio\)).
              returned: success
              type: list
              elements: str
        boot_id:
          description: The kernel's name for the present boot.
          returned: success
          type: str
        time:
          description: The host's clock when the facts were collected, in seconds since the epoch.
          returned: success
          type: float
        init:
          description: V(systemd), or the name of PID 1's program.
          returned: success
          type: str
        container:
          description: The manager of the container that the host is, by systemd's word. Empty for a machine.
          returned: success
          type: str
    # section: libvirt
    libvirt:
      description: libvirt and QEMU as they are installed, and what of C(qemu.conf) is in force.
      returned: success
      type: dict
      contains:
        installed:
          description: Whether a daemon that drives QEMU is there.
          returned: success
          type: bool
        layout:
          description: V(monolithic) (libvirtd), V(modular) (virtqemud) or V(none).
          returned: success
          type: str
        daemon:
          description: The daemon that drives QEMU, empty for none.
          returned: success
          type: str
        service:
          description: Its service unit, empty for none.
          returned: success
          type: str
        uri:
          description: The URI of a connection to that very daemon, empty for none.
          returned: success
          type: str
        enabled:
          description: Whether its service or its socket is enabled.
          returned: success
          type: bool
        active:
          description: Whether it runs.
          returned: success
          type: bool
        idle:
          description: Whether it does not run and the next client starts it.
          returned: success
          type: bool
        suspended:
          description: Whether it is stopped by a signal or a debugger, and answers nobody.
          returned: success
          type: bool
        version:
          description: The version of the installed libvirt, null where there is none.
          returned: success
          type: str
          sample: 11.3.0
        version_from:
          description: The library whose name says so, empty for none.
          returned: success
          type: str
        qemu_version:
          description: The version of the installed QEMU for guests of the host's architecture, null where there is
            none.
          returned: success
          type: str
          sample: 10.0.2
        qemu_package:
          description: What the distribution calls that QEMU, empty where it does not say.
          returned: success
          type: str
        qemu_version_from:
          description: The command that says so, or why it does not. Empty without QEMU.
          returned: success
          type: str
        restart_required:
          description: Whether the daemon goes by another C(qemu.conf) than the present one.
          returned: success
          type: bool
        restart_units:
          description: The units to restart for that.
          returned: success
          type: list
          elements: str
        guests_pending:
          description: The running guests that started before the present C(qemu.conf) was in force.
          returned: success
          type: list
          elements: str
        secure_erase:
          description: Whether libvirt wipes passwords and keys from its memory (virSecureErase), by the symbols of
            its library.
          returned: success
          type: dict
          contains:
            state:
              description: V(present), V(weak) (it calls memset, which a compiler may leave out), V(absent) or
                V(unknown).
              returned: success
              type: str
            source:
              description: What says so.
              returned: success
              type: str
        built_with:
          description: What libvirt was built with, by the strings in its library. Null without a library.
          returned: success
          type: dict
          contains:
            polkit:
              description: Polkit, which then is the default of C(auth_unix_rw) and C(auth_unix_ro).
              returned: success
              type: bool
            sasl:
              description: SASL, which then is the default of C(auth_tcp).
              returned: success
              type: bool
        sasl_mechanisms:
          description: The mechanisms that C(/etc/sasl2/libvirt.conf) offers to clients, null where it names none.
          returned: success
          type: list
          elements: str
    # section: daemons
    daemons:
      description: libvirt's daemons that are installed, have a unit or run.
      returned: success
      type: list
      elements: dict
      contains:
        name:
          description: The name of the program.
          returned: success
          type: str
          sample: virtqemud
        installed:
          description: Whether the program is there.
          returned: success
          type: bool
        active:
          description: Whether it runs.
          returned: success
          type: bool
        idle:
          description: Whether it does not run and the next client starts it.
          returned: success
          type: bool
        suspended:
          description: Whether it is stopped by a signal or a debugger.
          returned: success
          type: bool
        enabled:
          description: Whether its service or one of its sockets is enabled.
          returned: success
          type: bool
        masked:
          description: Whether its service is masked.
          returned: success
          type: bool
        pid:
          description: The process id, null if it does not run.
          returned: success
          type: int
        started:
          description: When it started, in seconds since the epoch, null if it does not run.
          returned: success
          type: float
        binary:
          description: The file that it executes, empty if it does not run.
          returned: success
          type: str
        binary_deleted:
          description: Whether that file has been deleted or replaced since.
          returned: success
          type: bool
        listen_option:
          description: Whether it runs with C(--listen), which makes it open TCP ports itself.
          returned: success
          type: bool
        configuration:
          description: The name of its own configuration file.
          returned: success
          type: str
          sample: virtqemud.conf
        settings:
          description: What that file sets, null where it cannot be read.
          returned: success
          type: dict
        configuration_newer:
          description: The configuration files of libvirt that were changed after it started and that it has not read
            since.
          returned: success
          type: list
          elements: str
        units_newer:
          description: The files of its units and their drop-ins that were changed after it started.
          returned: success
          type: list
          elements: str
        drop_ins:
          description: The drop-ins of its service.
          returned: success
          type: list
          elements: str
        confined_by:
          description: Settings of its service that confine it or limit its resources, as the files have them.
          returned: success
          type: dict
          sample: {"LimitMEMLOCK": "64M"}
    # section: sockets
    sockets:
      description: The sockets of libvirt's daemons, those of units that are there and those that lie in
        C(/run/libvirt).
      returned: success
      type: list
      elements: dict
      contains:
        name:
          description: The path, or the port or address and port.
          returned: success
          type: str
          sample: /run/libvirt/libvirt-sock
        kind:
          description: V(rw), V(ro), V(admin), V(tcp), V(tls), or V(other) for one that no daemon of libvirt is known
            by.
          returned: success
          type: str
        daemon:
          description: The daemon that answers, empty for V(other).
          returned: success
          type: str
        unit:
          description: The socket unit, empty for none.
          returned: success
          type: str
        enabled:
          description: Whether the unit is enabled.
          returned: success
          type: bool
        masked:
          description: Whether the unit is masked.
          returned: success
          type: bool
        unit_mode:
          description: The unit's C(SocketMode), null without a unit.
          returned: success
          type: str
          sample: "0660"
        unit_user:
          description: The unit's C(SocketUser), null without a unit.
          returned: success
          type: str
        unit_group:
          description: The unit's C(SocketGroup), null without a unit.
          returned: success
          type: str
        exists:
          description: Whether the path is there. Always V(false) for V(tcp) and V(tls).
          returned: success
          type: bool
        listening:
          description: Whether somebody listens.
          returned: success
          type: bool
        mode:
          description: The permission bits of the path, null if it is not there.
          returned: success
          type: str
          sample: "0666"
        owner:
          description: The user that owns it, null if it is not there.
          returned: success
          type: str
        group:
          description: The group that owns it, null if it is not there.
          returned: success
          type: str
        open_to:
          description: Who may connect by the permission bits, beside root - V(others), V(group) or V(owner). Empty if
            the path is not there.
          returned: success
          type: str
        authentication:
          description:
            - How a client proves who it is, by the daemon's configuration, and where that is silent by what libvirt
              was built with - V(none), V(polkit), V(sasl), or V(own-user) where the daemon only takes clients of its
              own user.
            - Null where nothing says so.
          returned: success
          type: str
    # section: listeners
    listeners:
      description: The listening TCP sockets of libvirt's daemons, of QEMU, of their helpers, and those that systemd
        holds for a daemon of libvirt. Those of other programs are not among them.
      returned: success
      type: list
      elements: dict
      contains:
        name:
          description: Address and port.
          returned: success
          type: str
          sample: 127.0.0.1:5900
        address:
          description: The address, V(0.0.0.0) or V(::) for all.
          returned: success
          type: str
        port:
          description: The port.
          returned: success
          type: int
        loopback:
          description: Whether only the host itself can reach it.
          returned: success
          type: bool
        kind:
          description: V(daemon), V(qemu), V(helper) or V(systemd).
          returned: success
          type: str
        process:
          description: The name of the program, for V(systemd) that of the unit.
          returned: success
          type: str
        pid:
          description: The process that holds it.
          returned: success
          type: int
        guest:
          description: The guest that a QEMU runs, otherwise empty.
          returned: success
          type: str
    # section: configuration
    configuration:
      description: libvirt's configuration files, each under its name.
      returned: success
      type: dict
      contains:
        "qemu.conf":
          description: C(/etc/libvirt/qemu.conf).
          returned: success
          type: dict
          contains: &file
            path:
              description: The path.
              returned: success
              type: str
            exists:
              description: Whether the file is there.
              returned: success
              type: bool
            read_by:
              description: The daemon that reads it in the layout of this host, empty for none. C(libvirt.conf) is
                read by clients.
              returned: success
              type: str
            error:
              description: Why libvirt's parser refuses the file, empty if it does not.
              returned: success
              type: str
            settings:
              description: Each key with the value that libvirt takes, which is the first one. Passwords are
                V((set\)). Null where the file cannot be read.
              returned: success
              type: dict
            unknown:
              description: The keys that the installed libvirt does not know and ignores without a message.
              returned: success
              type: list
              elements: dict
              contains:
                key:
                  description: The key.
                  returned: success
                  type: str
                nearest:
                  description: The nearest known one, empty for none.
                  returned: success
                  type: str
            duplicates:
              description: The keys that are set more than once, of which libvirt takes the first.
              returned: success
              type: list
              elements: dict
              contains:
                key:
                  description: The key.
                  returned: success
                  type: str
                count:
                  description: How often.
                  returned: success
                  type: int
            wrong_type:
              description: The keys whose value is of a type that keeps the daemon from starting.
              returned: success
              type: list
              elements: dict
              contains:
                key:
                  description: The key.
                  returned: success
                  type: str
                expected:
                  description: What libvirt reads there.
                  returned: success
                  type: str
            keys_from:
              description: Who knows the file's keys - V(lens) (the installed libvirt), V(fallback) (this collection),
                or null for nobody. Then C(unknown) and C(wrong_type) are empty and mean nothing.
              returned: success
              type: str
            newer_than_daemon:
              description: Whether the daemon that reads it has not read it as it is now. Null if none reads it, or it
                does not run.
              returned: success
              type: bool
        "qemu-lockd.conf":
          description: C(/etc/libvirt/qemu-lockd.conf).
          returned: success
          type: dict
          contains: *file
        "qemu-sanlock.conf":
          description: C(/etc/libvirt/qemu-sanlock.conf).
          returned: success
          type: dict
          contains: *file
        "network.conf":
          description: C(/etc/libvirt/network.conf).
          returned: success
          type: dict
          contains: *file
        "secret.conf":
          description: C(/etc/libvirt/secret.conf).
          returned: success
          type: dict
          contains: *file
        "libvirtd.conf":
          description: C(/etc/libvirt/libvirtd.conf).
          returned: success
          type: dict
          contains: *file
        "virtqemud.conf":
          description: C(/etc/libvirt/virtqemud.conf).
          returned: success
          type: dict
          contains: *file
        "virtproxyd.conf":
          description: C(/etc/libvirt/virtproxyd.conf).
          returned: success
          type: dict
          contains: *file
        "virtnetworkd.conf":
          description: C(/etc/libvirt/virtnetworkd.conf).
          returned: success
          type: dict
          contains: *file
        "virtstoraged.conf":
          description: C(/etc/libvirt/virtstoraged.conf).
          returned: success
          type: dict
          contains: *file
        "virtsecretd.conf":
          description: C(/etc/libvirt/virtsecretd.conf).
          returned: success
          type: dict
          contains: *file
        "virtnodedevd.conf":
          description: C(/etc/libvirt/virtnodedevd.conf).
          returned: success
          type: dict
          contains: *file
        "virtnwfilterd.conf":
          description: C(/etc/libvirt/virtnwfilterd.conf).
          returned: success
          type: dict
          contains: *file
        "virtinterfaced.conf":
          description: C(/etc/libvirt/virtinterfaced.conf).
          returned: success
          type: dict
          contains: *file
        "virtlogd.conf":
          description: C(/etc/libvirt/virtlogd.conf).
          returned: success
          type: dict
          contains: *file
        "virtlockd.conf":
          description: C(/etc/libvirt/virtlockd.conf).
          returned: success
          type: dict
          contains: *file
        "libvirt.conf":
          description: C(/etc/libvirt/libvirt.conf).
          returned: success
          type: dict
          contains: *file
    # section: capabilities
    capabilities:
      description: What the running libvirt says of itself. A key that only libvirt can tell is null without a
        connection.
      returned: success
      type: dict
      contains:
        connected:
          description: Whether libvirt answered over a read-only connection.
          returned: success
          type: bool
        reason:
          description: Why not, otherwise empty.
          returned: success
          type: str
        libvirt_version:
          description: The version of the running daemon.
          returned: success
          type: str
        qemu_version:
          description: The version of QEMU that the daemon goes by.
          returned: success
          type: str
        host_uuid:
          description: What libvirt takes for the UUID of the host. Two hosts with the same cannot migrate to each
            other.
          returned: success
          type: str
        host_uuid_configured:
          description: C(host_uuid) of the daemon's configuration, null if it is not set.
          returned: success
          type: str
        host_uuid_source:
          description: C(host_uuid_source) of the daemon's configuration, null if it is not set.
          returned: success
          type: str
        secmodels:
          description: The security drivers that are in use.
          returned: success
          type: list
          elements: dict
          contains:
            model:
              description: V(selinux), V(apparmor), V(dac) or V(none).
              returned: success
              type: str
            doi:
              description: The domain of interpretation.
              returned: success
              type: str
            baselabels:
              description: The base label of each type of guest.
              returned: success
              type: dict
              sample: {"kvm": "+64055:+64055", "qemu": "+64055:+64055"}
        mac:
          description: Those of them that are mandatory access control.
          returned: success
          type: list
          elements: str
        dac:
          description: The user and group that QEMU runs as, by number.
          returned: success
          type: dict
          contains:
            uid:
              description: The user id, null where it cannot be told.
              returned: success
              type: int
            gid:
              description: The group id, null where it cannot be told.
              returned: success
              type: int
            source:
              description:
                - What says so - V(capabilities); without a connection C(/etc/libvirt/qemu.conf), or
                  C(/var/lib/libvirt/qemu), which libvirt gives to QEMU's user whenever its driver starts. Empty where
                  nothing does.
              returned: success
              type: str
        iommu:
          description: Whether libvirt found an IOMMU.
          returned: success
          type: bool
        machines:
          description:
            - The machine types that QEMU offers for guests of the host's architecture, without mere aliases. Each name
              without its version has a list of the versions; the version is empty in a name that has none.
          returned: success
          type: dict
          sample: {pc-q35: ["10.0", "9.2"], microvm: [""]}
        cpu_features:
          description: What the processor of a guest can have here at most (libvirt's C(host-model)), null where libvirt
            does not tell.
          returned: success
          type: list
          elements: str
          sample: [aes, avx2]
        machine_default:
          description: The machine type that a guest gets if it names none.
          returned: success
          type: str
        machines_deprecated:
          description:
            - The machine types of defined guests that QEMU means to drop; null where libvirt or the definitions do
              not tell.
          returned: success
          type: list
          elements: str
        domain_type:
          description: The type of guest that the answers hold for - V(kvm) or V(qemu).
          returned: success
          type: str
        firmware:
          description: The kinds of firmware that libvirt selects by itself.
          returned: success
          type: list
          elements: str
        secure_boot:
          description: Whether there is firmware with Secure Boot for guests.
          returned: success
          type: bool
        launch_security:
          description: The types of encrypted guests. Empty also with a libvirt before 10.5, which does not list them.
          returned: success
          type: list
          elements: str
        sev:
          description: AMD SEV.
          returned: success
          type: dict
          contains:
            state:
              description: V(present), V(absent) or V(unknown), by libvirt; without a connection V(absent) or
                V(unknown) by the kernel.
              returned: success
              type: str
            source:
              description: What says so.
              returned: success
              type: str
            kernel:
              description: Whether the kernel module kvm_amd has it on, null without the module or the parameter.
              returned: success
              type: dict
              contains:
                sev:
                  description: SEV.
                  returned: success
                  type: bool
                sev_es:
                  description: SEV-ES.
                  returned: success
                  type: bool
                sev_snp:
                  description: SEV-SNP.
                  returned: success
                  type: bool
        sev_snp:
          description: AMD SEV-SNP.
          returned: success
          type: dict
          contains:
            state:
              description: V(present), V(absent) or V(unknown), likewise.
              returned: success
              type: str
            source:
              description: What says so.
              returned: success
              type: str
        sev_device:
          description: Whether there is C(/dev/sev).
          returned: success
          type: bool
        sev_validate:
          description: Whether libvirt's tool to check the measurement of an SEV guest, C(virt-qemu-sev-validate), is
            installed.
          returned: success
          type: bool
    # section: logging
    logging:
      description: What the host records.
      returned: success
      type: dict
      contains:
        audit:
          description: The kernel's audit.
          returned: success
          type: dict
          contains:
            installed:
              description: Whether auditd is installed.
              returned: success
              type: bool
            running:
              description: Whether auditd runs.
              returned: success
              type: bool
            enabled:
              description: What the kernel says - V(0) off, V(1) on, V(2) on and locked. Null where C(auditctl) is
                missing or not let.
              returned: success
              type: int
            watched:
              description: The paths that the loaded rules watch, null where C(auditctl) is missing or not let.
              returned: success
              type: list
              elements: str
            watched_configured:
              description: The paths that the rules in C(/etc/audit) watch.
              returned: success
              type: list
              elements: str
        journal:
          description: systemd's journal.
          returned: success
          type: dict
          contains:
            storage:
              description: C(Storage) of C(journald.conf), V(auto) if it is not set.
              returned: success
              type: str
            persistent:
              description: Whether there is C(/var/log/journal).
              returned: success
              type: bool
        clock_synchronized:
          description: Whether the kernel's clock follows a time source, null where it does not say.
          returned: success
          type: bool
        directories:
          description: The directories of logs on guests that are there.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The path.
              returned: success
              type: str
            mode:
              description: The permission bits.
              returned: success
              type: str
            owner:
              description: The user that owns it.
              returned: success
              type: str
            group:
              description: The group that owns it.
              returned: success
              type: str
            writable_by_others:
              description: Whether any user can write in it.
              returned: success
              type: bool
            readable:
              description: Files in it that are not empty and that any user can read, at most 20 of them.
              returned: success
              type: list
              elements: str
            readable_count:
              description: How many there are.
              returned: success
              type: int
    # section: tls
    tls:
      description: Where libvirt and QEMU look for TLS certificates and keys.
      returned: success
      type: dict
      contains:
        uses:
          description: The purposes.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: V(migrate), V(vnc), V(spice), V(chardev), V(nbd), V(backup), or V(daemon) for libvirt's own
                TLS socket.
              returned: success
              type: str
            directory:
              description: The directory.
              returned: success
              type: str
            configured:
              description: Whether the configuration names it.
              returned: success
              type: bool
            exists:
              description: Whether the directory is there.
              returned: success
              type: bool
            present:
              description: The files that are there.
              returned: success
              type: list
              elements: str
            missing:
              description: The names of those that are not.
              returned: success
              type: list
              elements: str
            problems:
              description:
                - What keeps them from working, found by letting a server and a client made of them talk to each other.
                  That is a key of another certificate, an authority that did not issue one, the wrong purpose, or an
                  expired one. Of V(migrate) it is also a server's certificate without the name that libvirt tells the
                  source of a migration.
                - Files that QEMU's user may not read are among them.
                - V(null) where a file is missing, or it could not be tried.
              returned: success
              type: list
              elements: str
        certificates:
          description: The files of certificates among them, at most 24. What is said is about the first one in each.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The path.
              returned: success
              type: str
            expires:
              description: When the first of the file's ends, in seconds since the epoch, null where it cannot be read.
              returned: success
              type: int
            days_left:
              description: The whole days until then, negative afterwards, null where it cannot be read.
              returned: success
              type: int
            algorithm:
              description: The algorithm of the public key.
              returned: success
              type: str
              sample: rsaEncryption
            bits:
              description: The length of the public key, null where it cannot be read.
              returned: success
              type: int
            alternative_names:
              description: Whether a name or an address of a host is among its subject alternative names, null where it
                cannot be read.
              returned: success
              type: bool
            names:
              description: Those names and addresses, null where it cannot be read.
              returned: success
              type: list
              elements: str
            digest:
              description:
                - What tells whether two hosts have the same. It is the certificate's fingerprint (SHA-256), or a digest
                  of all in the file if there are several. Null where it cannot be read.
              returned: success
              type: str
            reason:
              description: Why it cannot be read, otherwise empty.
              returned: success
              type: str
    # section: secrets
    secrets:
      description: The values of libvirt's persistent secrets on the disk. No value is read.
      returned: success
      type: dict
      contains:
        encryption_known:
          description: Whether the installed libvirt can encrypt them (12.1 and later), null without libvirt.
          returned: success
          type: bool
        encrypt_data:
          description: C(encrypt_data) of C(secret.conf), null if it is not set.
          returned: success
          type: int
        key_configured:
          description: C(secrets_encryption_key) of C(secret.conf), empty if it is not set.
          returned: success
          type: str
        key_exists:
          description: Whether there is the key that systemd seals for this host.
          returned: success
          type: bool
        defined:
          description: How many persistent secrets there are.
          returned: success
          type: int
        encrypted:
          description: How many values are encrypted.
          returned: success
          type: int
        plain:
          description: How many values are only encoded (base64).
          returned: success
          type: int
    # section: definitions
    definitions:
      description:
        - The definitions of guests. M(hypervisor.hardening.guest_definition_info) tells more of each.
      returned: success
      type: dict
      contains:
        guests:
          description: One entry for each guest that is defined or runs, by name.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The guest's name; of one whose files cannot be read, that of the file.
              returned: success
              type: str
            uuid:
              description: The guest's UUID; null, as all below but V(persistent) and V(active), if nothing can be read.
              returned: success
              type: str
            persistent:
              description: Whether it has a file in C(/etc/libvirt/qemu).
              returned: success
              type: bool
            active:
              description: Whether it runs.
              returned: success
              type: bool
            type:
              description: The domain type, V(kvm) or V(qemu) as a rule.
              returned: success
              type: str
            machine:
              description: The machine type.
              returned: success
              type: str
            launch_security:
              description: V(sev), V(sev-snp), V(tdx), V(s390-pv), or empty without encrypted memory.
              returned: success
              type: str
            configured:
              description:
                - In which ways the definition of the next start leaves the confinement; null if it cannot be read.
                - A guest without one in C(/etc/libvirt/qemu) is taken to start again as it runs.
                - Of each way at most 8 are listed, the last of which then says that there are more.
              returned: success
              type: list
              elements: dict
              contains:
                id:
                  description: The way, one of the words of M(hypervisor.hardening.guest_definition_info).
                  returned: success
                  type: str
                where:
                  description: The place, such as V(domain), V(disk vda) or V(pci 0000:01:00.0).
                  returned: success
                  type: str
                observed:
                  description: What the definition says.
                  returned: success
                  type: str
            running:
              description: The same of the running guest; empty if it does not run, null if that cannot be read.
              returned: success
              type: list
              elements: dict
              contains:
                id:
                  description: As above.
                  returned: success
                  type: str
                where:
                  description: As above.
                  returned: success
                  type: str
                observed:
                  description: As above.
                  returned: success
                  type: str
            traits:
              description: >-
                What else there is in the definition of the next start, by the words of
                M(hypervisor.hardening.guest_definition_info).
              returned: success
              type: list
              elements: str
            cpu:
              description: The processor of the next start; null if it cannot be read.
              returned: success
              type: dict
              contains:
                mode:
                  description: V(host-passthrough), V(host-model), V(maximum), V(custom), or empty for QEMU's default.
                  returned: success
                  type: str
                model:
                  description: The model, empty for none.
                  returned: success
                  type: str
                pmu:
                  description: Whether it has performance counters, null if the definition does not say.
                  returned: success
                  type: bool
                given:
                  description:
                    - The features that protect a guest against its processor which the definition adds or wants.
                  returned: success
                  type: list
                  elements: str
                taken_away:
                  description: Those that it disables or forbids.
                  returned: success
                  type: list
                  elements: str
                pinned:
                  description: The host's processors that all of the guest's are bound to, empty for any.
                  returned: success
                  type: str
            encrypted:
              description:
                - Whether QEMU or libvirt encrypts each disk that the guest writes to; null if that cannot be read.
              returned: success
              type: bool
            disks:
              description:
                - The disks that lie on the network, that other guests share, or that take the guest's own SCSI
                  commands, at most 32.
              returned: success
              type: list
              elements: dict
              contains:
                name:
                  description: The guest and the disk.
                  returned: success
                  type: str
                guest:
                  description: The guest.
                  returned: success
                  type: str
                source:
                  description: The path, PROTOCOL and name, or pool and volume.
                  returned: success
                  type: str
                protocol:
                  description: The protocol of a disk on the network, empty for others.
                  returned: success
                  type: str
                format:
                  description: The format, empty if the definition does not say.
                  returned: success
                  type: str
                cache:
                  description: The mode of the cache, empty for the default.
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
                scsi:
                  description:
                    - By what the guest gets commands of its own through. V(rawio), V(sgio unfiltered), V(lun),
                      V(reservations).
                  returned: success
                  type: list
                  elements: str
                authenticated:
                  description: Whether there is a secret for the server.
                  returned: success
                  type: bool
                tls:
                  description: Whether the definition asks for TLS.
                  returned: success
                  type: bool
            interfaces:
              description: The network interfaces of the next start and those plugged in since, at most 32.
              returned: success
              type: list
              elements: dict
              contains:
                name:
                  description: The guest and the MAC address.
                  returned: success
                  type: str
                guest:
                  description: The guest.
                  returned: success
                  type: str
                type:
                  description: V(network), V(bridge), V(direct), V(ethernet), V(hostdev) and so on.
                  returned: success
                  type: str
                source:
                  description: The bridge, network, device or socket.
                  returned: success
                  type: str
                target:
                  description: The name of the host's device, empty if there is none yet.
                  returned: success
                  type: str
                filter:
                  description: The network filter at the next start, empty for none.
                  returned: success
                  type: str
                filter_running:
                  description: The one of the running guest, or that of the next start; null if it cannot be read.
                  returned: success
                  type: str
                parameters:
                  description: The names of the parameters that the filter is given, at most 8.
                  returned: success
                  type: list
                  elements: str
                isolated:
                  description: Whether it may not reach other isolated ports of the bridge.
                  returned: success
                  type: bool
                trusted_rx_filters:
                  description: Whether the guest may change what the host's device receives.
                  returned: success
                  type: bool
                limited:
                  description: Whether there is a limit of bandwidth.
                  returned: success
                  type: bool
        unread:
          description: What cannot be read as a definition, and why.
          returned: success
          type: list
          elements: dict
          contains:
            path:
              description: The file.
              returned: success
              type: str
            reason:
              description: Why.
              returned: success
              type: str
    # section: guests
    guests:
      description:
        - One entry for each running QEMU with a guest, by name and pid.
          M(hypervisor.hardening.guest_confinement_info) tells more of each.
      returned: success
      type: list
      elements: dict
      contains:
        name:
          description: The guest's name.
          returned: success
          type: str
        uuid:
          description: The guest's UUID, empty where QEMU was told none.
          returned: success
          type: str
        pid:
          description: QEMU's process.
          returned: success
          type: int
        start_time:
          description: When it was started, in seconds since the epoch.
          returned: success
          type: float
        managed_by:
          description: V(libvirt), V(libvirt-session) or V(other).
          returned: success
          type: str
        uid:
          description: The effective user id.
          returned: success
          type: int
        gid:
          description: The effective group id.
          returned: success
          type: int
        cap_eff:
          description: The effective capabilities, in hexadecimal.
          returned: success
          type: str
        no_new_privs:
          description: Whether executing a program can give it no privileges.
          returned: success
          type: bool
        seccomp:
          description: What the kernel says of its seccomp filters.
          returned: success
          type: dict
          contains:
            mode:
              description: V(0) none, V(1) strict, V(2) filter.
              returned: success
              type: int
            filters:
              description: How many, null where the kernel does not count them.
              returned: success
              type: int
        propagation:
          description: The propagation of C(/) in its mount namespace.
          returned: success
          type: str
        label:
          description: Its label of mandatory access control, empty texts where the kernel has none.
          returned: success
          type: dict
          contains:
            model:
              description: V(apparmor) or V(selinux).
              returned: success
              type: str
            value:
              description: The profile or the context.
              returned: success
              type: str
            mode:
              description: V(enforce), V(complain), V(enforcing), V(permissive) and so on.
              returned: success
              type: str
        label_shared_with:
          description: The running guests at whose files and memory this label lets it.
          returned: success
          type: list
          elements: str
        cgroup:
          description: The cgroup that filters its devices.
          returned: success
          type: str
        device_filter:
          description: Whether devices are filtered for that cgroup, null where it cannot be told.
          returned: success
          type: bool
        limits:
          description: Soft resource limits, V(-1) for none.
          returned: success
          type: dict
          contains:
            core:
              description: Core file size in bytes.
              returned: success
              type: int
            memlock:
              description: Locked memory in bytes.
              returned: success
              type: int
            nofile:
              description: Open files.
              returned: success
              type: int
        dump_guest_core:
          description: Whether a core file holds the guest's memory by QEMU's own word (C(dump-guest-core)).
          returned: success
          type: bool
        binary:
          description: QEMU's program.
          returned: success
          type: str
        unexpected_devices:
          description: Nodes in its C(/dev) that nobody told libvirt to put there, at most 20.
          returned: success
          type: list
          elements: str
        machine:
          description: The machine type on its command line.
          returned: success
          type: str
        control_on_network:
          description:
            - Options of its command line by which its monitor or debugger can be reached through the network.
          returned: success
          type: list
          elements: str
        helpers:
          description: The processes that libvirt started beside it.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: Such as V(virtiofsd) and V(swtpm).
              returned: success
              type: str
            pid:
              description: The process.
              returned: success
              type: int
            uid:
              description: The effective user id.
              returned: success
              type: int
            cap_eff:
              description: The effective capabilities, in hexadecimal.
              returned: success
              type: str
            no_new_privs:
              description: Whether executing a program can give it no privileges.
              returned: success
              type: bool
            binary_deleted:
              description: Whether its program was deleted or replaced since.
              returned: success
              type: bool
            seccomp:
              description: The mode of seccomp.
              returned: success
              type: int
            private_user_namespace:
              description: Whether its capabilities are over a user namespace of its own alone.
              returned: success
              type: bool
            label:
              description: The profile or the context.
              returned: success
              type: str
            virtiofsd_sandbox:
              description: V(namespace), V(chroot) or V(none); empty for another helper.
              returned: success
              type: str
            virtiofsd_seccomp:
              description: V(kill), V(trap), V(log) or V(none); empty for another helper.
              returned: success
              type: str
        runs_as_root:
          description: One of its user or group ids is 0.
          returned: success
          type: bool
        capabilities:
          description: It has capabilities over the host.
          returned: success
          type: bool
        new_privileges:
          description: It may gain privileges by executing a program.
          returned: success
          type: bool
        no_seccomp:
          description: No seccomp filter of QEMU's own is active.
          returned: success
          type: bool
        host_mount_namespace:
          description: It has no mount namespace of its own.
          returned: success
          type: bool
        host_dev:
          description: It sees the host's C(/dev).
          returned: success
          type: bool
        unexpected_device:
          description: Its C(/dev) holds what nobody told libvirt to put there.
          returned: success
          type: bool
        no_mount_propagation:
          description: What the host mounts later never reaches it.
          returned: success
          type: bool
        no_mac:
          description: No label of its own confines it, or the kernel has no such thing.
          returned: success
          type: bool
        mac_not_enforced:
          description: Its label only logs.
          returned: success
          type: bool
        no_device_cgroup:
          description: No device filter holds for its cgroup, or the kernel does not tell.
          returned: success
          type: bool
        core_dumps:
          description: It would leave a core file with memory of the guest.
          returned: success
          type: bool
        deleted_binary:
          description: Its program was deleted or replaced since its start.
          returned: success
          type: bool
        older_than_configuration:
          description: It was started before the present C(qemu.conf) was in force.
          returned: success
          type: bool
    # section: mac
    mac:
      description: Mandatory access control.
      returned: success
      type: dict
      contains:
        model:
          description: What this kernel confines guests with, V(apparmor) or V(selinux), empty for nothing.
          returned: success
          type: str
        mode:
          description: V(enabled) for AppArmor, V(enforcing) or V(permissive) for SELinux, empty for nothing.
          returned: success
          type: str
        enforcing:
          description: Whether the running kernel enforces it.
          returned: success
          type: bool
        lsm:
          description: The active security modules, null where C(/sys/kernel/security) is not mounted.
          returned: success
          type: list
          elements: str
        boot_arguments:
          description: What the running kernel was told about security modules on its command line.
          returned: success
          type: list
          elements: str
        configured:
          description: What is on disk for the next boot.
          returned: success
          type: dict
          contains:
            enforcing:
              description:
                - Whether what the running kernel has is enforced after the next boot as well, by the file in
                  C(source); null where no init that is known loads it.
              returned: success
              type: bool
            source:
              description: What that was seen by, empty where there is nothing.
              returned: success
              type: str
            apparmor_service:
              description: Whether systemd loads AppArmor's profiles at boot.
              returned: success
              type: bool
            selinux:
              description: C(SELINUX) of C(/etc/selinux/config), empty for none.
              returned: success
              type: str
            selinux_policy:
              description: C(SELINUXTYPE) of C(/etc/selinux/config), empty for none.
              returned: success
              type: str
        apparmor:
          description: AppArmor; the lists that tell of loaded profiles are empty where the kernel has none.
          returned: success
          type: dict
          contains:
            profiles:
              description:
                - The loaded profiles about virtualization other than the guests' own, null where it cannot be told.
              returned: success
              type: list
              elements: dict
              contains:
                name:
                  description: The profile's name.
                  returned: success
                  type: str
                mode:
                  description: Such as V(enforce) and V(complain).
                  returned: success
                  type: str
            guest_profiles:
              description: How many profiles of single guests are loaded, null where it cannot be told.
              returned: success
              type: int
            guest_profiles_not_enforced:
              description: Those of them that only log, null where it cannot be told.
              returned: success
              type: list
              elements: dict
              contains:
                name:
                  description: The profile's name.
                  returned: success
                  type: str
                mode:
                  description: Such as V(enforce) and V(complain).
                  returned: success
                  type: str
            disabled:
              description: Profiles about virtualization that C(/etc/apparmor.d/disable) switches off.
              returned: success
              type: list
              elements: str
            force_complain:
              description: Profiles about virtualization that C(/etc/apparmor.d/force-complain) lets only log.
              returned: success
              type: list
              elements: str
            not_enforced_in:
              description: Flags in files of profiles that make them confine nothing.
              returned: success
              type: list
              elements: dict
              contains:
                name:
                  description: The file and the line, for a report.
                  returned: success
                  type: str
                path:
                  description: The file.
                  returned: success
                  type: str
                line:
                  description: The line of the file.
                  returned: success
                  type: int
                rule:
                  description: The rule, at most 120 characters of it.
                  returned: success
                  type: str
                reason:
                  description: What is too much about it.
                  returned: success
                  type: str
            files:
              description: The files looked at that say what guests may do beside what libvirt finds out.
              returned: success
              type: list
              elements: str
            broad_grants:
              description: Rules in them that give every guest too much, at most 40.
              returned: success
              type: list
              elements: dict
              contains:
                name:
                  description: The file and the line, for a report.
                  returned: success
                  type: str
                path:
                  description: The file.
                  returned: success
                  type: str
                line:
                  description: The line of the file.
                  returned: success
                  type: int
                rule:
                  description: The rule, at most 120 characters of it.
                  returned: success
                  type: str
                reason:
                  description: What is too much about it.
                  returned: success
                  type: str
            denies_sound:
              description: Whether a rule in them keeps guests from the host's sound cards.
              returned: success
              type: bool
        selinux:
          description: SELinux; the lists are empty where the kernel has none.
          returned: success
          type: dict
          contains:
            enforcing:
              description: Whether the running kernel enforces it.
              returned: success
              type: bool
            booleans:
              description: The booleans that widen what guests may do.
              returned: success
              type: list
              elements: dict
              contains:
                name:
                  description: The boolean.
                  returned: success
                  type: str
                running:
                  description: Whether it is on.
                  returned: success
                  type: bool
                configured:
                  description: V(on) or V(off) as made persistent, empty where it has the policy's own value.
                  returned: success
                  type: str
            types:
              description:
                - The types of guests and of libvirt's daemons that the loaded policy has, null where it cannot be
                  told.
              returned: success
              type: list
              elements: dict
              contains:
                name:
                  description: The type.
                  returned: success
                  type: str
                permissive:
                  description: Whether what it does against the policy is only logged.
                  returned: success
                  type: bool
        daemons:
          description: The labels of libvirt's running daemons.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The daemon.
              returned: success
              type: str
            pid:
              description: Its process.
              returned: success
              type: int
            label:
              description: The profile or the context, empty where the kernel has none.
              returned: success
              type: str
            mode:
              description: As of a guest's label.
              returned: success
              type: str
            confined:
              description: Whether that label confines it.
              returned: success
              type: bool
        unread:
          description: What could not be read, and why.
          returned: success
          type: list
          elements: dict
          contains:
            path:
              description: The file or directory.
              returned: success
              type: str
            reason:
              description: Why.
              returned: success
              type: str
    # section: mounts
    mounts:
      description: Mounts as PID 1 sees them.
      returned: success
      type: dict
      contains:
        root:
          description: The mount on C(/).
          returned: success
          type: dict
          contains:
            propagation:
              description: V(shared), V(private) and so on.
              returned: success
              type: str
            shared:
              description: Whether later mounts can reach guests, null where there is no such mount.
              returned: success
              type: bool
        shared_after_boot:
          description:
            - Whether they can after the next boot as well; null where the init is not systemd, of which that is not
              known.
          returned: success
          type: bool
        private:
          description: Mounts that are not shared although nothing tells of a reason, at most 40.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The mount point.
              returned: success
              type: str
            propagation:
              description: As it is.
              returned: success
              type: str
        pinned:
          description: Mounts that are not shared on purpose, at most 40.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The mount point.
              returned: success
              type: str
            propagation:
              description: As it is.
              returned: success
              type: str
            reason:
              description: Why it looks so.
              returned: success
              type: str
        guests:
          description: The running guests of libvirt with a mount namespace of their own.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The guest.
              returned: success
              type: str
            reached:
              description: Whether what the host mounts from now on reaches it.
              returned: success
              type: bool
            hugetlbfs_missing:
              description: The host's hugetlbfs mounts that it does not see and never will.
              returned: success
              type: list
              elements: str
        leftovers:
          description:
            - What broken-off starts of guests have left in C(/run/libvirt/qemu), null where it cannot be told.
          returned: success
          type: list
          elements: str
        directories:
          description: Directories of guests' files, and the mount that each is on.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The directory.
              returned: success
              type: str
            purpose:
              description: V(state), V(images) or V(memory_backing).
              returned: success
              type: str
            exists:
              description: Whether it is there.
              returned: success
              type: bool
            uid:
              description: Its owner, null where it is not there.
              returned: success
              type: int
            gid:
              description: Its group, null where it is not there.
              returned: success
              type: int
            mode:
              description: Its permission bits, in octal.
              returned: success
              type: str
            world_writable:
              description: Whether anybody may write there.
              returned: success
              type: bool
            mount:
              description: The mount point that holds it.
              returned: success
              type: str
            fstype:
              description: The type of that file system.
              returned: success
              type: str
            nodev:
              description: Whether that mount has C(nodev).
              returned: success
              type: bool
            nosuid:
              description: Whether that mount has C(nosuid).
              returned: success
              type: bool
        unread:
          description: What could not be read, and why.
          returned: success
          type: list
          elements: dict
          contains:
            path:
              description: The file or directory.
              returned: success
              type: str
            reason:
              description: Why.
              returned: success
              type: str
    # section: hugepages
    hugepages:
      description: Huge pages.
      returned: success
      type: dict
      contains:
        pools:
          description: The kernel's pools, by size.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The size of a page, such as V(2M).
              returned: success
              type: str
            kib:
              description: The same in KiB.
              returned: success
              type: int
            pages:
              description: The pages that stay in the pool.
              returned: success
              type: int
            free:
              description: Those that nobody has.
              returned: success
              type: int
            reserved:
              description: Those of the free ones that are promised.
              returned: success
              type: int
            surplus:
              description: Pages above the pool, which go when they are free.
              returned: success
              type: int
            in_use:
              description: Those in use or promised.
              returned: success
              type: int
            nodes:
              description: The same by NUMA node.
              returned: success
              type: list
              elements: dict
              contains:
                node:
                  description: The node.
                  returned: success
                  type: int
                pages:
                  description: Its pages.
                  returned: success
                  type: int
                free:
                  description: Its free pages.
                  returned: success
                  type: int
        mounts:
          description: The hugetlbfs mounts.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The mount point.
              returned: success
              type: str
            size:
              description: The size of its pages.
              returned: success
              type: str
            uid:
              description: Its owner.
              returned: success
              type: int
            gid:
              description: Its group.
              returned: success
              type: int
            mode:
              description: Its permission bits, in octal.
              returned: success
              type: str
            world_writable:
              description: Whether anybody may write there.
              returned: success
              type: bool
            propagation:
              description: V(shared), V(private) and so on.
              returned: success
              type: str
            base:
              description: Whether libvirt's directory (C(libvirt/qemu)) is in it.
              returned: success
              type: bool
        configured:
          description: What C(qemu.conf) says.
          returned: success
          type: dict
          contains:
            hugetlbfs_mount:
              description: The paths to use, null where it is not set and libvirt takes every mount that it finds.
              returned: success
              type: list
              elements: str
        paths:
          description:
            - >-
              The paths that libvirt takes huge pages from: those of C(hugetlbfs_mount), else the mounts.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The path.
              returned: success
              type: str
            exists:
              description: Whether it is there.
              returned: success
              type: bool
            hugetlbfs:
              description: Whether it leads to hugetlbfs.
              returned: success
              type: bool
            base:
              description: Whether libvirt's directory is in it.
              returned: success
              type: bool
        guest_directories:
          description: libvirt's directories for single guests, at most 40.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The directory.
              returned: success
              type: str
            uid:
              description: Its owner.
              returned: success
              type: int
            mode:
              description: Its permission bits, in octal.
              returned: success
              type: str
            private:
              description: Whether its owner alone may use it.
              returned: success
              type: bool
        guests:
          description: The running guests of libvirt that have huge pages.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The guest.
              returned: success
              type: str
            pid:
              description: Its process.
              returned: success
              type: int
            kib:
              description: How much, in KiB.
              returned: success
              type: int
        unread:
          description: What could not be read, and why.
          returned: success
          type: list
          elements: dict
          contains:
            path:
              description: The file or directory.
              returned: success
              type: str
            reason:
              description: Why.
              returned: success
              type: str
    # section: taps
    taps:
      description: TAP devices, bridges, and the device names that guests want.
      returned: success
      type: dict
      contains:
        interfaces:
          description: The TAP, TUN and macvtap devices, at most 200.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The device.
              returned: success
              type: str
            kind:
              description: V(tap), V(tun) or V(macvtap).
              returned: success
              type: str
            persistent:
              description: Whether it stays when nobody holds it.
              returned: success
              type: bool
            owner:
              description: The user who may open it, null for root alone.
              returned: success
              type: int
            group:
              description: The group that may open it, null for none.
              returned: success
              type: int
            multi_queue:
              description: Whether it was made for several queues.
              returned: success
              type: bool
            bridge:
              description: The device that it is a port of, empty for none.
              returned: success
              type: str
            held_by:
              description: The processes that have it open.
              returned: success
              type: list
              elements: dict
              contains:
                pid:
                  description: The process.
                  returned: success
                  type: int
                comm:
                  description: Its name.
                  returned: success
                  type: str
                guest:
                  description: The guest that it is, empty for none.
                  returned: success
                  type: str
            reserved_for_guest:
              description: Whether a guest's definition takes it as it is (C(managed='no'\)).
              returned: success
              type: bool
            stale:
              description: Whether it is a persistent TAP that nobody holds and no definition takes as it is.
              returned: success
              type: bool
        interfaces_omitted:
          description: How many more there are.
          returned: success
          type: int
        bridges:
          description: The bridges.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The bridge.
              returned: success
              type: str
            ports:
              description: Its ports.
              returned: success
              type: list
              elements: str
        wanted:
          description:
            - The device names that definitions and running guests want, those in conflict first, at most 200; null
              where definitions cannot be read.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The guest and the device, for a report.
              returned: success
              type: str
            interface:
              description: The device.
              returned: success
              type: str
            guest:
              description: The guest.
              returned: success
              type: str
            verdict:
              description: As M(hypervisor.hardening.tap_guard) judges it.
              returned: success
              type: str
            conflict:
              description: Whether the guest cannot start, or not on this device.
              returned: success
              type: bool
            reason:
              description: Why, and what to do; empty where there is no conflict.
              returned: success
              type: str
        wanted_omitted:
          description: How many more there are.
          returned: success
          type: int
        unread:
          description: What could not be read, and why.
          returned: success
          type: list
          elements: dict
          contains:
            path:
              description: The file or directory.
              returned: success
              type: str
            reason:
              description: Why.
              returned: success
              type: str
    # section: memfd
    memfd:
      description: Shared memory without a file (C(memfd_create(2\))), by a call as QEMU's user.
      returned: success
      type: dict
      contains:
        works:
          description: Whether the call works, null where it could not be tried.
          returned: success
          type: bool
        reason:
          description: Why not, or why it could not be tried.
          returned: success
          type: str
        uid:
          description: QEMU's user id, null where nobody knows.
          returned: success
          type: int
        gid:
          description: QEMU's group id, null where nobody knows.
          returned: success
          type: int
        user_from:
          description: The file or directory that tells it, empty where nobody knows.
          returned: success
          type: str
        memfd_noexec:
          description:
            - C(vm.memfd_noexec), null where the kernel has no such setting. It does not decide whether the call
              works.
          returned: success
          type: int
        fallback:
          description: Where QEMU puts shared memory when the call does not work.
          returned: success
          type: dict
          contains:
            directory:
              description: The directory.
              returned: success
              type: str
            exists:
              description: Whether it is there.
              returned: success
              type: bool
            mode:
              description: Its permission bits, in octal.
              returned: success
              type: str
            world_writable:
              description: Whether anybody may write there.
              returned: success
              type: bool
        unread:
          description: What could not be read, and why.
          returned: success
          type: list
          elements: dict
          contains:
            path:
              description: The file or directory.
              returned: success
              type: str
            reason:
              description: Why.
              returned: success
              type: str
    # section: memory
    memory:
      description: The host's memory.
      returned: success
      type: dict
      contains:
        total_kib:
          description: What the kernel has, in KiB, null where it cannot be told.
          returned: success
          type: int
        guests_kib:
          description: What the running guests of libvirt may come to have, by QEMU's command lines, in KiB.
          returned: success
          type: int
        machine_slice:
          description: The cgroup that all guests are in.
          returned: success
          type: dict
          contains:
            exists:
              description: Whether it is there.
              returned: success
              type: bool
            max_bytes:
              description: Its C(memory.max), null for no limit.
              returned: success
              type: int
            high_bytes:
              description: Its C(memory.high), null for no limit.
              returned: success
              type: int
        swap:
          description: The swap areas in use.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The device or file.
              returned: success
              type: str
            kind:
              description: V(zram), V(dm-crypt), V(partition) or V(file).
              returned: success
              type: str
            kib:
              description: Its size in KiB.
              returned: success
              type: int
            protected:
              description: Whether nobody can read from a disk what is written there, null where it cannot be told.
              returned: success
              type: bool
    # section: kernel
    kernel:
      description: The kernel, as it runs and as its next boot is configured.
      returned: success
      type: dict
      contains:
        release:
          description: The release of the running kernel.
          returned: success
          type: str
        cmdline:
          description:
            - The kernel's command line. Only words that tell of security are listed; others may hold passwords.
          returned: success
          type: dict
          contains:
            running:
              description: What the running kernel was given, by C(/proc/cmdline).
              returned: success
              type: list
              elements: str
            left_out:
              description: How many words are not listed.
              returned: success
              type: int
            configured:
              description:
                - What the boot loader is configured to give, null where that is not known or its entries differ.
              returned: success
              type: list
              elements: str
            configured_by:
              description: The boot loader's file or directory, null where none of a known boot loader was found.
              returned: success
              type: str
        installed:
          description: The releases that are installed with an image to boot, the oldest first.
          returned: success
          type: list
          elements: str
        newest:
          description: The newest installed release of the running kernel's flavour, null for none.
          returned: success
          type: str
        reboot:
          description: Whether another kernel, or something else, waits for a reboot.
          returned: success
          type: dict
          contains:
            required:
              description: Null where no kernel is installed here (a container).
              returned: success
              type: bool
            reasons:
              description: Why.
              returned: success
              type: list
              elements: str
        modules:
          description: Kernel modules that virtualization uses.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The module.
              returned: success
              type: str
            loaded:
              description: Whether it is in the running kernel; one that is built in shows only if it has parameters.
              returned: success
              type: bool
            blacklisted_by:
              description: The file of modprobe.d that keeps it from loading by itself, null for none.
              returned: success
              type: str
            disabled_by:
              description: The file of modprobe.d that keeps it from loading at all, null for none.
              returned: success
              type: str
        parameters:
          description: Module parameters that exist or are configured.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: C(MODULE.PARAMETER).
              returned: success
              type: str
            module:
              description: The module.
              returned: success
              type: str
            loaded:
              description: Whether the module is in the running kernel.
              returned: success
              type: bool
            running:
              description:
                - The value in force, a boolean for a switch, a text otherwise; null while the module is not loaded.
              returned: success
              type: raw
            configured:
              description: The same from the boot loader's configuration or modprobe.d; null where neither sets it.
              returned: success
              type: raw
            configured_by:
              description: The file that sets it, null for none.
              returned: success
              type: str
        sysctls:
          description: Kernel parameters under C(/proc/sys).
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The parameter.
              returned: success
              type: str
            present:
              description: Whether this kernel has it, as far as this host may see it.
              returned: success
              type: bool
            running:
              description: The value in force, a number where it is one; null where it is not present.
              returned: success
              type: raw
            configured:
              description: The value that C(sysctl.d) sets at boot; null for none.
              returned: success
              type: raw
            configured_by:
              description: The file that sets it, null for none.
              returned: success
              type: str
        lockdown:
          description:
            - V(none), V(integrity), V(confidentiality); V(unsupported) by a kernel without it; null where not shown.
          returned: success
          type: str
        secure_boot:
          description: Secure Boot, as the firmware tells it.
          returned: success
          type: dict
          contains:
            efi:
              description: Whether the host was started by UEFI.
              returned: success
              type: bool
            enabled:
              description: Whether Secure Boot is on; false without UEFI; null where the variable cannot be read.
              returned: success
              type: bool
            setup_mode:
              description: Whether the firmware has no platform key, and so takes any; null where it cannot be read.
              returned: success
              type: bool
        sig_enforce:
          description:
            - Whether only signed modules load, by C(/sys/module/module/parameters/sig_enforce); null for no such file.
          returned: success
          type: bool
        taint:
          description: What has tainted the kernel.
          returned: success
          type: dict
          contains:
            value:
              description: The bits of C(/proc/sys/kernel/tainted).
              returned: success
              type: int
            flags:
              description: Their letters, without G.
              returned: success
              type: list
              elements: str
        core:
          description: Where core dumps go.
          returned: success
          type: dict
          contains:
            pattern:
              description: C(kernel.core_pattern).
              returned: success
              type: str
            handler:
              description:
                - The name of the program that the pattern pipes to; V(file) where it names a file; V(none) if empty.
              returned: success
              type: str
            storage:
              description: C(Storage) of C(coredump.conf) where systemd-coredump is the handler, otherwise null.
              returned: success
              type: str
        kdump:
          description: Dumps of the kernel when it crashes.
          returned: success
          type: dict
          contains:
            loaded:
              description: Whether a crash kernel is loaded.
              returned: success
              type: bool
            dump_level:
              description: The C(-d) of makedumpfile, null where none is configured.
              returned: success
              type: int
            configured_by:
              description: The file that configures kdump, null for none.
              returned: success
              type: str
        unread:
          description: What could not be read.
          returned: success
          type: list
          elements: dict
          contains: &refused
            path:
              description: The file, or the command.
              returned: success
              type: str
            reason:
              description: Why.
              returned: success
              type: str
    # section: cpu
    cpu:
      description: The processor.
      returned: success
      type: dict
      contains:
        vendor:
          description: C(vendor_id), empty on architectures that have none.
          returned: success
          type: str
        model:
          description: C(model name), empty on architectures that have none.
          returned: success
          type: str
        virtualization:
          description: V(vmx) or V(svm), empty where the processor shows neither.
          returned: success
          type: str
        second_level:
          description: V(ept) or V(npt), empty where the processor shows neither.
          returned: success
          type: str
        virtual:
          description: Whether this host is itself a guest, by the processor's flag C(hypervisor).
          returned: success
          type: bool
        microcode:
          description: The revisions in use, one unless the processors differ.
          returned: success
          type: list
          elements: str
        smt:
          description: Simultaneous multithreading.
          returned: success
          type: dict
          contains:
            control:
              description: C(/sys/devices/system/cpu/smt/control), null for no such file.
              returned: success
              type: str
            active:
              description: Whether threads share cores right now, null for no such file.
              returned: success
              type: bool
        vulnerabilities:
          description: What C(/sys/devices/system/cpu/vulnerabilities) holds, null for no such directory.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The file.
              returned: success
              type: str
            text:
              description: Its content.
              returned: success
              type: str
            state:
              description:
                - V(not_affected), V(mitigated) or V(vulnerable), threads of one core aside; null where the kernel does
                  not know.
              returned: success
              type: str
            smt_vulnerable:
              description:
                - Whether the kernel says that threads of one core can attack each other; null if it says nothing.
              returned: success
              type: bool
        unread:
          description: What could not be read.
          returned: success
          type: list
          elements: dict
          contains: *refused
    # section: iommu
    iommu:
      description: IOMMUs and devices that are held through VFIO, by sysfs.
      returned: success
      type: dict
      contains:
        units:
          description: C(/sys/class/iommu).
          returned: success
          type: list
          elements: str
        groups:
          description: How many IOMMU groups there are.
          returned: success
          type: int
        types:
          description: How many groups there are of each domain type.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The type, for example V(DMA), V(DMA-FQ), V(identity); V(unknown) on kernels that do not tell.
              returned: success
              type: str
            groups:
              description: How many.
              returned: success
              type: int
        assigned:
          description: PCI devices that are bound to vfio-pci or a variant of it, at most 256.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The PCI address.
              returned: success
              type: str
            driver:
              description: The driver.
              returned: success
              type: str
            class:
              description: The PCI class.
              returned: success
              type: str
            group:
              description: The IOMMU group, null for none.
              returned: success
              type: str
            type:
              description: The domain type of the group; null without a group, or on kernels that do not tell.
              returned: success
              type: str
            mates:
              description: The other devices of the group.
              returned: success
              type: list
              elements: dict
              contains:
                name:
                  description: The PCI address.
                  returned: success
                  type: str
                driver:
                  description: The driver, empty for none.
                  returned: success
                  type: str
                class:
                  description: The PCI class.
                  returned: success
                  type: str
        assigned_total:
          description: How many there are.
          returned: success
          type: int
        noiommu:
          description: The nodes under C(/dev/vfio) that work without an IOMMU.
          returned: success
          type: list
          elements: str
        unread:
          description: What could not be read.
          returned: success
          type: list
          elements: dict
          contains: *refused
    # section: ksm
    ksm:
      description: Kernel same-page merging.
      returned: success
      type: dict
      contains:
        present:
          description: Whether the kernel has it.
          returned: success
          type: bool
        run:
          description: C(/sys/kernel/mm/ksm/run), null without it.
          returned: success
          type: int
        pages_shared:
          description: Pages that stand for several, null without it.
          returned: success
          type: int
        pages_sharing:
          description:
            - Pages that were merged into those, null without it. They stay merged when C(run) goes from 1 to 0.
          returned: success
          type: int
        merge_across_nodes:
          description: Whether pages of different NUMA nodes are merged, null without it.
          returned: success
          type: bool
        services:
          description: The services that turn it on.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The service, without C(.service).
              returned: success
              type: str
            installed:
              description: Whether there is a unit, a mask aside.
              returned: success
              type: bool
            masked:
              description: Whether it is masked.
              returned: success
              type: bool
            enabled:
              description: Whether it starts at boot.
              returned: success
              type: bool
            running:
              description: Whether it has a process.
              returned: success
              type: bool
        unread:
          description: What could not be read.
          returned: success
          type: list
          elements: dict
          contains: *refused
    # section: files
    files:
      description:
        - Who can get at what decides about guests, or holds their secrets or memory. What lies below a directory that
          others cannot pass is out of their reach.
      returned: success
      type: dict
      contains:
        configuration:
          description:
            - Configuration files and directories of libvirt, QEMU and SASL; networks, filters, pools. Root's, written
              by nobody else.
          returned: success
          type: dict
          contains:
            checked:
              description: How many were looked at.
              returned: success
              type: int
            truncated:
              description: Whether there was more than is looked at.
              returned: success
              type: bool
            deviations:
              description:
                - Those with more than they should have, at most 20; null where none was found among what could be
                  looked at, and that was not all.
              returned: success
              type: list
              elements: dict
              contains: &deviation
                name:
                  description: The path.
                  returned: success
                  type: str
                path:
                  description: The path.
                  returned: success
                  type: str
                mode:
                  description: The permission bits.
                  returned: success
                  type: str
                owner:
                  description: The owner.
                  returned: success
                  type: str
                group:
                  description: The group.
                  returned: success
                  type: str
                expected:
                  description: What it should have at most.
                  returned: success
                  type: str
            deviations_total:
              description: How many there are.
              returned: success
              type: int
        definitions:
          description: Guest definitions and status files. Root's alone.
          returned: success
          type: dict
          contains:
            checked:
              description: How many were looked at.
              returned: success
              type: int
            truncated:
              description: Whether there was more than is looked at.
              returned: success
              type: bool
            deviations:
              description:
                - Those with more than they should have, at most 20; null where none was found among what could be
                  looked at, and that was not all.
              returned: success
              type: list
              elements: dict
              contains: *deviation
            deviations_total:
              description: How many there are.
              returned: success
              type: int
        secrets:
          description:
            - Secrets, SASL passwords, keytabs, C(auth.conf), and C(qemu.conf) where it has a password. Root's alone.
          returned: success
          type: dict
          contains:
            checked:
              description: How many were looked at.
              returned: success
              type: int
            truncated:
              description: Whether there was more than is looked at.
              returned: success
              type: bool
            deviations:
              description:
                - Those with more than they should have, at most 20; null where none was found among what could be
                  looked at, and that was not all.
              returned: success
              type: list
              elements: dict
              contains: *deviation
            deviations_total:
              description: How many there are.
              returned: success
              type: int
        client_credentials:
          description: Passwords that clients of libvirt keep (C(auth.conf\)), of root and of managers' users.
          returned: success
          type: dict
          contains:
            checked:
              description: How many were looked at.
              returned: success
              type: int
            truncated:
              description: Whether there was more than is looked at.
              returned: success
              type: bool
            deviations:
              description:
                - Those with more than they should have, at most 20; null where none was found among what could be
                  looked at, and that was not all.
              returned: success
              type: list
              elements: dict
              contains: *deviation
            deviations_total:
              description: How many there are.
              returned: success
              type: int
        nova:
          description: Configuration of OpenStack's nova, Kolla's too. Root's, readable by the group nova.
          returned: success
          type: dict
          contains:
            checked:
              description: How many were looked at.
              returned: success
              type: int
            truncated:
              description: Whether there was more than is looked at.
              returned: success
              type: bool
            deviations:
              description:
                - Those with more than they should have, at most 20; null where none was found among what could be
                  looked at, and that was not all.
              returned: success
              type: list
              elements: dict
              contains: *deviation
            deviations_total:
              description: How many there are.
              returned: success
              type: int
        tls_keys:
          description: Private TLS keys; those of QEMU may be read by its group.
          returned: success
          type: dict
          contains:
            checked:
              description: How many were looked at.
              returned: success
              type: int
            truncated:
              description: Whether there was more than is looked at.
              returned: success
              type: bool
            deviations:
              description:
                - Those with more than they should have, at most 20; null where none was found among what could be
                  looked at, and that was not all.
              returned: success
              type: list
              elements: dict
              contains: *deviation
            deviations_total:
              description: How many there are.
              returned: success
              type: int
        ca_keys:
          description: Directories for TLS files; a deviation is a certificate authority's private key in one of them.
          returned: success
          type: dict
          contains:
            checked:
              description: How many were looked at.
              returned: success
              type: int
            truncated:
              description: Whether there was more than is looked at.
              returned: success
              type: bool
            deviations:
              description:
                - Those with more than they should have, at most 20; null where none was found among what could be
                  looked at, and that was not all.
              returned: success
              type: list
              elements: dict
              contains: *deviation
            deviations_total:
              description: How many there are.
              returned: success
              type: int
        saved:
          description: Saved guests, snapshots, memory files, state of TPMs, and their directories. Nothing for others.
          returned: success
          type: dict
          contains:
            checked:
              description: How many were looked at.
              returned: success
              type: int
            truncated:
              description: Whether there was more than is looked at.
              returned: success
              type: bool
            deviations:
              description:
                - Those with more than they should have, at most 20; null where none was found among what could be
                  looked at, and that was not all.
              returned: success
              type: list
              elements: dict
              contains: *deviation
            deviations_total:
              description: How many there are.
              returned: success
              type: int
        dumps:
          description: Dumps of guests and of processes. Nothing for others.
          returned: success
          type: dict
          contains:
            checked:
              description: How many were looked at.
              returned: success
              type: int
            truncated:
              description: Whether there was more than is looked at.
              returned: success
              type: bool
            deviations:
              description:
                - Those with more than they should have, at most 20; null where none was found among what could be
                  looked at, and that was not all.
              returned: success
              type: list
              elements: dict
              contains: *deviation
            deviations_total:
              description: How many there are.
              returned: success
              type: int
        nvram:
          description: Variable stores of UEFI guests. Nothing for others.
          returned: success
          type: dict
          contains:
            checked:
              description: How many were looked at.
              returned: success
              type: int
            truncated:
              description: Whether there was more than is looked at.
              returned: success
              type: bool
            deviations:
              description:
                - Those with more than they should have, at most 20; null where none was found among what could be
                  looked at, and that was not all.
              returned: success
              type: list
              elements: dict
              contains: *deviation
            deviations_total:
              description: How many there are.
              returned: success
              type: int
        hooks:
          description: Hook scripts, which libvirt runs as root. Root's, written by nobody else.
          returned: success
          type: dict
          contains:
            checked:
              description: How many were looked at.
              returned: success
              type: int
            truncated:
              description: Whether there was more than is looked at.
              returned: success
              type: bool
            deviations:
              description:
                - Those with more than they should have, at most 20; null where none was found among what could be
                  looked at, and that was not all.
              returned: success
              type: list
              elements: dict
              contains: *deviation
            deviations_total:
              description: How many there are.
              returned: success
              type: int
            files:
              description: The hook scripts, at most 50.
              returned: success
              type: list
              elements: dict
              contains:
                name:
                  description: The path.
                  returned: success
                  type: str
                sha256:
                  description: The digest of its content.
                  returned: success
                  type: str
                executable:
                  description: Whether it is executable, which libvirt asks for.
                  returned: success
                  type: bool
        devices:
          description: Device nodes.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The path.
              returned: success
              type: str
            present:
              description: Whether it is there.
              returned: success
              type: bool
            mode:
              description: The permission bits, null if it is not there.
              returned: success
              type: str
            owner:
              description: The owner, null if it is not there.
              returned: success
              type: str
            group:
              description: The group, null if it is not there.
              returned: success
              type: str
            others:
              description: Whether others may read or write it, null if it is not there.
              returned: success
              type: bool
            acl:
              description: Whether it has an access control list, null where that cannot be told.
              returned: success
              type: bool
        bridge_helper:
          description: QEMU's helper that joins guests of ordinary users to bridges.
          returned: success
          type: dict
          contains:
            helpers:
              description: The helpers that are installed.
              returned: success
              type: list
              elements: dict
              contains:
                name:
                  description: The path.
                  returned: success
                  type: str
                mode:
                  description: The permission bits, without setuid.
                  returned: success
                  type: str
                owner:
                  description: The owner.
                  returned: success
                  type: str
                group:
                  description: The group.
                  returned: success
                  type: str
                setuid:
                  description: Whether it is setuid.
                  returned: success
                  type: bool
                capabilities:
                  description: Whether it has file capabilities, null where that cannot be told.
                  returned: success
                  type: bool
                privileged:
                  description: Whether it gets privileges that its caller does not have.
                  returned: success
                  type: bool
            rules:
              description: The rules of its C(bridge.conf) and of what that includes, in their order.
              returned: success
              type: list
              elements: dict
              contains:
                name:
                  description: The file.
                  returned: success
                  type: str
                action:
                  description: V(allow) or V(deny).
                  returned: success
                  type: str
                bridge:
                  description: The bridge, or V(all).
                  returned: success
                  type: str
                group:
                  description: The group of the file, whose members it is for where others may not read it.
                  returned: success
                  type: str
                others:
                  description: Whether others may read the file.
                  returned: success
                  type: bool
            allow_all:
              description: Whether a rule allows all bridges.
              returned: success
              type: bool
        polkit:
          description: The files that polkit takes rules from, and their directories. Written by nobody but root.
          returned: success
          type: dict
          contains:
            checked:
              description: How many were looked at.
              returned: success
              type: int
            truncated:
              description: Whether there was more than is looked at.
              returned: success
              type: bool
            deviations:
              description:
                - Those with more than they should have, at most 20; null where none was found among what could be
                  looked at, and that was not all.
              returned: success
              type: list
              elements: dict
              contains: *deviation
            deviations_total:
              description: How many there are.
              returned: success
              type: int
            rules:
              description: The rules that say yes to actions of libvirt, at most 40.
              returned: success
              type: list
              elements: dict
              contains:
                name:
                  description: The file.
                  returned: success
                  type: str
                actions:
                  description: The actions that it names; V(*) for any.
                  returned: success
                  type: list
                  elements: str
                to:
                  description: The groups and users that it names.
                  returned: success
                  type: list
                  elements: str
                verdict:
                  description:
                    - V(scoped) to those that it names, V(blanket) for everybody; null where a person has to read it.
                  returned: success
                  type: str
            rules_total:
              description: How many there are.
              returned: success
              type: int
            manage:
              description: The defaults for C(org.libvirt.unix.manage), which hold where no rule decides.
              returned: success
              type: dict
              contains:
                any:
                  description: For any client; null where libvirt's policy is not installed.
                  returned: success
                  type: str
                inactive:
                  description: For clients in inactive local sessions, likewise.
                  returned: success
                  type: str
                active:
                  description: For clients in active local sessions, likewise.
                  returned: success
                  type: str
        unread:
          description: What could not be read.
          returned: success
          type: list
          elements: dict
          contains: *refused
    # section: groups
    groups:
      description: Groups whose members are root by another name, or close to it.
      returned: success
      type: dict
      contains:
        remote:
          description: Where else than in files the host looks groups up, by C(nsswitch.conf).
          returned: success
          type: list
          elements: str
        groups:
          description: The groups.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The group.
              returned: success
              type: str
            present:
              description: Whether the host has it.
              returned: success
              type: bool
            gid:
              description: Its number, null if the host does not have it.
              returned: success
              type: int
            members:
              description: The users in it, those whose primary group it is included, at most 100.
              returned: success
              type: list
              elements: str
            members_total:
              description: How many there are.
              returned: success
              type: int
            primary:
              description: Those whose primary group it is. Of users that are not in C(/etc/passwd) this is not known.
              returned: success
              type: list
              elements: str
        unread:
          description: What could not be read.
          returned: success
          type: list
          elements: dict
          contains: *refused
    # section: storage
    storage:
      description: Storage of guests.
      returned: success
      type: dict
      contains:
        pools:
          description: The storage pools.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The pool.
              returned: success
              type: str
            type:
              description: Its type.
              returned: success
              type: str
            path:
              description: Its target, empty for none.
              returned: success
              type: str
            active:
              description: Whether it runs.
              returned: success
              type: bool
            autostart:
              description: Whether it starts with libvirt.
              returned: success
              type: bool
            remote:
              description: Whether its target is on a network file system.
              returned: success
              type: bool
            mode:
              description: The permission bits of the target; null for none, or on a network file system.
              returned: success
              type: str
            owner:
              description: The owner of the target, likewise.
              returned: success
              type: str
            group:
              description: The group of the target, likewise.
              returned: success
              type: str
            mount:
              description: How the network file system of the target is mounted; null for another.
              returned: success
              type: dict
              contains:
                type:
                  description: The file system.
                  returned: success
                  type: str
                security:
                  description: The option C(sec) of NFS, such as V(sys) or V(krb5p); null for none.
                  returned: success
                  type: str
                nosuid:
                  description: Whether set-user-ID bits count for nothing there.
                  returned: success
                  type: bool
                nodev:
                  description: Whether device nodes do.
                  returned: success
                  type: bool
            promised_percent:
              description:
                - How much guests may write into its images, in percent of its file system; null where it is no
                  directory of this host, or holds too many files.
              returned: success
              type: int
            label:
              description:
                - The SELinux type of the target. Empty without SELinux or a label, null where it cannot be read.
              returned: success
              type: str
            label_persistent:
              description: Whether the policy's files give it that type; null without SELinux.
              returned: success
              type: bool
        images:
          description:
            - Images in pools that are directories, install media (C(.iso)) aside, and the disks of guests, with those
              directories. Nothing for others.
          returned: success
          type: dict
          contains:
            checked:
              description: How many were looked at.
              returned: success
              type: int
            truncated:
              description: Whether there was more than is looked at.
              returned: success
              type: bool
            deviations:
              description:
                - Those with more than they should have, at most 20; null where none was found among what could be
                  looked at, and that was not all.
              returned: success
              type: list
              elements: dict
              contains: *deviation
            deviations_total:
              description: How many there are.
              returned: success
              type: int
        layers:
          description:
            - What the images of guests and of pools hang on by their own headers, at most 100; null where nothing was
              found among what could be looked at, and that was not all.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The image.
              returned: success
              type: str
            kind:
              description: V(backing) or V(data).
              returned: success
              type: str
            source:
              description: What it names, as an absolute path if it is a file of this host.
              returned: success
              type: str
            directory:
              description: The directory of that file, empty for none.
              returned: success
              type: str
            network:
              description: Whether it is no file of this host.
              returned: success
              type: bool
            in_pool:
              description: Whether it lies in a storage pool.
              returned: success
              type: bool
        uses:
          description:
            - Images that the host's own kernel looks into, at most 100; null where the guests' definitions cannot be
              read.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The image, or the network block device.
              returned: success
              type: str
            how:
              description: V(loop), V(mounted), V(nbd) or V(device mapper).
              returned: success
              type: str
            by:
              description: The device or program.
              returned: success
              type: str
            guests:
              description: The guests that have it as a disk.
              returned: success
              type: list
              elements: str
        loops:
          description: The loop devices that are set up.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The device.
              returned: success
              type: str
            file:
              description: The file behind it.
              returned: success
              type: str
        nbds:
          description: The network block devices that are connected.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The device.
              returned: success
              type: str
            pid:
              description: The process that serves it.
              returned: success
              type: int
            program:
              description: The name of its program, empty if it cannot be told.
              returned: success
              type: str
        lvm:
          description: Which devices LVM of the host looks at.
          returned: success
          type: dict
          contains:
            installed:
              description: Whether the host has LVM.
              returned: success
              type: bool
            devices_file:
              description: Whether it is bound to a list of devices.
              returned: success
              type: bool
            global_filter:
              description: C(global_filter) of C(lvm.conf), null for none.
              returned: success
              type: str
        unread:
          description: What could not be read.
          returned: success
          type: list
          elements: dict
          contains: *refused
    # section: packages
    packages:
      description: The packages that virtualization is made of.
      returned: success
      type: dict
      contains:
        source:
          description: V(dpkg), V(rpm), or empty where neither can be asked.
          returned: success
          type: str
        reason:
          description: Why not, otherwise empty.
          returned: success
          type: str
        installed:
          description: The packages, at most 120.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The package.
              returned: success
              type: str
            version:
              description: Its version.
              returned: success
              type: str
            family:
              description:
                - V(kernel), V(microcode), V(libvirt), V(qemu), V(edk2), V(seabios), V(swtpm), V(virtiofsd), V(dnsmasq),
                  V(openvswitch) or V(passt).
              returned: success
              type: str
        installed_total:
          description: How many there are.
          returned: success
          type: int
        security:
          description: What the package lists on this host know of security updates. Nothing is fetched.
          returned: success
          type: dict
          contains:
            pending:
              description: The updates. Null where the lists do not tell, or are older than 14 days and know of none.
              returned: success
              type: list
              elements: dict
              contains:
                name:
                  description: The package.
                  returned: success
                  type: str
                family:
                  description: As above.
                  returned: success
                  type: str
                installed:
                  description: The installed version.
                  returned: success
                  type: str
                candidate:
                  description: The version of the update.
                  returned: success
                  type: str
            age_days:
              description: The age of the youngest list, null for none.
              returned: success
              type: int
            reason:
              description: Why pending is null, otherwise empty.
              returned: success
              type: str
        unread:
          description: What could not be read.
          returned: success
          type: list
          elements: dict
          contains: *refused
    # section: programs
    programs:
      description: How the programs that guests attack first were built to withstand, by their ELF headers.
      returned: success
      type: dict
      contains:
        programs:
          description: The emulator for guests of the host's architecture, and helpers, where they are installed.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The path.
              returned: success
              type: str
            kind:
              description: V(emulator) or V(helper).
              returned: success
              type: str
            pie:
              description:
                - Whether it can be loaded anywhere (position-independent); null, as all below, if it cannot be read.
              returned: success
              type: bool
            relro:
              description: V(full), V(partial) or V(none). Whether tables of addresses are read-only once it is loaded.
              returned: success
              type: str
            nx:
              description: Whether its stack is not executable.
              returned: success
              type: bool
            canary:
              description: Whether functions guard their stack. Programs in Rust do not, and need not.
              returned: success
              type: bool
        unread:
          description: What could not be read.
          returned: success
          type: list
          elements: dict
          contains: *refused
    # section: firewall
    firewall:
      description: The host's packet filter, by the tools that it has.
      returned: success
      type: dict
      contains:
        tools:
          description:
            - What was asked; C(/sys/module) where nftables is a module that nobody has loaded. Empty where the rules
              cannot be listed.
          returned: success
          type: list
          elements: str
        input:
          description: The chains that packets for the host enter by; null where the rules cannot be listed.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: Family or table, table and chain.
              returned: success
              type: str
            policy:
              description: V(accept) or V(drop).
              returned: success
              type: str
            rules:
              description: How many rules the chain itself has.
              returned: success
              type: int
        ports:
          description: What a new connection to a port of virtualization meets.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: What listens there.
              returned: success
              type: str
            port:
              description: The port; of a range its first.
              returned: success
              type: int
            ipv4:
              description:
                - V(open) for nothing hinders it; V(closed); V(restricted) for it depends on the sender, the interface,
                  or what cannot be followed; null where the rules cannot be listed.
              returned: success
              type: str
            ipv6:
              description: The same, or V(disabled) on a host without IPv6.
              returned: success
              type: str
        forwarding:
          description:
            - What becomes of a connection between two other hosts that no rule names by sender, interface or port.
          returned: success
          type: dict
          contains:
            ipv4:
              description: V(open) for it is passed on; V(closed); null where the rules cannot be listed.
              returned: success
              type: str
            ipv6:
              description: The same.
              returned: success
              type: str
        unread:
          description: What could not be read.
          returned: success
          type: list
          elements: dict
          contains: *refused
    # section: networks
    networks:
      description: Networks that guests share with the host.
      returned: success
      type: dict
      contains:
        networks:
          description: libvirt's networks.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The network.
              returned: success
              type: str
            mode:
              description: V(nat), V(route), V(open), V(bridge) and so on; V(isolated) for no forwarding.
              returned: success
              type: str
            bridge:
              description: The bridge, empty for none.
              returned: success
              type: str
            active:
              description: Whether it runs.
              returned: success
              type: bool
            autostart:
              description: Whether it starts with libvirt.
              returned: success
              type: bool
            guests:
              description: The guests with an interface on it; null where definitions cannot be read.
              returned: success
              type: list
              elements: str
        bridges:
          description: The bridges of the host.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The bridge.
              returned: success
              type: str
            guest_ports:
              description: Its ports that are TAP devices.
              returned: success
              type: list
              elements: str
            network:
              description: The network of libvirt's that it belongs to, empty for none.
              returned: success
              type: str
            addresses:
              description: Its addresses, those of the link alone aside; null where C(ip) does not tell.
              returned: success
              type: list
              elements: str
            default_route:
              description: Whether a default route leaves by it.
              returned: success
              type: bool
            speaks:
              description: The settings by which the host answers on it, or hears routers and redirects there.
              returned: success
              type: list
              elements: str
        virtual_functions:
          description: The virtual functions of cards with SR-IOV, at most 100; null where a card cannot be asked.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The card and the number.
              returned: success
              type: str
            device:
              description: The card.
              returned: success
              type: str
            spoofchk:
              description: Whether the card refuses senders that are not the function; null where it does not say.
              returned: success
              type: bool
            trust:
              description: Whether the function may change what it receives; null where the card does not say.
              returned: success
              type: bool
            vlan:
              description: The VLAN that it is kept in, V(0) for none.
              returned: success
              type: int
        unread:
          description: What could not be read.
          returned: success
          type: list
          elements: dict
          contains: *refused
    # section: services
    services:
      description: What the network can reach on this host beside libvirt's daemons, guests and their helpers.
      returned: success
      type: dict
      contains:
        open:
          description: Sockets that listen on more than the loopback; null if there are more than 40.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: Program, protocol and port.
              returned: success
              type: str
            process:
              description: The program; V(systemd) where it holds the socket, V(kernel) where no process does.
              returned: success
              type: str
            protocol:
              description: V(tcp) or V(udp).
              returned: success
              type: str
            port:
              description: The port.
              returned: success
              type: int
        total:
          description: How many there are.
          returned: success
          type: int
        unread:
          description: What could not be read.
          returned: success
          type: list
          elements: dict
          contains: *refused
    # section: ssh
    ssh:
      description: ssh between hypervisors, of root and of OpenStack's nova.
      returned: success
      type: dict
      contains:
        keys:
          description: The keys that are let in; null if there are more than 50.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The file and the line.
              returned: success
              type: str
            fingerprint:
              description: The fingerprint, as C(ssh-keygen -l) prints it.
              returned: success
              type: str
            from:
              description: Whether it is good from some addresses only.
              returned: success
              type: bool
            command:
              description: Whether it runs one command only.
              returned: success
              type: bool
            restrict:
              description: Whether it may neither forward nor have a terminal.
              returned: success
              type: bool
        unchecked:
          description: Settings of the client by which the other side's key is not looked at.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The file.
              returned: success
              type: str
            setting:
              description: The setting.
              returned: success
              type: str
        known_hosts:
          description: The files that hold keys of other hosts.
          returned: success
          type: list
          elements: str
        unread:
          description: What could not be read.
          returned: success
          type: list
          elements: dict
          contains: *refused
    # section: migration
    migration:
      description: What two hosts have to agree on before guests move between them, and what the running guests need.
      returned: success
      type: dict
      contains:
        values:
          description:
            - What C(qemu.conf) decides and libvirt does not compare, with libvirt's defaults where it is silent. Null
              while the daemon goes by an older file, or where libvirt cannot read it.
          returned: success
          type: dict
          contains:
            dynamic_ownership:
              description: Whether libvirt gives images to QEMU's user.
              returned: success
              type: bool
            remember_owner:
              description: Whether libvirt remembers who owned them.
              returned: success
              type: bool
            namespaces:
              description: The namespaces that guests get.
              returned: success
              type: list
              elements: str
              sample: [mount]
            seccomp_sandbox:
              description: Whether guests get a filter for system calls.
              returned: success
              type: bool
            cgroup_controllers:
              description: The cgroup controllers that libvirt uses.
              returned: success
              type: list
              elements: str
              sample: [cpu, devices]
            cgroup_device_acl:
              description: The devices that each guest may use, null where libvirt's own list is not known.
              returned: success
              type: list
              elements: str
              sample: [/dev/kvm, /dev/null]
            sched_core:
              description: C(sched_core).
              returned: success
              type: str
              sample: none
            max_core:
              description: The size of a core file in bytes, or V(unlimited). Null where the default is not known.
              returned: success
              type: str
              sample: "0"
            memory_backing_dir:
              description: C(memory_backing_dir).
              returned: success
              type: str
              sample: /var/lib/libvirt/qemu/ram
            lock_manager:
              description: C(lock_manager), V(nop) for none.
              returned: success
              type: str
              sample: nop
            migrate_tls_force:
              description: Whether a migration without TLS is refused.
              returned: success
              type: bool
        hostname:
          description: The name that libvirt gives to the source of a migration as where to send the guest.
          returned: success
          type: str
        addresses:
          description: The addresses that the host's name has on the host itself, at most 8, null if nobody can be
            asked.
          returned: success
          type: list
          elements: str
        address:
          description: C(migration_address), null if it is not set.
          returned: success
          type: str
        host:
          description: C(migration_host), null if it is not set.
          returned: success
          type: str
        first_port:
          description: The first port for incoming migrations.
          returned: success
          type: int
          sample: 49152
        last_port:
          description: The last one.
          returned: success
          type: int
          sample: 49215
        taken_ports:
          description: The ports among them on which somebody listens, at most 64.
          returned: success
          type: list
          elements: int
        taken_ports_total:
          description: How many there are.
          returned: success
          type: int
        cpus:
          description: The processors of running guests that are not emulated, at most 8 different ones; null if there
            are more, or if they cannot be read.
          returned: success
          type: list
          elements: dict
          contains:
            mode:
              description: V(custom), V(host-passthrough) and so on. A running guest never has V(host-model).
              returned: success
              type: str
            model:
              description: The model, empty for V(host-passthrough).
              returned: success
              type: str
            lacks:
              description: What of RV(hypervisor.capabilities.cpu_features) the guest does not see.
              returned: success
              type: list
              elements: str
            beyond:
              description: The features that it sees and that are not among those.
              returned: success
              type: list
              elements: str
            guests:
              description: The guests.
              returned: success
              type: list
              elements: str
        displays:
          description: The display ports that definitions of running guests fix, at most 64.
          returned: success
          type: list
          elements: dict
          contains:
            guest:
              description: The guest.
              returned: success
              type: str
            port:
              description: The port.
              returned: success
              type: int
        hugepages:
          description: The huge pages that the memory of running guests is made of.
          returned: success
          type: list
          elements: dict
          contains:
            guest:
              description: The guest.
              returned: success
              type: str
            kib:
              description: The size of a page in KiB.
              returned: success
              type: int
            pages:
              description: How many.
              returned: success
              type: int
        filesystems:
          description: The file systems that libvirt takes for shared, and those that hold disks of running guests, at
            most 64.
          returned: success
          type: list
          elements: dict
          contains:
            name:
              description: The mount point.
              returned: success
              type: str
            fstype:
              description: The type.
              returned: success
              type: str
            id:
              description: What tells it from others of its type - its number, or where it has none what it is made of.
                Empty for one that is not shared, null if it does not answer.
              returned: success
              type: str
            recognised:
              description: Whether libvirt takes it for shared by its type.
              returned: success
              type: bool
            listed:
              description: Whether a directory of C(shared_filesystems) is on it.
              returned: success
              type: bool
            guests:
              description: The running guests with disks on it that they write to.
              returned: success
              type: list
              elements: str
            unlisted:
              description: Those of them with a disk that is in no directory of C(shared_filesystems).
              returned: success
              type: list
              elements: str
        unread:
          description: What could not be read.
          returned: success
          type: list
          elements: dict
          contains: *refused
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils._info import gather
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import prefer, show


def main() -> None:
    module = AnsibleModule(
        argument_spec={"connect": {"type": "bool", "default": False}},
        supports_check_mode=True,
    )
    prefer(module, "libvirt", "lxml")
    show(module, lambda host: gather(host, connect=module.params["connect"]))


if __name__ == "__main__":
    main()
