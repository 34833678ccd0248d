# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All benchmarks in turn: `make benchmark`. Trust the ratios; each is measured side by side in one run."""

from __future__ import annotations

import importlib
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / ".collections")]

for script in sorted(HERE.glob("bench_*.py")):
    module = importlib.import_module(script.stem)
    print(f"\n{(module.__doc__ or '').splitlines()[0]}", flush=True)
    module.main()
