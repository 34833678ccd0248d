# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: a root file system per Debian release, built once, whole or not there at all."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sys
import tempfile
import time

from . import _guestlinux, _recipe, _registry
from ._base import RigError, cache_dir, existing_parent, locked, remove_tree, run, run_long, say, spawn

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_NEEDED_MB = 4000
_KEPT_SECONDS = 86400


def image_dir(release: str) -> pathlib.Path:
    """Where the image of a release is, or will be.

    :raises RigError: an unknown release.
    """
    if release not in _recipe.RELEASES:
        raise RigError(f"no recipe for {release!r}: there is one for {', '.join(_recipe.RELEASES)}")
    return cache_dir() / "images" / f"{release}-{_recipe.digest(release)}"


def is_built(release: str) -> bool:
    """Whether the image of a release is there; it comes by one rename, so it is then whole."""
    return (image_dir(release) / "image.json").exists()


def build(release: str) -> pathlib.Path:
    """Build the image of a release unless it is there; return its directory.

    Two builds at once wait for each other. A build that was killed leaves a directory below ``building`` and
    nothing else (its mounts and processes live in namespaces that die with it); the next one removes it.

    :raises RigError: a step failed; the message ends with its last lines and names the log.
    """
    final = image_dir(release)
    with locked(f"build-{release}") as lock:
        building = cache_dir() / "building"
        for stale in building.glob(f"{release}-*"):
            say(f"removing what a broken-off build left: {stale}")
            remove_tree(stale)
        if is_built(release):
            os.utime(final / "image.json")
            return final
        begun = time.monotonic()
        for directory in (building, final.parent, _deb_cache(release)):
            directory.mkdir(parents=True, exist_ok=True)
        say(f"building {release} (libvirt {_recipe.RELEASES[release]}) in {cache_dir()}")
        parts = pathlib.Path(tempfile.mkdtemp(prefix=f"{release}-", dir=building))
        try:
            _build_apart(release, parts, lock)
            _commit(parts, final)
        except BaseException:
            remove_tree(parts)
            raise
        _remove_older(release, final)
        say(f"{release} is built: {final} ({time.monotonic() - begun:.0f} s)")
        return final


def _build_apart(release: str, parts: pathlib.Path, lock: int) -> None:
    # Own mount and pid namespaces: no mount is ever seen outside, and no process outlives the first one.
    program = [sys.executable, os.fspath(pathlib.Path(__file__).parent), "_build", release, os.fspath(parts)]
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
        log = cache_dir() / f"build-{release}.log"
        shutil.copyfile(parts / "build.log", log)
        raise RigError(f"the image of {release} could not be built; its whole log is {log}")


def _remove_older(release: str, final: pathlib.Path) -> None:
    """Remove the images of former recipes, but none that a host is on or that another checkout used within a day."""
    used = _registry.images_in_use()
    for image in final.parent.glob(f"{release}-*"):
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


def build_here(release: str, parts: pathlib.Path) -> None:
    """Make the image in ``parts``; to be called in mount and pid namespaces of its own.

    :raises RigError: a step failed.
    """
    root = parts / "root"
    debs = _deb_cache(release)
    mirror = _mirror()
    with (parts / "build.log").open("wb") as log:
        options = ["--variant=minbase", f"--cache-dir={debs}", f"--keyring={_KEYRING}"]
        words = ["debootstrap", *options, release, os.fspath(root), *([mirror] if mirror else [])]
        run_long(words, f"{release}: base system", log)
        _prepare_chroot(root, debs)
        chroot = _chroot(root)
        apt = [*chroot, "apt-get", "-y", "-q", "--no-install-recommends", "-o", "Dpkg::Options::=--force-unsafe-io"]
        run_long([*apt, "update"], f"{release}: package lists", log)
        run_long([*apt, "install", *_recipe.packages(release)], f"{release}: libvirt, QEMU, sshd", log)
        run_long([*apt, "install", "--download-only", _guestlinux.PACKAGE], f"{release}: a kernel for guests", log)
        _install_guest_linux(root, debs)
        _finish_chroot(root)
    version = run([*chroot, "dpkg-query", "-W", "-f", "${Version}", "libvirt-daemon"]).stdout
    facts = {"release": release, "libvirt": version, "packages": _recipe.packages(release)}
    (parts / "image.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


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


def _chroot(root: pathlib.Path) -> list[str]:
    # A directory for temporary files that somebody chose out here (pam_tmpdir, a runner of tests) is not there inside.
    return ["chroot", os.fspath(root), "env", "--unset=TMPDIR"]


def _prepare_chroot(root: pathlib.Path, debs: pathlib.Path) -> None:
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    (root / "etc/apt/apt.conf.d/90rig").write_text(
        'APT::Install-Recommends "0";\nAcquire::Languages "none";\nAcquire::Retries "3";\n' + _proxy_lines(),
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


def _install_guest_linux(root: pathlib.Path, debs: pathlib.Path) -> None:
    chroot = _chroot(root)
    depends = run([*chroot, "apt-cache", "show", "--no-all-versions", _guestlinux.PACKAGE]).stdout
    # The package that holds the files is the first thing that the package with the plain name depends on.
    name = depends.partition("\nDepends: ")[2].split()[0].rstrip(",")
    package = max(debs.glob(f"{name}_*.deb"), key=lambda path: path.stat().st_mtime)
    unpacked = root / "tmp/kernel"
    run([*chroot, "dpkg-deb", "--extract", f"/var/cache/apt/archives/{package.name}", "/tmp/kernel"])
    _guestlinux.install(root, unpacked)


def _proxy_lines() -> str:
    lines = run(["apt-config", "dump", "--format", '%f "%v";%n', "Acquire::http"], check=False).stdout.splitlines()
    return "".join(line + "\n" for line in lines if "Proxy" in line and '""' not in line)


def _finish_chroot(root: pathlib.Path) -> None:
    for path, text in _recipe.APPENDED.items():
        with (root / path).open("a", encoding="utf-8") as file:
            file.write(text)
    for unit in _recipe.MASKED_UNITS:
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    for path in ("usr/sbin/policy-rc.d", "etc/apt/apt.conf.d/90rig", "etc/hostname", "etc/resolv.conf"):
        (root / path).unlink()
    # The hosts have no way out, so an empty list of name servers answers at once.
    (root / "etc/resolv.conf").write_text("", encoding="ascii")
    (root / "etc/machine-id").write_text("", encoding="ascii")
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    for stamp in _recipe.STAMPS:
        (root / stamp).touch()
    for mounted in ("proc", "sys", "tmp", "var/cache/apt/archives"):
        run(["umount", root / mounted])
    shutil.rmtree(root / "var/lib/apt/lists")
    (root / "var/lib/apt/lists").mkdir()


def free_megabytes() -> int:
    """Free space where the cache is, in MB of 10^6 bytes."""
    return shutil.disk_usage(existing_parent(cache_dir())).free // 1_000_000


def needed_megabytes() -> int:
    """Space that the images not built yet, their packages and a few hosts take, in MB of 10^6 bytes."""
    return _NEEDED_MB if not all(is_built(release) for release in _recipe.RELEASES) else 500
