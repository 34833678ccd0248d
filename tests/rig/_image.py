# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: a root file system per Debian release, and a disk for virtual machines; built once, whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from typing import IO, Any

from . import _chroot, _guestlinux, _modular, _otherrecipe, _recipe, _registry, _vmimage, _vmrecipe, _vmselinux
from ._base import RigError, cache_dir, existing_parent, locked, remove_tree, run, run_long, say, spawn

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_NEEDED_MB = 5000
_KEPT_SECONDS = 86400

# The recipe of an image by what its name has before the release's; one without such a word is of a release itself.
_RECIPES = {"vm": _vmrecipe, "selinux": _vmselinux, "modular": _modular}
_MAKERS: dict[str, Callable[..., dict[str, Any]]] = {
    "vm": _vmimage.make,
    "selinux": functools.partial(_vmimage.make, selinux=True),
    "modular": _modular.make,
}

#: The names of the images that are built unless others are asked for.
COMMON = (*_recipe.RELEASES, *(f"vm-{release}" for release in _vmrecipe.RELEASES))
_MODULAR = {f"modular-{release}": _recipe.RELEASES[release] for release in _modular.RELEASES}
#: The images that a container can be of -> the libvirt in them, for people.
HOSTS = {**_recipe.RELEASES, **_otherrecipe.RELEASES, **_MODULAR}
#: The names of all images: a release, or a word before it.
NAMES = tuple(dict.fromkeys((*COMMON, *HOSTS, *(f"selinux-{release}" for release in _vmselinux.RELEASES))))


def image_dir(name: str) -> pathlib.Path:
    """Where an image is, or will be.

    :param name: one of NAMES.
    :raises RigError: there is none of this name.
    """
    if name not in NAMES:
        raise RigError(f"no recipe for {name!r}: there is one for {', '.join(NAMES)}")
    word, release = _parted(name)
    recipe = _RECIPES.get(word) or _recipe_of(release)
    return cache_dir() / "images" / f"{name}-{recipe.digest(release)}"


def _parted(name: str) -> tuple[str, str]:
    word, _dash, release = name.rpartition("-")
    return word, release


def _recipe_of(release: str) -> types.ModuleType:
    return _recipe if release in _recipe.RELEASES else _otherrecipe


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
    word, release = _parted(name)
    if word:
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
        say(f"building {name} (libvirt {HOSTS[release]}) in {cache_dir()}")
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
    word, release = _parted(name)
    with (parts / "build.log").open("wb") as log:
        if word:
            facts = _MAKERS[word](release, image_dir(release), parts, _deb_cache(release), log)
        else:
            facts = _make_root(release, parts, log)
    (parts / "image.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _make_root(release: str, parts: pathlib.Path, log: IO[bytes]) -> dict[str, Any]:
    root, debs = parts / "root", _deb_cache(release)
    mirror = _mirror()
    options = ["--variant=minbase", f"--cache-dir={debs}", f"--keyring={_KEYRING}"]
    words = ["debootstrap", *options, release, os.fspath(root), *([mirror] if mirror else [])]
    packages = _recipe_of(release).packages(release)
    with _known_to_debootstrap(release) as where:
        run_long([*where, *words], f"{release}: base system", log)
    with _chroot.prepared(root, debs):
        apt = _chroot.apt(root)
        run_long([*apt, "update"], f"{release}: package lists", log)
        run_long([*apt, "install", *packages], f"{release}: libvirt, QEMU, sshd", log)
        run_long([*apt, "install", "--download-only", _guestlinux.PACKAGE], f"{release}: a kernel for guests", log)
        _install_guest_linux(root, debs)
        _finish(root)
    return {
        "release": release,
        "libvirt": _chroot.version(root, "libvirt-daemon"),
        "packages": packages,
    }


@contextlib.contextmanager
def _known_to_debootstrap(release: str) -> Iterator[list[str]]:
    """Words before a call of debootstrap that have it know a release which may be younger than itself."""
    script = _otherrecipe.SCRIPTS.get(release)
    if not script:
        yield []
        return
    with tempfile.TemporaryDirectory(prefix="debootstrap-") as directory:
        own = pathlib.Path(directory, "debootstrap")
        shutil.copytree(pathlib.Path(script).parent.parent, own, symlinks=True)
        (own / "scripts" / release).unlink(missing_ok=True)
        (own / "scripts" / release).symlink_to(script)
        yield ["env", f"DEBOOTSTRAP_DIR={own}"]


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
    # The package that holds the files, or since Linux 7 needs others that hold them, is what the plain name depends on.
    names = (word.split()[0] for word in depends.partition("\nDepends: ")[2].partition("\n")[0].split(","))
    version = next(name for name in names if name.startswith("linux-image-")).removeprefix("linux-image-")
    unpacked = root / "tmp/kernel"
    (unpacked / "boot").mkdir(parents=True)
    for part in ("image", "binary", "modules"):
        found = sorted(debs.glob(f"linux-{part}-{version}_*.deb"), key=lambda path: path.stat().st_mtime)
        for package in found[-1:]:
            run([*chroot, "dpkg-deb", "--extract", f"/var/cache/apt/archives/{package.name}", "/tmp/kernel"])
    for kernel in unpacked.glob("usr/lib/modules/*/vmlinuz"):
        kernel.rename(unpacked / f"boot/vmlinuz-{kernel.parent.name}")
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
    return _NEEDED_MB if not all(is_built(name) for name in COMMON) else 500
