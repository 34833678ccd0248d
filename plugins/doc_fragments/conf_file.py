# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """How a configuration file of libvirt's is replaced."""

    DOCUMENTATION = r"""
options:
  backup:
    description:
      - Whether to keep the former file beside the new one, too. The journal keeps it in any case.
    type: bool
    default: false
  unsafe_writes:
    description:
      - Whether to write the file in place where it is a mount point of its own, as in a container, and cannot be
        replaced. A crash in between then leaves half a file.
    type: bool
    default: false
"""
