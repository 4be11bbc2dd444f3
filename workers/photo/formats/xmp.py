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
_EMPTY = re.compile(rb"<(x:xmpmeta|x:xapmeta)\b[^<>]*(/>|>\s*</\1\s*>)")
_ABOUT = re.compile(rb"\babout\s*=\s*(\"[^\"<]*\"|'[^'<]*')")
_OLD = (
    re.compile(rb"\s[\w.-]+:DigitalSourceType\s*=\s*(\"[^\"]*\"|'[^']*')"),
    re.compile(rb"<([\w.-]+:DigitalSourceType)\b[^<]*</\1\s*>|<[\w.-]+:DigitalSourceType\b[^<>]*/>"),
    re.compile(rb"<[\w.-]+:Description\b[^<>]*urn:fpga:record:1[^<>]*/>"),
)


def marked(packet: bytes | None, record: str | None) -> bytes | None:
    """Return a packet that says what a model did, around what the photo's own packet says, in its own coding.

    Args:
        packet: the photo's, or None.
        record: JSON that says how the picture was made, or None to leave it out.

    Returns:
        None where the photo's packet is damaged and so cannot take anything.
    """
    if packet is None or not packet.strip(b"\0 \r\n\t"):
        return _own(record)
    coding = _coding(packet)
    try:
        kept = packet.decode(coding).encode() if coding else packet
    except UnicodeDecodeError:
        return None
    for old in _OLD:
        kept = old.sub(b"", kept)
    ends = list(_END.finditer(kept))
    if not ends and _EMPTY.search(kept):
        return _own(record)
    if not ends or b"\0" in kept:
        return None
    end, prefix = ends[-1].start(), ends[-1].group(1) or b"rdf:"
    about = _ABOUT.search(kept)
    ours = _description(record, (about.group(1) if about else b'""').decode("utf-8", "replace"), prefix.decode())
    whole = kept[:end] + ours + kept[end:]
    return whole.decode().encode(coding) if coding else whole


def _coding(packet: bytes) -> str | None:
    """Return the coding of a packet of wide characters, or None for UTF-8."""
    for coding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        if "RDF".encode(coding) in packet:
            return coding
    return None


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
