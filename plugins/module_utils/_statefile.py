# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's own files of pools and networks: a definition, or a state that holds one."""

from __future__ import annotations

import typing as t
from xml.etree import ElementTree

from ._reader import Reader

SIZE_LIMIT = 1024 * 1024


def elements(reader: Reader, directory: str, tag: str) -> t.Iterator[tuple[str, ElementTree.Element]]:
    """The definitions in the .xml files of a directory, by name; a file that cannot be read is noted.

    :param tag: the element that a definition is, such as ``pool``.
    """
    for entry in reader.list(directory):
        if not entry.endswith(".xml"):
            continue
        path = f"{directory}/{entry}"
        try:
            data = reader.host.read_optional(path)
            found = None if data is None else _parse(data, tag)
        except (OSError, ValueError, ElementTree.ParseError) as error:
            reader.note(path, str(error))
            continue
        if found is not None:
            yield (found.findtext("name") or "").strip() or entry[: -len(".xml")], found


def _parse(data: bytes, tag: str) -> ElementTree.Element | None:
    """The element, also inside that of a state. A document type, and with it every entity, is refused.

    :raises ValueError: too long, or with a document type.
    """
    if len(data) > SIZE_LIMIT or b"<!DOCTYPE" in data:
        raise ValueError(f"is no {tag} of libvirt's: too long, or with a document type declaration")
    root = ElementTree.fromstring(data)
    return root if root.tag == tag else root.find(tag)
