"""Photos out of folders, archives and buckets, one at a time, whatever strangers put into them.

It knows names and bytes; not rows, not pixels. A bad member is that member's end alone.
"""

from orchestrator.archive.base import Limits, Member, Photo, Refused, Skipped
from orchestrator.archive.source import Source, open_source

__all__ = ["Limits", "Member", "Photo", "Refused", "Skipped", "Source", "open_source"]
