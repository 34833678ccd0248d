# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hook as libvirt would run it: with the real shell, and the shipped code with a bare Python."""

from __future__ import annotations

import ast
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _gate, _gatehook, _host

HERE = Path(_host.__file__).parent
# What libvirt calls its hook of QEMU for (docs/hooks.rst), with the phase of each.
OPERATIONS = [
    *(("prepare", "begin"), ("start", "begin"), ("started", "begin"), ("stopped", "end"), ("release", "end")),
    *(("restore", "begin"), ("reconnect", "begin"), ("attach", "begin"), ("migrate", "end"), ("begin", "migrate")),
]
XML = "<domain type='qemu'>\n  <name>web \\n $HOME</name>\n</domain>\n"


class Installed(t.NamedTuple):
    """A hook in a directory of its own; ``call`` runs it as libvirt does."""

    home: Path

    def call(self, operation: str = "migrate", phase: str = "begin", guest: str = "web") -> tuple[int, str, str]:
        done = subprocess.run(
            [self.home / "hook", guest, operation, phase, "-"],
            input=XML,
            capture_output=True,
            text=True,
            check=False,
            env={"LC_ALL": "C", "PATH": f"{self.home}/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            timeout=30,
        )
        return done.returncode, done.stdout, done.stderr

    def logged(self) -> str:
        path = self.home / "log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def install(tmp_path: Path) -> t.Callable[..., Installed]:
    """A function that installs the hook; ``python``: the text of what stands for the interpreter, None for the real."""

    def make(mode: str, python: str | None = "exit 0", chained: str | None = None) -> Installed:
        executable(tmp_path / "bin/logger", f'echo "$@" >> {tmp_path}/log')
        interpreter = Path(sys.executable)
        if python is not None:
            interpreter = executable(tmp_path / "bin/python", python)
        next_one = executable(tmp_path / "next", chained) if chained is not None else ""
        for one in _gatehook.files(mode, str(interpreter), str(next_one)):
            path = tmp_path / one.path[len(_gate.DIRECTORY) + 1 :]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(one.content.replace(_gate.DIRECTORY.encode(), str(tmp_path).encode()))
            path.chmod(one.mode)
        return Installed(tmp_path)

    return make


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def imported(name: str) -> set[str]:
    """The modules of this package that one imports when it runs, at whatever place."""
    tree = ast.parse((HERE / f"{name}.py").read_text())
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "t.TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and id(node) not in typing_only:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
    return found


def test_all_that_the_gate_imports_is_shipped() -> None:
    closure, waiting = set(), {"_gate"}
    while waiting:
        name = waiting.pop()
        closure.add(name)
        waiting |= imported(name) - closure
    assert sorted(closure) == list(_gatehook.MODULES)


def test_the_shipped_code_is_this_code() -> None:
    files = {Path(one.path).name: one for one in _gatehook.files("warn", "/usr/bin/python3", "")}
    for name in _gatehook.MODULES:
        assert files[f"{name}.py"].content == (HERE / f"{name}.py").read_bytes()
    assert {one.mode for one in files.values()} == {0o644, 0o755}
    assert list(files)[-1] == "hook"


def test_other_code_has_another_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def code() -> set[str]:
        paths = (Path(one.path) for one in _gatehook.files("warn", "/usr/bin/python3", ""))
        return {path.parts[5] for path in paths if len(path.parts) > 6}

    before = code()
    source = _gatehook._source
    monkeypatch.setattr(_gatehook, "_source", lambda name: source(name) + b"#" * (name == "_tcp"))
    assert len(before) == len(code()) == 1
    assert before != code()


@pytest.mark.parametrize("mode", ["off", "warn", "enforce"])
def test_the_mode_can_be_read_back(mode: str) -> None:
    assert _gatehook.mode_of(_gatehook.files(mode, "/usr/bin/python3", "")[-1].content) == mode


def test_no_script_has_no_mode() -> None:
    assert _gatehook.mode_of(None) == _gatehook.mode_of(b"\xff\nnothing\n") == ""


@pytest.mark.parametrize(("operation", "phase"), OPERATIONS)
@pytest.mark.parametrize("python", ["echo refused >&2; exit 3", "echo broken; exit 1", "kill -9 $$", "sleep 60"])
def test_nothing_else_is_ever_refused(
    install: t.Callable[..., Installed], operation: str, phase: str, python: str
) -> None:
    assert install("enforce", python).call(operation, phase) == (0, "", "")


def test_it_is_asked_for_the_guest_in_its_mode(install: t.Callable[..., Installed]) -> None:
    hook = install("enforce", 'printf "%s|" "$@" >&2; cat >&2; exit 3')
    status, out, said = hook.call(guest="web one")
    code = next(hook.home.glob("gate-*"))
    assert (status, out) == (1, "")
    assert said == f"-I|-S|{code}|enforce|web one|{XML}"


@pytest.mark.parametrize("mode", ["warn", "enforce"])
def test_what_may_come_comes(install: t.Callable[..., Installed], mode: str) -> None:
    hook = install(mode, "echo any word; echo another >&2; exit 0")
    assert hook.call() == (0, "", "")
    assert hook.logged() == ""


@pytest.mark.parametrize(
    ("python", "status"),
    [
        ("kill -9 $$", "137"),
        ("echo Traceback; echo 'Error: x'; exit 1", "1"),
        ("exit 2", "2"),
        ("kill -TERM $$", "143"),
    ],
)
def test_a_broken_gate_goes_by_the_mode(install: t.Callable[..., Installed], python: str, status: str) -> None:
    code, out, said = install("enforce", python).call()
    assert (code, out) == (1, "")
    assert "the migration gate of" in said
    assert f"does not work (status {status}: " in said
    assert ("Error: x" in said) == ("Error" in python)
    assert said.count("\n") == 1
    assert install("warn", python).call() == (0, "", "")
    assert "does not work" in install("warn", python).logged()
    assert "the mode is warn" in install("warn", python).logged()


def test_without_any_interpreter(install: t.Callable[..., Installed]) -> None:
    hook = install("enforce")
    (hook.home / "bin/python").unlink()
    code, _out, said = hook.call()
    assert code == 1
    assert "does not work (status 127" in said
    assert hook.call("reconnect") == (0, "", "")


def test_switched_off_nothing_is_asked(install: t.Callable[..., Installed]) -> None:
    hook = install("off", "touch $0.asked; exit 3")
    assert hook.call() == (0, "", "")
    assert not (hook.home / "bin/python.asked").exists()


def test_the_real_code_with_nothing_but_python(install: t.Callable[..., Installed]) -> None:
    """This machine has no such agreement, which is answered by the mode."""
    code, out, said = install("enforce", None).call()
    assert (code, out) == (1, "")
    assert said.startswith("hypervisor.hardening: web may not come to ")
    assert "The agreement is missing" in said
    assert said.count("\n") == 1


CHAINED = 'printf "%s|" "$@" >&2; cat; exit 7'


@pytest.mark.parametrize("mode", ["off", "warn", "enforce"])
@pytest.mark.parametrize(("operation", "phase"), [*OPERATIONS, ("migrate", "begin")])
def test_the_operators_own_hook_is_run_for_everything(
    install: t.Callable[..., Installed], mode: str, operation: str, phase: str
) -> None:
    """With its arguments, standard input and output, and its exit status."""
    hook = install(mode, "exit 0", CHAINED)
    assert hook.call(operation, phase, "a b") == (7, XML, f"a b|{operation}|{phase}|-|")


def test_the_operators_own_hook_is_not_run_for_a_refused_guest(install: t.Callable[..., Installed]) -> None:
    assert install("enforce", "echo no >&2; exit 3", CHAINED).call() == (1, "", "no\n")
    assert install("warn", "exit 5", CHAINED).call() == (7, XML, "web|migrate|begin|-|")


def test_an_own_hook_that_cannot_be_run_is_none(install: t.Callable[..., Installed]) -> None:
    hook = install("enforce", "exit 0", CHAINED)
    (hook.home / "next").chmod(0o644)
    assert hook.call() == (0, "", "")
    assert hook.call("reconnect") == (0, "", "")
