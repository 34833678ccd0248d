# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of CONTRIBUTING.md that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import typing as t
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "plugins/modules").glob("*.py"))
MODULE_UTILS = sorted((ROOT / "plugins/module_utils").glob("*.py"))
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())

HEADER = """\
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""

# The system is touched here and nowhere else.
MAY_TOUCH_THE_SYSTEM = {"_host.py", "_atomic.py", "_syscalls.py", "_child.py"}
SYSTEM_LIBRARIES = {"ctypes", "glob", "io", "multiprocessing", "pathlib", "shutil", "socket", "subprocess", "tempfile"}
SYSTEM_CALLS = re.compile(
    r"open|os\.(?:open|popen|system|spawn\w*|exec\w*|posix_spawn\w*|fork\w*|listdir|scandir|walk|l?stat|readlink|rename|replace"
    r"|unlink|remove|mkdir|makedirs|rmdir|l?ch(?:own|mod)|symlink|link|path\.(?:exists|lexists|is\w+|realpath))"
)

# What only means something on the machine it was written on, or in the notes of whoever wrote it. In pieces, so that
# this file is not among those it finds.
PRIVATE = re.compile(
    "|".join(
        [
            re.escape(str(ROOT)) + r"(?![\w.-])",
            "/" + "work/(?:main|shared)",
            "/tmp/" + "(?:team|bash_)",
            r"/\." + "pyenv",
            r"\b(?:pypi|files\.python" + r"hosted)\.org",
            r"\b(?:deb|ftp|snapshot|archive|security)\." + r"(?:debian\.org|ubuntu\.com)",
            r"\bgalaxy\." + r"ansible\.com",
            r"\b(?:DESIGN|HOUSE|NOTES)" + r"\.md",
            r"\bissue" + r"s? (?:show|#?\d)",
        ]
    )
)


def files() -> list[Path]:
    """The files of the checkout, those not yet committed too."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """The full names that a file imports; a relative import begins with a dot."""
    found = set()
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def calls(path: Path) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(syntax(path)) if isinstance(node, ast.Call)}


def documentation(path: Path, name: str = "DOCUMENTATION") -> t.Any:
    for node in syntax(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(f"{path.name} has no {name}")


def test_there_is_something_to_check() -> None:
    assert MODULES and MODULE_UTILS and ROLES
    assert len(files()) > len(MODULES) + len(MODULE_UTILS) + len(ROLES)


def test_module_utils_are_small() -> None:
    # Their source is sent, unpacked and compiled for every task.
    assert {path.name: size for path in MODULE_UTILS if (size := path.stat().st_size) >= 20_000} == {}


def test_only_the_host_touches_the_system() -> None:
    touching = {
        path.name: found
        for path in [*MODULES, *MODULE_UTILS]
        if path.name not in MAY_TOUCH_THE_SYSTEM
        and (found := sorted(imports(path) & SYSTEM_LIBRARIES) + sorted(filter(SYSTEM_CALLS.fullmatch, calls(path))))
    }
    assert touching == {}


def test_only_the_runner_knows_ansible() -> None:
    knowing = {
        path.name: found
        for path in MODULE_UTILS
        if path.name != "_runner.py"
        and (found := sorted(name for name in imports(path) if name.split(".")[0] == "ansible"))
    }
    assert knowing == {}


def test_modules_are_in_the_action_group() -> None:
    runtime = yaml.safe_load((ROOT / "meta/runtime.yml").read_text(encoding="utf-8"))
    assert sorted(runtime["action_groups"]["all"]) == [path.stem for path in MODULES]


def test_modules_take_their_attributes_from_the_fragment() -> None:
    fragments = {"hypervisor.hardening.attributes", "hypervisor.hardening.attributes.info"}
    missing = [
        path.name
        for path in MODULES
        if not fragments & set(documentation(path).get("extends_documentation_fragment", []))
    ]
    assert missing == []


def test_modules_have_tests() -> None:
    # One that runs on the controller is tested as the action plugin that it is.
    missing = [
        path.stem
        for path in MODULES
        for kind in ["action" if (ROOT / f"plugins/action/{path.stem}.py").is_file() else "modules"]
        if not (ROOT / f"tests/unit/plugins/{kind}/test_{path.stem}.py").is_file()
    ]
    assert missing == []


def test_filters_read_the_audit_only_when_it_is_asked_for() -> None:
    # To find one filter, Ansible reads all files of the directory, in every worker of every task that uses one.
    utilities = "ansible_collections.hypervisor.hardening.plugins.plugin_utils."
    read = {
        statement.module or ""
        for path in (ROOT / "plugins/filter").glob("*.py")
        for statement in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.ImportFrom)
    }
    ours = {name.removeprefix(utilities) for name in read if name.startswith(utilities[:-1])}
    assert ours == {"_levels", "_survey", "_weaknesses"}


def test_roles_are_documented() -> None:
    wanted = ["README.md", "meta/argument_specs.yml", "meta/main.yml", "defaults/main.yml", "tasks/main.yml"]
    assert [str(role / name) for role in ROLES for name in wanted if not (role / name).is_file()] == []


def test_conditions_on_switches_convert_them() -> None:
    # A survey's "false" passes the argument specification as a string, and a string is no condition.
    bare = []
    for role in ROLES:
        specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
        switches = {
            name
            for spec in specs.values()
            for name, option in spec.get("options", {}).items()
            if option.get("type") == "bool"
        }
        for path in sorted(role.glob("*/*.yml")):
            for line in path.read_text(encoding="utf-8").splitlines():
                if re.match(r"\s*(?:- )?(?:when|failed_when|changed_when|until):", line):
                    bare += [
                        f"{path}: {line.strip()}"
                        for name in switches
                        if re.search(rf"\b{name}\b(?!\s*\|\s*bool)", line)
                    ]
    assert bare == []


def test_python_files_name_their_licence() -> None:
    without = []
    for path in files():
        text = path.read_text(encoding="utf-8", errors="replace") if path.suffix in {".py", ""} else ""
        python = path.suffix == ".py" or re.match(r"#!.*(?:python|bash|sh)\b", text)
        if python and not re.sub(r"\A#!.*\n", "", text).startswith(HEADER):
            without.append(str(path.relative_to(ROOT)))
    assert without == []


def test_nothing_private_is_published() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files()
        if (match := PRIVATE.search(path.read_text(encoding="utf-8", errors="replace")))
    ]
    assert found == []


def test_generated_files_are_what_their_command_prints() -> None:
    for entry in yaml.safe_load((ROOT / "tests/generated.yml").read_text(encoding="utf-8")):
        if "sha256" in entry:  # of a machine: tests/unit/rules/test_captured.py
            continue
        printed = subprocess.run(entry["command"], cwd=ROOT, check=True, capture_output=True).stdout
        assert (ROOT / entry["path"]).read_bytes() == printed, f"{entry['path']} is not what {entry['command']} prints"
