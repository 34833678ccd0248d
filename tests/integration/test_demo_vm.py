# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``make demo`` on a machine with AppArmor, which goes by the paths of programs, of those in containers, too."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
import rig
from rig import _base, _image

# The emulated machine takes its time.
pytestmark = pytest.mark.timeout(3600)

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
THERE, WHEELS = "/root/hypervisor.hardening", "/root/wheels"


@pytest.fixture(scope="module")
def machine() -> t.Iterator[rig.VirtualMachine]:
    """A machine as a new user has it, but without a network: tools and the image of Debian are brought along."""
    with rig.vm("trixie") as host:
        yield host


def send(host: rig.VirtualMachine, directory: pathlib.Path, names: bytes, to: str) -> None:
    """Copy files and directories of a directory.

    :param names: with a zero byte after each.
    """
    packed = subprocess.run(
        ["tar", "--create", "--xattrs", f"--directory={directory}", "--null", "--files-from=-"],
        input=names,
        stdout=subprocess.PIPE,
        check=True,
    )
    host.run(["mkdir", "-p", to])
    host.run(["tar", "--extract", "--xattrs", f"--directory={to}"], stdin=packed.stdout, timeout=1800)


def download(directory: pathlib.Path) -> None:
    """The tools of ``make venv`` for the machine's Python."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version=3.13"]
    platforms = [f"--platform={name}_x86_64" for name in ("manylinux2014", "manylinux_2_17", "manylinux_2_28")]
    pins = ["--requirement", os.fspath(CHECKOUT / "tests/requirements.txt")]
    subprocess.run([*pip, *platforms, *pins, "--dest", os.fspath(directory)], check=True)


def test_the_demo_runs_where_profiles_attach_to_programs_in_containers(
    machine: rig.VirtualMachine, tmp_path: pathlib.Path
) -> None:
    download(tmp_path)
    send(machine, tmp_path, b".\0", WHEELS)
    listed = subprocess.run(["git", "-C", CHECKOUT, "ls-files", "-z"], stdout=subprocess.PIPE, check=True)
    send(machine, CHECKOUT, listed.stdout, THERE)
    image = _image.image_dir("trixie")
    send(machine, image.parent, os.fsencode(image.name) + b"\0", f"{_base.cache_dir()}/images")

    found = ["env", "PIP_NO_INDEX=1", "PIP_NO_COMPILE=1", f"PIP_FIND_LINKS={WHEELS}", "make", "-C", THERE]
    machine.run([*found, "venv"], timeout=1800)
    profiles = machine.get("/sys/kernel/security/apparmor/profiles").decode()
    assert "libvirtd (enforce)" in profiles
    machine.run(["systemctl", "stop", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", "libvirtd"])
    done = machine.run([*found, "demo"], check=False, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.get("/sys/kernel/security/apparmor/profiles").decode() == profiles
