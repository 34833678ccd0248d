# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image whose libvirt runs as modular daemons: a release's own, with those of its source package beside them.

Debian's packages hold all of libvirt but these: the drivers are plug-ins that libvirtd and the modular daemons load
alike. So only the daemons are built, against the library and the drivers that are there.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
from typing import IO, Any

from . import _chroot, _recipe
from ._base import remove_tree, run, run_long

RELEASES = ("trixie",)

# libvirt's daemons.rst. virtproxyd serves the clients that ask for libvirtd's sockets.
_DRIVERS = ("qemu", "network", "storage", "secret", "nodedev", "nwfilter", "interface")
_DAEMONS = (*(f"virt{driver}d" for driver in _DRIVERS), "virtproxyd")
_NEEDED = (
    "gcc gettext libc6-dev meson ninja-build patch pkgconf python3-docutils xsltproc xz-utils libxml2-utils"
    " libacl1-dev libapparmor-dev libaudit-dev libcap-ng-dev libglib2.0-dev libgnutls28-dev libjson-c-dev libnl-3-dev"
    " libnl-route-3-dev libpciaccess-dev libsasl2-dev libselinux1-dev libtirpc-dev libudev-dev libxml2-dev"
)
# Debian's own (debian/rules), for what these daemons look at; all that is not named is off.
_OPTIONS = (
    "--buildtype=plain -Dc_args=-O1 --auto-features=disabled"
    " --prefix=/usr --sysconfdir=/etc --localstatedir=/var --libexecdir=/usr/lib/libvirt -Drunstatedir=/run"
    " -Dinitconfdir=/etc/default -Dunitdir=/usr/lib/systemd/system -Dsysusersdir=/usr/lib/sysusers.d -Dno_git=true"
    " -Dinit_script=systemd -Dremote_default_mode=legacy -Dqemu_user=libvirt-qemu -Dqemu_group=libvirt-qemu"
    " -Ddriver_remote=enabled -Ddriver_libvirtd=enabled -Ddriver_qemu=enabled -Ddriver_network=enabled"
    " -Ddriver_secrets=enabled -Ddriver_interface=enabled -Dstorage_dir=enabled -Djson_c=enabled -Dlibnl=enabled"
    " -Dudev=enabled -Dpciaccess=enabled -Dcapng=enabled -Dpolkit=enabled -Dsasl=enabled -Daudit=enabled"
    " -Dselinux=enabled -Dsecdriver_selinux=enabled -Dselinux_mount=/sys/fs/selinux"
    " -Dapparmor=enabled -Dsecdriver_apparmor=enabled -Dapparmor_profiles=enabled"
)
# As where the modular daemons are the default: libvirt's clients go to them without virtproxyd.
_CLIENT = '\nremote_mode = "direct"\n'


def make(release: str, base: pathlib.Path, parts: pathlib.Path, debs: pathlib.Path, log: IO[bytes]) -> dict[str, Any]:
    """Make it in ``parts``; return what image.json says of it.

    :param base: the image of the release.
    :raises RigError: a step failed.
    """
    root, tree, upper, work = (parts / name for name in ("root", "tree", "upper", "work"))
    for directory in (tree, upper, work):
        directory.mkdir()
    run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={base}/root,upperdir={upper},workdir={work}", tree])
    built = _build(release, tree, debs, log)
    run(["cp", "--archive", f"{base}/root", root], timeout=600)
    _install(built, root)
    run(["umount", tree])
    for directory in (tree, upper, work):
        remove_tree(directory)
    return {"release": release, "base": base.name, "daemons": list(_DAEMONS)}


def _build(release: str, tree: pathlib.Path, debs: pathlib.Path, log: IO[bytes]) -> pathlib.Path:
    """Build the daemons; return the directory that they are in."""
    version = _chroot.version(tree, "libvirt-daemon")
    # Its suite and mirror are those that debootstrap has written down.
    sources = (tree / "etc/apt/sources.list").read_text(encoding="ascii")
    (tree / "etc/apt/sources.list.d/source.list").write_text(sources.replace("deb ", "deb-src ", 1), encoding="ascii")
    place = tree / "usr/src/rig"
    place.mkdir()
    with _chroot.prepared(tree, debs):
        apt = _chroot.apt(tree)
        run_long([*apt, "update"], f"{release}: package lists", log)
        run_long([*apt, "install", *_NEEDED.split()], f"{release}: a compiler and libraries", log)
        inside = [*_chroot.command(tree), "--chdir=/usr/src/rig"]
        unpacked = _source(version, inside, place, f"{release}: libvirt's source", log)
        run_long([*inside, "meson", "setup", *_OPTIONS.split(), "build", unpacked], f"{release}: configuration", log)
        targets = [f"src/{daemon}" for daemon in _DAEMONS]
        run_long([*inside, "ninja", "-C", "build", *targets], f"{release}: modular daemons", log)
    return place / "build/src"


def _source(version: str, inside: list[str], place: pathlib.Path, label: str, log: IO[bytes]) -> str:
    """Fetch and unpack libvirt's source with Debian's patches; return its directory's name."""
    # Not every mirror has the file that describes the source. What that would vouch for, the signed lists do as well.
    asked = ["apt-get", "-q", "-q", "--print-uris", "--only-source", "source", f"libvirt={version}"]
    for line in run([*inside, *asked]).stdout.splitlines():
        uri, name, _size, digest = line.split()
        if ".tar." in name and not name.endswith(".asc"):
            run_long([*inside, "/usr/lib/apt/apt-helper", "download-file", uri.strip("'"), name, digest], label, log)
    original, debian = (next(place.glob(f"libvirt_*.{part}.tar.*")) for part in ("orig", "debian"))
    run([*inside, "tar", "-xf", original.name])
    unpacked = next(place.glob("libvirt-*/"))
    run([*inside, "tar", "-C", unpacked.name, "-xf", debian.name])
    for patch in (unpacked / "debian/patches/series").read_text(encoding="utf-8").split():
        run([*inside, "patch", "-d", unpacked.name, "-p1", "-i", f"debian/patches/{patch}"])
    return unpacked.name


def _install(built: pathlib.Path, root: pathlib.Path) -> None:
    for daemon in _DAEMONS:
        _copy(built / daemon, root / "usr/sbin", 0o755)
        for unit in (*built.glob(f"{daemon}.service"), *built.glob(f"{daemon}*.socket")):
            _copy(unit, root / "usr/lib/systemd/system")
        _copy(built / f"{daemon}.conf", root / "etc/libvirt", 0o600)
        with (root / f"etc/libvirt/{daemon}.conf").open("a", encoding="utf-8") as file:
            file.write(_recipe.APPENDED["etc/libvirt/libvirtd.conf"])
        _copy(built / f"{daemon}.aug", root / "usr/share/augeas/lenses")
    _copy(built / "security/apparmor/usr.sbin.virtqemud", root / "etc/apparmor.d")
    with (root / "etc/libvirt/libvirt.conf").open("a", encoding="utf-8") as file:
        file.write(_CLIENT)
    # daemons.rst, "Switching to modular daemons".
    systemctl = [*_chroot.command(root), "systemctl"]
    former = [f"libvirtd{suffix}" for suffix in (".service", ".socket", "-ro.socket", "-admin.socket")]
    run([*systemctl, "disable", *former])
    sockets = [f"{daemon}{suffix}.socket" for daemon in _DAEMONS for suffix in ("", "-ro", "-admin")]
    run([*systemctl, "enable", "virtqemud.service", *sockets])


def _copy(file: pathlib.Path, directory: pathlib.Path, mode: int = 0o644) -> None:
    shutil.copyfile(file, directory / file.name)
    os.chmod(directory / file.name, mode)


def digest(release: str) -> str:
    """Twelve hexadecimal digits that change with this recipe, and with that of the image below."""
    text = pathlib.Path(__file__).read_bytes() + _recipe.digest(release).encode()
    return hashlib.sha256(text).hexdigest()[:12]
