# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The attributes that the modules of this collection share.

    A module that changes the host takes ``hypervisor.hardening.attributes`` and gives C(support) for each of the
    five; a module that only reads takes ``hypervisor.hardening.attributes.info`` and has nothing more to say.
    """

    # What a module says itself: the support of check_mode, diff_mode and idempotent.
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return what would change, without changing the host.
  diff_mode:
    description: Returns what changed, or in C(check_mode) what would change, when in diff mode.
  idempotent:
    description: A second run with the same options changes nothing.
  platform:
    description: The systems that the module runs on.
    support: full
    platforms: linux
  action_group:
    description: Use C(group/hypervisor.hardening.all) in C(module_defaults) to set options for all modules.
    support: full
    membership:
      - hypervisor.hardening.all
"""

    # For modules that only read.
    INFO = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return what would change, without changing the host.
    support: full
    details:
      - The module only reads.
  diff_mode:
    description: Returns what changed, or in C(check_mode) what would change, when in diff mode.
    support: N/A
    details:
      - The module only reads.
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
    details:
      - The module only reads.
  platform:
    description: The systems that the module runs on.
    support: full
    platforms: linux
  action_group:
    description: Use C(group/hypervisor.hardening.all) in C(module_defaults) to set options for all modules.
    support: full
    membership:
      - hypervisor.hardening.all
"""
