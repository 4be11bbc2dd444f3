"""Signs a changed photo in a guarded child: a stranger's own credential, which ours keeps, is parsed there and only
there. The child gets the key of the signature and no other; what nobody else wrote is signed without one."""

from __future__ import annotations

import sys
from typing import Any

from orchestrator.errors import InputError
from orchestrator.secrets.credentials import Signed, Signer, Story
from workers.photo import PhotoLimits
from workers.photo.frames import pack, unpack
from workers.runtime.guard import bound_this_process, run_guarded

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
    given = b"".join(pack(head, data, source, *signer.pem))
    try:
        said = run_guarded(__name__, [str(limits.child_memory(len(given)))], given, wall_seconds=limits.wall_seconds)
        answer, (signed,) = unpack(said)
        if answer["signed"] is True:
            return Signed(data=bytes(signed), kept_source=bool(answer["kept_source"]))
        why = "the library refused"
    except (InputError, ValueError, LookupError, TypeError):
        why = "no sensible answer"
    return signer.failed(data, why)


def main() -> None:
    """Sign one photo from standard input to standard output."""
    bound_this_process(memory=int(sys.argv[1]), cpu_seconds=CPU_SECONDS)
    head, (data, source, chain, key) = unpack(sys.stdin.buffer.read())
    signer = Signer(policy="on", pem=(bytes(chain), bytes(key)), algorithm=head["algorithm"])
    regions = [(left, top, width, height) for left, top, width, height in head["regions"]]
    story = Story(source=(bytes(source), head["source_type"]), regions=regions, **head["story"])
    signed = signer.sign(bytes(data), head["media_type"], story)
    said = {"signed": signed.why_not is None, "kept_source": signed.kept_source}
    for part in pack(said, signed.data):
        sys.stdout.buffer.write(part)


if __name__ == "__main__":
    main()
