"""Signs a changed photo in a guarded child: a stranger's own credential, which ours keeps, is parsed there and only
there. The child gets the key of the signature and no other; what nobody else wrote is signed without one."""

from __future__ import annotations

import sys
from typing import Any

from orchestrator.errors import InputError
from orchestrator.secrets.credentials import Signed, Signer, Story
from workers.photo import PhotoLimits
from workers.photo.frames import pack, receive
from workers.photo.guard import Guarded, bound_memory, bound_time

CPU_SECONDS = 60


def sign_photo(signer: Signer, data: bytes, media_type: str, story: Story, limits: PhotoLimits) -> Signed:
    """Return a photo that was changed with its credential, or as it is where that is not wanted or has no place.

    Raises:
        StageError: `credentials_impossible`, they are required and the photo cannot hold one or was not signed.
    """
    unsigned = signer.unsigned(data, media_type)
    if unsigned is not None:
        return unsigned
    assert signer.pem is not None, "asked just now"
    assert story.source is not None, "a photo that was changed has a source"
    source, source_type = story.source
    told = {"what": story.what, "model": dict(story.model), "keep_source": story.keep_source}
    head: dict[str, Any] = {
        "media_type": media_type,
        "source_type": source_type,
        "algorithm": signer.algorithm,
        "regions": list(story.regions),
        "story": told,
    }
    parts = [data, source, *signer.pem]
    with Guarded(__name__, memory=limits.child_memory(sum(len(part) for part in parts))) as child:
        try:
            signed = child.ask(head, parts, _understood, wall_seconds=limits.wall_seconds)
        except InputError:
            return signer.failed(data, "no sensible answer")
    return signed or signer.failed(data, "the library refused")


def _understood(answer: dict[str, Any], parts: list[bytes]) -> Signed | None:
    (signed,) = parts
    return Signed(data=signed, kept_source=bool(answer["kept_source"])) if answer["signed"] is True else None


def main() -> None:
    """Sign one photo from standard input to standard output."""
    bound_memory(int(sys.argv[1]))
    bound_time(CPU_SECONDS)
    head, (data, source, chain, key) = receive(sys.stdin.buffer, most=sys.maxsize)
    signer = Signer(policy="on", pem=(chain, key), algorithm=head["algorithm"])
    regions = [(left, top, width, height) for left, top, width, height in head["regions"]]
    story = Story(source=(source, head["source_type"]), regions=regions, **head["story"])
    signed = signer.sign(data, head["media_type"], story)
    said = {"signed": signed.why_not is None, "kept_source": signed.kept_source}
    for part in pack(said, signed.data):
        sys.stdout.buffer.write(part)


if __name__ == "__main__":
    main()
