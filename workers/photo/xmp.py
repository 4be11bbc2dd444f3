"""XMP of a changed photo: what was there stays, and a description of ours says that a model changed it.

Packets come from strangers: they are changed as text and never parsed. Several descriptions of one thing are allowed.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import quoteattr

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
NAMESPACE = "urn:fpga:record:1"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_END = re.compile(rb"</([A-Za-z_][\w.-]*:)?RDF\s*>")
_ABOUT = re.compile(rb"\babout\s*=\s*(\"[^\"<]*\"|'[^'<]*')")
_OLD = (
    re.compile(rb"\s[\w.-]+:DigitalSourceType\s*=\s*(\"[^\"]*\"|'[^']*')"),
    re.compile(rb"<([\w.-]+:DigitalSourceType)\b[^<]*</\1\s*>|<[\w.-]+:DigitalSourceType\b[^<>]*/>"),
    re.compile(rb"<[\w.-]+:Description\b[^<>]*urn:fpga:record:1[^<>]*/>"),
)
_GPS = (
    re.compile(rb"\s[\w.-]+:GPS\w+\s*=\s*(\"[^\"]*\"|'[^']*')"),
    re.compile(rb"<([\w.-]+:GPS\w+)\b[^<]*</\1\s*>|<[\w.-]+:GPS\w+\b[^<>]*/>"),
)


def marked(packet: bytes | None, record: str | None) -> bytes:
    """Return a packet that says what a model did, around what the photo's own packet says.

    Args:
        packet: the photo's, or None.
        record: JSON that says how the picture was made, or None to leave it out.
    """
    kept = packet or b""
    for old in _OLD:
        kept = old.sub(b"", kept)
    ends = list(_END.finditer(kept))
    if not ends or b"\0" in kept:  # none, damaged, or UTF-16: a packet of our own takes its place
        return _own(record)
    end, prefix = ends[-1].start(), ends[-1].group(1) or b"rdf:"
    about = _ABOUT.search(kept)
    ours = _description(record, (about.group(1) if about else b'""').decode("utf-8", "replace"), prefix.decode())
    return kept[:end] + ours + kept[end:]


def has_gps(packet: bytes | None) -> bool:
    """Whether a packet records a position."""
    return packet is not None and any(field.search(packet) for field in _GPS)


def without_gps(packet: bytes) -> bytes:
    """Return the packet with its positions made blanks, of the same length."""
    for field in _GPS:
        packet = field.sub(lambda match: b" " * len(match[0]), packet)
    return packet


def _own(record: str | None) -> bytes:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'.encode()
        + _description(record, '""', "rdf:")
        + b'</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


def _description(record: str | None, about: str, prefix: str) -> bytes:
    text = f" fpga:record={quoteattr(record)}" if record is not None else ""
    return (
        f'<{prefix}Description {prefix}about={about} xmlns:Iptc4xmpExt="{_IPTC}" xmlns:fpga="{NAMESPACE}" '
        f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"{text}/>'
    ).encode()
