# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the rig."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from . import _boot, _checks, _hosts, _image, _machine, _registry
from ._base import RigError, cache_dir, existing_parent, locked, remove_tree, say, scope


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        return status
    except RigError as error:
        print(f"rig: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rig: interrupted; nothing is left behind", file=sys.stderr)
        return 130


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rig", description="Disposable hypervisors to try things on.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, function: object, text: str | None) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text) if text else commands.add_parser(name)
        sub.set_defaults(run=function)
        return sub

    command("check", _check, "say what is missing on this machine")
    command("install", _install, "install the missing packages (never libvirt or QEMU)")
    build = command("build", _build, "build images, unless they are there")
    images = ", ".join(_image.NAMES)
    build.add_argument(
        "name", nargs="*", metavar="IMAGE", help=f"of {images}; if none is given {', '.join(_image.COMMON)}"
    )
    up = command("up", _up, "boot a host")
    up.add_argument("name")
    up.add_argument("--release", default="trixie", choices=_image.HOSTS)
    up.add_argument("--vm", action="store_true", help="a virtual machine, with a kernel of its own")
    up.add_argument("--selinux", action="store_true", help="that kernel has SELinux in AppArmor's place")
    up.add_argument("--words", default="", help="more for the command line of that kernel")
    pages = "add N huge pages of the default size to the machine's pool"
    up.add_argument("--hugepages", type=int, default=0, metavar="N", help=pages)
    up.add_argument("--shared", action="store_true", help="with /srv/shared, which all such hosts share")
    ssh = command("ssh", _ssh, "run a command on a host, or open a session")
    ssh.add_argument("name")
    ssh.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD ...")
    reboot = command("reboot", _reboot, "reboot a host; its disk stays")
    reboot.add_argument("name")
    down = command("down", _down, "take hosts down and put the machine back")
    down.add_argument("name", nargs="*")
    down.add_argument("--all", action="store_true", help="all hosts of this scope")
    command("list", _list, "show the hosts that are up")
    command("inventory", _inventory, "print the inventory and where it is")
    capture = command(
        "capture", _capture, "print, as JSON, what hypervisor_info tells of a host, with versions and digest"
    )
    capture.add_argument("name")
    capture.add_argument("section", nargs="*", metavar="SECTION", help="only these sections of the facts")
    command("snapshot", _snapshot, "print, as JSON, what a host could change on this machine")
    compare = command("compare", _compare, "compare the machine with a snapshot; exit status 1 if they differ")
    compare.add_argument("file", type=pathlib.Path)
    command("clean", _clean, "take all hosts down and remove the cache")
    for name, function, words in (("_build", _build_here, ["name", "parts"]), ("_boot", _boot_here, ["directory"])):
        sub = command(name, function, None)
        for word in words:
            sub.add_argument(word)
    return parser


def _check(_options: argparse.Namespace) -> int:
    missing = _checks.missing()
    for line in missing:
        print(line)
    if not missing:
        print(f"nothing is missing; the cache is {cache_dir()} ({_image.free_megabytes()} MB free)")
    return 1 if missing else 0


def _install(_options: argparse.Namespace) -> int:
    _checks.install()
    return _check(_options)


def _need_all() -> None:
    missing = _checks.missing()
    if missing:
        raise RigError("this machine cannot run the rig yet:\n" + "\n".join(missing))


def _build(options: argparse.Namespace) -> int:
    _need_all()
    for name in options.name or _image.COMMON:
        print(_image.build(name))
    return 0


def _build_here(options: argparse.Namespace) -> int:
    _image.build_here(options.name, pathlib.Path(options.parts))
    return 0


def _boot_here(options: argparse.Namespace) -> int:
    return _boot.boot(pathlib.Path(options.directory))


def _up(options: argparse.Namespace) -> int:
    _need_all()
    host = _hosts.up(
        options.name,
        options.release,
        vm=options.vm,
        words=options.words.split(),
        selinux=options.selinux,
        hugepages=options.hugepages,
        shared=options.shared,
    )
    print(host.inventory)
    return 0


def _ssh(options: argparse.Namespace) -> int:
    argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    return subprocess.run(_hosts.get(options.name).ssh_argv(" ".join(argv)), check=False).returncode


def _reboot(options: argparse.Namespace) -> int:
    begun = time.monotonic()
    _hosts.get(options.name).reboot()
    say(f"{options.name} is back after {time.monotonic() - begun:.1f} s")
    return 0


def _down(options: argparse.Namespace) -> int:
    if not options.name and not options.all:
        raise RigError("which host? give a name, or --all")
    begun = time.monotonic()
    chosen = _hosts.names() if options.all else options.name
    for name in chosen:
        _hosts.down(name, missing_ok=options.all)
    _hosts.reap()
    say(f"{len(chosen)} host(s) down in {time.monotonic() - begun:.1f} s")
    return 0


def _list(_options: argparse.Namespace) -> int:
    _hosts.reap()
    for name in _hosts.names():
        host = _hosts.get(name)
        print(f"{name}\t{host.release}\t{host.address}\tpid1={host.pid1}")
    return 0


def _inventory(_options: argparse.Namespace) -> int:
    path = _hosts.publish()
    print(f"# {path}")
    print(path.read_text(encoding="ascii"), end="")
    return 0


def _capture(options: argparse.Namespace) -> int:
    try:
        from . import modules
    except ImportError as error:
        raise RigError(f"a module is run by Ansible's own code, which this Python has not: {error}") from None
    host = _hosts.get(options.name)
    facts = modules.call(host, "hypervisor_info")["hypervisor"]
    unknown = sorted(set(options.section) - set(facts))
    if unknown:
        raise RigError(f"hypervisor_info has no section {', '.join(unknown)}; it has {', '.join(facts)}")
    kept = {name: facts[name] for name in options.section or facts}
    captured = {
        "command": ["python3", "tests/rig", "capture", *sys.argv[2:]],
        "release": host.release,
        "kernel": facts["host"]["kernel"],
        "libvirt": facts["libvirt"]["version"],
        "qemu": facts["libvirt"]["qemu_version"],
        "sha256": hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest(),
        "facts": kept,
    }
    print(json.dumps(captured, sort_keys=True))
    return 0


def _snapshot(_options: argparse.Namespace) -> int:
    print(json.dumps(_machine.snapshot(scope()), indent=1, sort_keys=True))
    return 0


def _compare(options: argparse.Namespace) -> int:
    before = json.loads(options.file.read_text(encoding="utf-8"))
    lines = _machine.differences(before, _machine.snapshot(scope()))
    for line in lines:
        print(line)
    return 1 if lines else 0


def _clean(_options: argparse.Namespace) -> int:
    cache = cache_dir()
    if not cache.exists():
        return 0
    _hosts.reap()
    others = sorted(_registry.scopes_up() - {scope()})
    if others:
        raise RigError(f"others have hosts up from this cache ({', '.join(others)}): they take them down first")
    for name in _hosts.names():
        _hosts.down(name, missing_ok=True)
    before = shutil.disk_usage(cache).free
    with contextlib.ExitStack() as stack:
        for name in _image.NAMES:
            stack.enter_context(locked(f"build-{name}"))
        stack.enter_context(locked("rig"))
        remove_tree(cache)
    freed = shutil.disk_usage(existing_parent(cache)).free - before
    print(f"removed {cache}: {freed // 1_000_000} MB freed")
    return 0
