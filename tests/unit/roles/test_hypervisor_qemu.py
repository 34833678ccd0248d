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


def test_each_switch_is_off_by_default() -> None:
    assert {DEFAULTS[switch_of(c)] for c in CONTROLS if "switch" in c} == {False}


def test_no_measure_shares_its_switch() -> None:
    switches = [switch_of(c) for c in CONTROLS if "switch" in c]
    assert len(switches) == len(set(switches))
