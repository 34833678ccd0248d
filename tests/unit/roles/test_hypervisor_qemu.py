# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The measures of the role against the catalogue of controls they come from."""

from __future__ import annotations

from pathlib import Path

import yaml

ROLE = Path(__file__).parents[3] / "roles/hypervisor_qemu"

# id: (level, mode) of the catalogue. auto: a role may apply it; optin: only when the operator asks for it.
CATALOGUE = {
    "qemu-default-confined": ("baseline", "auto"),
    "qemu-no-guest-core": ("baseline", "auto"),
    "qemu-no-core": ("strict", "auto"),
    "qemu-stdio-logd": ("baseline", "auto"),
    "qemu-no-debug-knobs": ("baseline", "auto"),
    "qemu-user-nonroot": ("baseline", "optin"),
    "qemu-security-driver-on": ("baseline", "optin"),
    "qemu-seccomp-on": ("baseline", "optin"),
    "qemu-mount-namespace-on": ("baseline", "optin"),
    "qemu-dynamic-ownership": ("baseline", "optin"),
    "qemu-acs-strict": ("baseline", "optin"),
    "qemu-display-listen-local": ("baseline", "optin"),
    "qemu-swtpm-unprivileged": ("baseline", "optin"),
    "qemu-no-default-display-password": ("baseline", "optin"),
    "qemu-require-confined": ("hardened", "optin"),
    "qemu-display-tls-when-remote": ("hardened", "optin"),
    "memory-backing-dir-safe": ("hardened", "optin"),
    "qemu-chardev-nbd-backup-tls": ("strict", "optin"),
    "smt-policy": ("strict", "optin"),
    "legacy-mac-filter": ("strict", "optin"),
}

# What each key is to hold by qemu.conf's own comments; None: libvirt's default.
SETTINGS = {
    "security_default_confined": True,
    "dump_guest_core": False,
    "max_core": 0,
    "stdio_handler": "logd",
    "capability_filters": None,
    "deprecation_behavior": None,
    "gluster_debug_level": None,
    "nographics_allow_host_audio": None,
    "virtiofsd_debug": None,
    "vnc_allow_host_audio": None,
    "user": "{{ hypervisor_qemu_user }}",
    "group": "{{ hypervisor_qemu_group }}",
    "security_driver": None,
    "seccomp_sandbox": 1,
    "namespaces": ["mount"],
    "dynamic_ownership": True,
    "remember_owner": True,
    "relaxed_acs_check": False,
    "vnc_listen": "{{ hypervisor_qemu_display_address }}",
    "spice_listen": "{{ hypervisor_qemu_display_address }}",
    "rdp_listen": "{{ hypervisor_qemu_display_address }}",
    "swtpm_user": None,
    "swtpm_group": None,
    "vnc_password": None,
    "spice_password": None,
    "rdp_password": None,
    "security_require_confined": True,
    "vnc_tls": True,
    "vnc_tls_x509_verify": True,
    "spice_tls": True,
    "memory_backing_dir": None,
    "default_tls_x509_verify": True,
    "chardev_tls": True,
    "nbd_tls": True,
    "sched_core": "full",
    "mac_filter": True,
}

CONTROLS = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__hypervisor_qemu_controls"]
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())


def switch_of(control: dict[str, str]) -> str:
    return control["switch"].strip("{} ")


def test_each_measure_stands_in_the_catalogue_with_its_level_and_mode() -> None:
    ours = {c["id"]: (c["level"], "optin" if "switch" in c else "auto") for c in CONTROLS}
    assert ours == CATALOGUE


def test_each_key_is_set_by_one_measure() -> None:
    keys = [key for control in CONTROLS for key in control["settings"]]
    assert sorted(keys) == sorted(set(keys))


def test_each_key_is_set_to_what_confines() -> None:
    assert {key: value for control in CONTROLS for key, value in control["settings"].items()} == SETTINGS


def test_each_switch_is_off_by_default() -> None:
    assert {DEFAULTS[switch_of(c)] for c in CONTROLS if "switch" in c} == {False}


def test_no_measure_shares_its_switch() -> None:
    switches = [switch_of(c) for c in CONTROLS if "switch" in c]
    assert len(switches) == len(set(switches))
