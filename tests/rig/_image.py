# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: a root file system per Debian release, and a disk for virtual machines; built once, whole or not at all."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from typing import IO, Any

from . import _chroot, _guestlinux, _recipe, _registry, _vmimage, _vmrecipe
from ._base import RigError, cache_dir, existing_parent, locked, remove_tree, run, run_long, say, spawn

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_NEEDED_MB = 5000
_KEPT_SECONDS = 86400

#: The names of all images: a release, or vm-RELEASE for the disk of virtual machines.
NAMES = (*_recipe.RELEASES, *(f"vm-{release}" for release in _vmrecipe.RELEASES))


def image_dir(name: str) -> pathlib.Path:
    """Where an image is, or will be.

    :param name: one of NAMES.
    :raises RigError: there is none of this name.
    """
    if name not in NAMES:
        raise RigError(f"no recipe for {name!r}: there is one for {', '.join(NAMES)}")
    release = name.removeprefix("vm-")
    digest = _recipe.digest(release) if name == release else _vmrecipe.digest(release)
    return cache_dir() / "images" / f"{name}-{digest}"


def is_built(name: str) -> bool:
    """Whether an image is there; it comes by one rename, so it is then whole."""
    return (image_dir(name) / "image.json").exists()


def build(name: str) -> pathlib.Path:
    """Build an image unless it is there, and first the one that it lies on; return its directory.

    Two builds at once wait for each other. A build that was killed leaves a directory below ``building`` and
    nothing else (its mounts and processes live in namespaces that die with it); the next one removes it.

    :param name: one of NAMES.
    :raises RigError: a step failed; the message ends with its last lines and names the log.
    """
    final = image_dir(name)
    release = name.removeprefix("vm-")
    if name != release:
        build(release)
    with locked(f"build-{name}") as lock:
        building = cache_dir() / "building"
        for stale in building.glob(f"{name}-*"):
            say(f"removing what a broken-off build left: {stale}")
            remove_tree(stale)
        if is_built(name):
            os.utime(final / "image.json")
            return final
        begun = time.monotonic()
        for directory in (building, final.parent, _deb_cache(release)):
            directory.mkdir(parents=True, exist_ok=True)
        say(f"building {name} (libvirt {_recipe.RELEASES[release]}) in {cache_dir()}")
        parts = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=building))
        try:
            _build_apart(name, parts, lock)
            _commit(parts, final)
        except BaseException:
            remove_tree(parts)
            raise
        _remove_older(name, final)
        say(f"{name} is built: {final} ({time.monotonic() - begun:.0f} s)")
        return final


def _build_apart(name: str, parts: pathlib.Path, lock: int) -> None:
    # Own mount and pid namespaces: no mount is ever seen outside, and no process outlives the first one.
    program = [sys.executable, os.fspath(pathlib.Path(__file__).parent), "_build", name, os.fspath(parts)]
    child = spawn(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", *program],
        dies_with_parent=True,
        pass_fds=(lock,),
    )
    try:
        status = child.wait()
    except BaseException:
        child.kill()
        child.wait()
        raise
    if status != 0:
        log = cache_dir() / f"build-{name}.log"
        shutil.copyfile(parts / "build.log", log)
        raise RigError(f"the image {name} could not be built; its whole log is {log}")


def _remove_older(name: str, final: pathlib.Path) -> None:
    """Remove the images of former recipes, but none that a host is on or that another checkout used within a day."""
    used = _registry.images_in_use()
    for image in final.parent.glob(f"{name}-*"):
        recent = time.time() - (image / "image.json").stat().st_mtime < _KEPT_SECONDS
        if image != final and os.fspath(image) not in used and not recent:
            say(f"removing an image of a former recipe: {image.name}")
            # Without this file it is no image any more, whatever happens to the rest.
            (image / "image.json").unlink()
            remove_tree(image)


def _commit(parts: pathlib.Path, final: pathlib.Path) -> None:
    run(["sync", "--file-system", parts])
    os.rename(parts, final)
    descriptor = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def build_here(name: str, parts: pathlib.Path) -> None:
    """Make an image in ``parts``; to be called in mount and pid namespaces of its own.

    :param name: one of NAMES.
    :raises RigError: a step failed.
    """
    release = name.removeprefix("vm-")
    with (parts / "build.log").open("wb") as log:
        if name == release:
            facts = _make_root(release, parts, log)
        else:
            facts = _vmimage.make(release, image_dir(release), parts, _deb_cache(release), log)
    (parts / "image.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _make_root(release: str, parts: pathlib.Path, log: IO[bytes]) -> dict[str, Any]:
    root, debs = parts / "root", _deb_cache(release)
    mirror = _mirror()
    options = ["--variant=minbase", f"--cache-dir={debs}", f"--keyring={_KEYRING}"]
    words = ["debootstrap", *options, release, os.fspath(root), *([mirror] if mirror else [])]
    run_long(words, f"{release}: base system", log)
    with _chroot.prepared(root, debs):
        apt = _chroot.apt(root)
        run_long([*apt, "update"], f"{release}: package lists", log)
        run_long([*apt, "install", *_recipe.packages(release)], f"{release}: libvirt, QEMU, sshd", log)
        run_long([*apt, "install", "--download-only", _guestlinux.PACKAGE], f"{release}: a kernel for guests", log)
        _install_guest_linux(root, debs)
        _finish(root)
    return {
        "release": release,
        "libvirt": _chroot.version(root, "libvirt-daemon"),
        "packages": _recipe.packages(release),
    }


def _deb_cache(release: str) -> pathlib.Path:
    return cache_dir() / "debs" / release


def _mirror() -> str | None:
    """The Debian mirror that this machine itself uses; without one, debootstrap has a default of its own."""
    chosen = os.environ.get("HYPERVISOR_RIG_MIRROR")
    if chosen:
        return chosen
    shape = "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)"
    for line in run(["apt-get", "indextargets", "--format", shape, "Created-By: Packages"]).stdout.splitlines():
        origin, label, component, uri = line.split("|")
        if (origin, label, component) == ("Debian", "Debian", "main"):
            return uri
    return None


def _install_guest_linux(root: pathlib.Path, debs: pathlib.Path) -> None:
    chroot = _chroot.command(root)
    depends = run([*chroot, "apt-cache", "show", "--no-all-versions", _guestlinux.PACKAGE]).stdout
    # The package that holds the files is the first thing that the package with the plain name depends on.
    name = depends.partition("\nDepends: ")[2].split()[0].rstrip(",")
    package = max(debs.glob(f"{name}_*.deb"), key=lambda path: path.stat().st_mtime)
    unpacked = root / "tmp/kernel"
    run([*chroot, "dpkg-deb", "--extract", f"/var/cache/apt/archives/{package.name}", "/tmp/kernel"])
    _guestlinux.install(root, unpacked)


def _finish(root: pathlib.Path) -> None:
    for path, text in _recipe.APPENDED.items():
        with (root / path).open("a", encoding="utf-8") as file:
            file.write(text)
    for unit in _recipe.MASKED_UNITS:
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    (root / "etc/hostname").unlink()
    (root / "etc/machine-id").write_text("", encoding="ascii")
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    for stamp in _recipe.STAMPS:
        (root / stamp).touch()


def free_megabytes() -> int:
    """Free space where the cache is, in MB of 10^6 bytes."""
    return shutil.disk_usage(existing_parent(cache_dir())).free // 1_000_000


def needed_megabytes() -> int:
    """Space that the images not built yet, their packages and a few hosts take, in MB of 10^6 bytes."""
    return _NEEDED_MB if not all(is_built(name) for name in NAMES) else 500
