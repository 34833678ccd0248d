# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A root file system that packages are installed into; in a mount namespace of its own."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from ._base import run

_MOUNTED = ("proc", "sys", "tmp", "var/cache/apt/archives")


def command(root: pathlib.Path) -> list[str]:
    """What to put before a command to run it inside."""
    # A directory for temporary files that somebody chose out here (pam_tmpdir, a runner of tests) is not there inside.
    return ["chroot", os.fspath(root), "env", "--unset=TMPDIR"]


def apt(root: pathlib.Path) -> list[str]:
    """The beginning of an apt-get inside."""
    options = ["-y", "-q", "--no-install-recommends", "-o", "Dpkg::Options::=--force-unsafe-io"]
    return [*command(root), "apt-get", *options]


def version(root: pathlib.Path, package: str) -> str:
    """The version of a package that is installed inside."""
    return run([*command(root), "dpkg-query", "-W", "-f", "${Version}", package]).stdout


@contextlib.contextmanager
def prepared(root: pathlib.Path, debs: pathlib.Path) -> Iterator[None]:
    """For the length of a ``with`` block no service starts; apt has a way out and keeps what it fetched in ``debs``.

    :raises RigError: a mount failed.
    """
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    # A mirror of testing may be older than the week for which its lists count as fresh; its signature is checked still.
    settings = ('APT::Install-Recommends "0"', 'Acquire::Languages "none"', 'Acquire::Retries "3"')
    (root / "etc/apt/apt.conf.d/90rig").write_text(
        "".join(f"{line};\n" for line in (*settings, 'Acquire::Check-Valid-Until "0"')) + _proxy_lines(),
        encoding="utf-8",
    )
    (root / "etc/dpkg/dpkg.cfg.d").mkdir(parents=True, exist_ok=True)
    (root / "etc/dpkg/dpkg.cfg.d/90rig").write_text(
        "path-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\npath-exclude=/usr/share/doc/*\n",
        encoding="ascii",
    )
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
    run(["mount", "-t", "proc", "proc", root / "proc"])
    run(["mount", "-t", "sysfs", "-o", "ro", "sysfs", root / "sys"])
    run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", root / "tmp"])
    run(["mount", "--bind", debs, root / "var/cache/apt/archives"])
    yield
    for path in ("usr/sbin/policy-rc.d", "etc/apt/apt.conf.d/90rig"):
        (root / path).unlink()
    # The hosts have no way out, so an empty list of name servers answers at once.
    (root / "etc/resolv.conf").write_text("", encoding="ascii")
    for mounted in _MOUNTED:
        run(["umount", root / mounted])
    shutil.rmtree(root / "var/lib/apt/lists")
    (root / "var/lib/apt/lists").mkdir()


def _proxy_lines() -> str:
    lines = run(["apt-config", "dump", "--format", '%f "%v";%n', "Acquire::http"], check=False).stdout.splitlines()
    return "".join(line + "\n" for line in lines if "Proxy" in line and '""' not in line)
