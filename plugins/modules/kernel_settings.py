#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_settings
short_description: Harden the kernel that guests run on, now and for the next boot
version_added: 0.1.0
description:
  - Sets kernel parameters (sysctl), parameters of the modules that guests run on, who may open C(/dev/kvm), and ends
    kernel same-page merging. Each is changed in the running kernel, and in a file that the next boot reads. Both are
    told, and where another file or the kernel's command line has the last word at boot, so is that.
  - What only a boot can change is written for it, and RV(ignore:reboot_required) says so with the reason. No module is
    unloaded, no daemon restarted, no guest touched. The kernel's command line is never edited.
  - Only what is asked for is written to the running kernel. A reload of all of C(sysctl.d), as C(sysctl --system) does,
    would also set C(net.ipv4.ip_forward) back where a file says 0 and libvirt has turned it on for a network.
  - If the kernel refuses a value, those written before it get their former values again, and no file is written.
  - Mitigations of the processor, its threads (SMT), and the IOMMU are reported as the kernel shows them, with what to
    do on this host (RV(ignore:remarks)).
options:
  sysctls:
    description:
      - All kernel parameters that are to be set here, by name. What is left out is no longer set at boot; its running
        value stays until then.
      - A value that begins with C(>=), as V(>=1), asks for at least that number. A host with a greater one keeps it.
      - Null leaves a parameter as it is, which is of use where dictionaries are merged.
      - They are kept in C(/etc/sysctl.d/zz-hypervisor-hardening.conf), which nothing else should write to. An empty
        dictionary removes the file.
      - A value that is known to break hypervisors, such as C(net.ipv4.ip_forward=0), is set with a warning.
    type: dict
  module_parameters:
    description:
      - All parameters that are to be set here of C(kvm), C(kvm_intel), C(kvm_amd), C(iommufd), and of modules that
        begin with C(vfio), as C(MODULE.PARAMETER).
      - They are kept in C(/etc/modprobe.d/zz-hypervisor-hardening.conf). An empty dictionary removes the file.
      - A parameter that can be written while its module is loaded is written at once. The others, C(kvm_intel.nested)
        among them, need the module to be loaded anew, and so a boot.
      - While guests run, C(kvm.ignore_msrs) is left as it is, because a guest that relied on it would break.
      - A module that the initial RAM disk loads takes the options that were copied there. Rebuild it if that is so,
        with C(update-initramfs -u) or C(dracut --force).
    type: dict
  ksm_off:
    description:
      - End kernel same-page merging, so that guests do not see by their timing what others have in memory. What is
        merged is taken apart, and C(ksm.service) and C(ksmtuned.service) are stopped and masked.
      - Refused if C(MemAvailable) does not hold what that needs.
    type: bool
    default: false
  ksm_without_headroom:
    description: Take merged pages apart although the memory for it is not there. The kernel may then kill guests.
    type: bool
    default: false
  kvm_device:
    description:
      - Who may open C(/dev/kvm). It is set at once, and by a rule of udev for the next boot.
      - Refused if the user that libvirt runs guests as could not open it any more.
    type: dict
    suboptions:
      owner:
        description: The user that owns it.
        type: str
        default: root
      group:
        description: Its group.
        type: str
        default: kvm
      mode:
        description: Its permission bits in octal, in quotes.
        type: str
        default: "0660"
  optional:
    description:
      - Names in O(sysctls) and O(module_parameters) that this kernel need not know. They are left out then, and told.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - hypervisor.hardening.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - name: The kernel's parameters
    description: What each of them means.
    link: https://docs.kernel.org/admin-guide/kernel-parameters.html
  - name: Kernel same-page merging
    description: What it does, and what taking pages apart needs.
    link: https://docs.kernel.org/admin-guide/mm/ksm.html
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Make the second step after an escape harder
  hypervisor.hardening.kernel_settings:
    sysctls:
      kernel.kptr_restrict: ">=1"
      kernel.dmesg_restrict: 1
      kernel.yama.ptrace_scope: ">=1"
    optional: [kernel.yama.ptrace_scope]

- name: No nested virtualization, no interrupts that nobody remaps
  hypervisor.hardening.kernel_settings:
    module_parameters:
      kvm_intel.nested: false
      kvm_amd.nested: false
      vfio_iommu_type1.allow_unsafe_interrupts: false
    optional: [kvm_intel.nested, kvm_amd.nested, vfio_iommu_type1.allow_unsafe_interrupts]
  register: kernel

- name: Say why a boot is needed
  ansible.builtin.debug:
    msg: "{{ kernel.reboot_reasons }}"
  when: kernel.reboot_required

- name: Only the group kvm may create virtual machines, and they share no pages
  hypervisor.hardening.kernel_settings:
    kvm_device:
      mode: "0660"
    ksm_off: true
"""

RETURN = r"""
sysctls:
  description: The kernel parameters that were asked for and that this kernel has.
  returned: success
  type: list
  elements: dict
  contains: &entry
    name:
      description: Its name.
      returned: success
      type: str
      sample: kernel.kptr_restrict
    before:
      description: The running value before; null where the kernel does not show it, as without the module.
      returned: success
      type: str
    after:
      description: The running value afterwards, in check mode what it would be.
      returned: success
      type: str
    boot:
      description: The value of the next boot; null for the kernel's own default.
      returned: success
      type: str
    boot_by:
      description: The file that sets it at the next boot.
      returned: success
      type: str
      sample: /etc/sysctl.d/zz-hypervisor-hardening.conf
module_parameters:
  description: The parameters of modules that were asked for and that this host has.
  returned: success
  type: list
  elements: dict
  contains: *entry
ksm:
  description: Kernel same-page merging as it is now.
  returned: success
  type: dict
  contains:
    run:
      description: C(0) if it is off; null where this kernel has none.
      returned: success
      type: int
    merged_pages:
      description: The pages that would come to be if merged ones were taken apart.
      returned: success
      type: int
    needed_kib:
      description: The memory in KiB for that.
      returned: success
      type: int
    available_kib:
      description: The memory in KiB that the host has for it.
      returned: success
      type: int
    masked:
      description: The services that are masked.
      returned: success
      type: list
      elements: str
kvm_device:
  description: Mode, owner and group of C(/dev/kvm) now; empty without O(kvm_device), and where there is no such device.
  returned: success
  type: str
  sample: 0660 root kvm
overridden:
  description: What the next boot will not, or may not, make as wanted, with what to do.
  returned: success
  type: list
  elements: dict
  contains: &departure
    name:
      description: Its name.
      returned: success
      type: str
    reason:
      description: Why, and what to do.
      returned: success
      type: str
left_alone:
  description: The names in O(optional) that this kernel does not know.
  returned: success
  type: list
  elements: dict
  contains: *departure
reboot_required:
  description: Whether something that was asked for is not in force before a boot.
  returned: success
  type: bool
reboot_reasons:
  description: What, and why.
  returned: success
  type: list
  elements: str
  sample:
    - "kvm_intel.nested: it is Y, and can be made 0 only when kvm_intel is loaded: reboot; or, where no guest runs:
      modprobe --remove kvm_intel && modprobe kvm_intel."
vulnerabilities:
  description: The processor's vulnerabilities as the kernel calls them.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The vulnerability.
      returned: success
      type: str
    text:
      description: What the kernel says of it.
      returned: success
      type: str
    state:
      description: C(vulnerable), C(mitigated) or C(not_affected); null if the text tells none of these.
      returned: success
      type: str
    smt_vulnerable:
      description: Whether another thread of a core can make use of it; null if nothing is said of threads.
      returned: success
      type: bool
smt:
  description: C(control) and C(active) of C(/sys/devices/system/cpu/smt); null where there is no such file.
  returned: success
  type: dict
iommu:
  description:
    - The IOMMU as sysfs shows it, with C(units), the number of C(groups), the C(types) of those, how many devices are
      bound to VFIO (C(assigned_total)), and devices that are given away without an IOMMU (C(noiommu)).
  returned: success
  type: dict
remarks:
  description: What is not as it should be and only the operator can change.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The vulnerability, or the rule of the audit.
      returned: success
      type: str
    observed:
      description: What the kernel says.
      returned: success
      type: str
    remedy:
      description: What to do on this host.
      returned: success
      type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import (
    _kernelsettings,
    _kvmdevice,
    _moduleparameters,
    _runner,
    _sysctls,
)
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import HardeningError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "sysctls": {"type": "dict"},
            "module_parameters": {"type": "dict"},
            "ksm_off": {"type": "bool", "default": False},
            "ksm_without_headroom": {"type": "bool", "default": False},
            "kvm_device": {
                "type": "dict",
                "options": {
                    "owner": {"type": "str", "default": "root"},
                    "group": {"type": "str", "default": "kvm"},
                    "mode": {"type": "str", "default": "0660"},
                },
            },
            "optional": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        wanted = _kernelsettings.Wanted(
            sysctls=None if given["sysctls"] is None else _sysctls.wishes(given["sysctls"]),
            module_parameters=(
                None if given["module_parameters"] is None else _moduleparameters.wishes(given["module_parameters"])
            ),
            ksm_off=given["ksm_off"],
            ksm_without_headroom=given["ksm_without_headroom"],
            kvm_device=_kvmdevice.wish(given["kvm_device"]) if given["kvm_device"] else None,
            optional=frozenset(given["optional"]),
        )
    except HardeningError as error:
        _runner.fail(module, error)
    _runner.run(module, _kernelsettings, wanted)


if __name__ == "__main__":
    main()
