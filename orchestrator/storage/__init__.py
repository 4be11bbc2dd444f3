"""Where bytes are kept: one small protocol over a local directory or any S3 endpoint, with content-addressed keys.

It knows keys and bytes; not pictures, not rows, not who may read what.
"""

from orchestrator.storage.base import ByteStore, Data, Listed, Part, PartStore, Stored
from orchestrator.storage.factory import open_store
from orchestrator.storage.keys import content_key

__all__ = ["ByteStore", "Data", "Listed", "Part", "PartStore", "Stored", "content_key", "open_store"]
