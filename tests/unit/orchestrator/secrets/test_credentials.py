"""A picture says, signed, what made it: read by the library's own reader before and after a byte is flipped."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
import pyvips
import tifffile
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

from orchestrator.errors import InputError, SettingsError, StageError
from orchestrator.pictures import MEDIA_TYPES, photo_format
from orchestrator.results.provenance import verify
from orchestrator.secrets import credentials
from orchestrator.secrets.credentials import CHANGED, MADE, SELF_MADE, Signed, Signer, Story
from orchestrator.settings import Settings
from tests.integration.archive.corpus import corpus
from workers.photo import PhotoLimits, decode_photo
from workers.photo.read import read_native
from workers.signing import sign_photo

MODEL = {"preset": "mini", "version": "mdl_1", "sha256": "ab" * 32, "licence": "Apache-2.0"}
DRAWN = Story(what="A portrait, drawn.", model=MODEL)
FORMS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff", "AVIF": "image/avif"}
SHOWN = Image.fromarray(np.random.default_rng(17).integers(0, 255, (48, 64, 3), np.uint8))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path)


@pytest.fixture
def signer(settings: Settings) -> Signer:
    return Signer.of(settings)


def encoded(form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    exif = SHOWN.getexif()
    exif[0x10E] = "a lake"
    SHOWN.save(out, form, exif=exif, **options)
    return out.getvalue()


def retold(data: bytes) -> Story:
    return Story(what="Faces were drawn anew.", model=MODEL, source=(data, "image/jpeg"), regions=[(8, 4, 20, 30)])


def the_librarys_word(data: bytes, media_type: str) -> tuple[str, dict[str, Any]]:
    """Return state and active manifest as c2pa's own reader says them."""
    with c2pa.Reader(media_type, io.BytesIO(data)) as reader:
        return reader.get_validation_state(), reader.get_active_manifest()


@pytest.mark.parametrize("form", FORMS)
def test_what_is_made_says_so_and_nothing_else_of_it_changes(form: str, signer: Signer, settings: Settings) -> None:
    data = encoded(form)

    signed = signer.sign(data, FORMS[form], DRAWN).data

    state, manifest = the_librarys_word(signed, FORMS[form])
    assertions = {one["label"]: one["data"] for one in manifest["assertions"]}
    (action,) = assertions["c2pa.actions.v2"]["actions"]
    assert state == "Valid"
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", MADE)
    assert assertions[credentials.MODEL_LABEL] == MODEL
    assert "ingredients" not in manifest
    assert "thumbnail" not in manifest
    before, after = decode_photo(data), decode_photo(signed)
    assert (after.pixels_sha256, after.facts) == (before.pixels_sha256, before.facts)
    with Image.open(io.BytesIO(data)) as one, Image.open(io.BytesIO(signed)) as two:
        assert (two.getexif()[0x10E], two.mode, two.info.get("icc_profile")) == (
            "a lake",
            one.mode,
            one.info.get("icc_profile"),
        )
    found = verify(signed, settings).credential
    assert (found.state, found.issuer, found.signer, found.model) == ("valid", "unknown", SELF_MADE, MODEL)


@pytest.mark.parametrize("form", FORMS)
def test_one_flipped_byte_of_the_picture_is_seen(form: str, signer: Signer, settings: Settings) -> None:
    data = encoded(form)
    signed = signer.sign(data, FORMS[form], DRAWN).data
    at = signed.index(b"jumb") if form != "TIFF" else len(data)
    inside = range(at - 16, at + len(signed) - len(data))
    outside = [place for place in range(0, len(signed), 97) if place not in inside]

    unseen = []
    for place in outside:
        changed = bytearray(signed)
        changed[place] ^= 1
        found = credentials.read(bytes(changed), FORMS[form], settings)
        if found.state == "valid":
            unseen.append(place)

    assert len(outside) > 20
    assert unseen == []
    state, _ = the_librarys_word(signed[:-40] + bytes([signed[-40] ^ 1]) + signed[-39:], FORMS[form])
    assert state == "Invalid" or form == "TIFF"  # a TIFF ends with the credential itself


@pytest.mark.parametrize("form", FORMS)
def test_a_changed_photo_keeps_the_credential_of_its_source(form: str, signer: Signer, settings: Settings) -> None:
    source = signer.sign(encoded("JPEG"), "image/jpeg", DRAWN).data

    signed = sign_photo(signer, encoded(form), FORMS[form], retold(source), PhotoLimits())

    state, manifest = the_librarys_word(signed.data, FORMS[form])
    (parent,) = manifest["ingredients"]
    opened, edited = next(one["data"]["actions"] for one in manifest["assertions"] if "actions" in one["label"])
    shape = edited["changes"][0]["region"][0]["shape"]
    assert state == "Valid"
    assert signed.kept_source
    assert signed.why_not is None
    assert (parent["relationship"], opened["action"], edited["action"]) == ("parentOf", "c2pa.opened", "c2pa.edited")
    assert edited["digitalSourceType"] == CHANGED
    assert (shape["origin"], shape["width"], shape["height"]) == ({"x": 8.0, "y": 4.0}, 20.0, 30.0)
    assert credentials.read(signed.data, FORMS[form], settings).ingredients == ("valid",)
    assert decode_photo(signed.data).pixels_sha256 == decode_photo(encoded(form)).pixels_sha256


def test_a_source_that_was_tampered_with_is_kept_and_said_to_be(signer: Signer, settings: Settings) -> None:
    source = bytearray(signer.sign(encoded("JPEG"), "image/jpeg", DRAWN).data)
    source[-50] ^= 1

    signed = sign_photo(signer, encoded("JPEG"), "image/jpeg", retold(bytes(source)), PhotoLimits())

    found = credentials.read(signed.data, "image/jpeg", settings)
    assert (found.state, found.ingredients) == ("valid", ("tampered",))


def test_where_positions_must_go_the_credential_of_the_source_goes_too(signer: Signer, settings: Settings) -> None:
    source = signer.sign(encoded("JPEG"), "image/jpeg", DRAWN).data
    story = Story(what="drawn anew", model=MODEL, source=(source, "image/jpeg"), keep_source=False)

    signed = sign_photo(signer, encoded("JPEG"), "image/jpeg", story, PhotoLimits())

    assert not signed.kept_source
    assert credentials.read(signed.data, "image/jpeg", settings).ingredients == ("none",)


def pages() -> bytes:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        for _ in range(2):
            writer.write(np.asarray(SHOWN), photometric="rgb")
    return out.getvalue()


HOMELESS = {
    "bmp": (lambda: encoded("BMP"), "image/bmp"),
    "pages": (pages, "image/tiff"),
    "behind the end": (lambda: encoded("WEBP") + b"more", "image/webp"),
}


@pytest.mark.parametrize("name", HOMELESS)
def test_without_a_place_nothing_changes_or_nothing_is_published(name: str, signer: Signer) -> None:
    make, media_type = HOMELESS[name]
    data = make()
    strict = Signer(policy="required", pem=signer.pem, algorithm=signer.algorithm)

    signed = sign_photo(signer, data, media_type, retold(encoded("JPEG")), PhotoLimits())

    assert (signed.data, signed.why_not) == (data, credentials.NO_PLACE)
    with pytest.raises(StageError) as refused:
        sign_photo(strict, data, media_type, retold(encoded("JPEG")), PhotoLimits())
    assert refused.value.code == "credentials_impossible"


def test_a_photo_that_kills_its_child_is_published_unsigned_or_not_at_all(signer: Signer) -> None:
    strict = Signer(policy="required", pem=signer.pem, algorithm=signer.algorithm)
    tight, data = PhotoLimits(memory=1 << 20), encoded("JPEG")

    signed = sign_photo(signer, data, "image/jpeg", retold(data), tight)

    assert signed.data == data
    assert signed.why_not
    with pytest.raises(StageError):
        sign_photo(strict, data, "image/jpeg", retold(data), tight)


def own(path: Path, key: Any, *, days: int = 30) -> bytes:
    """Write a key with a certificate of a root of our own into a file, and return the root as PEM."""
    root = ec.generate_private_key(ec.SECP256R1())
    began = datetime.now(UTC) - timedelta(days=60)
    built = []
    for name, public, is_root in (("Studio", key.public_key(), False), ("Studio root", root.public_key(), True)):
        one = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name("Studio root"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(began)
            .not_valid_after(began + timedelta(days=60 + days))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(_usage(is_root), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
        )
        if not is_root:
            one = one.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        built.append(one.sign(root, SHA256()).public_bytes(Encoding.PEM))
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + built[0])
    return built[1]


def _name(common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Studio"), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def _usage(is_root: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not is_root, False, False, False, False, is_root, is_root, False, False)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-256", "P-384", "Ed25519", "RSA"],
)
def test_a_certificate_of_the_deployment_is_trusted_by_who_knows_its_root(tmp_path: Path, key: Any) -> None:
    root = own(tmp_path / "own.pem", key)
    (tmp_path / "roots.pem").write_bytes(root)
    settings = Settings(state_dir=tmp_path, credentials="required", credentials_file=tmp_path / "own.pem")

    signed = Signer.of(settings).sign(encoded("PNG"), "image/png", DRAWN).data

    unknown = credentials.read(signed, "image/png", settings)
    known = credentials.read(signed, "image/png", settings.model_copy(update={"trust_file": tmp_path / "roots.pem"}))
    assert [(one.state, one.issuer, one.signer) for one in (unknown, known)] == [
        ("valid", "unknown", "Studio"),
        ("valid", "trusted", "Studio"),
    ]
    assert "unknown" in unknown.says
    assert "trusted: Studio" in known.says


def test_a_certificate_that_ran_out_signs_nothing_that_holds(tmp_path: Path) -> None:
    own(tmp_path / "own.pem", ec.generate_private_key(ec.SECP256R1()), days=-1)
    settings = Settings(state_dir=tmp_path, credentials_file=tmp_path / "own.pem")

    with pytest.raises(SettingsError) as refused:
        Signer.of(settings)

    assert refused.value.code == "credentials_expired"


@pytest.mark.parametrize("content", [b"", b"no pem"])
def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.pem").touch(mode=0o600)
    (tmp_path / "own.pem").write_bytes(content)

    with pytest.raises(SettingsError) as refused:
        Signer.of(Settings(state_dir=tmp_path, credentials_file=tmp_path / "own.pem"))

    assert refused.value.code == "credentials_invalid"


def test_the_key_is_closed_to_others(settings: Settings, signer: Signer) -> None:
    path = settings.state_dir / "keys" / "credentials.pem"

    assert path.stat().st_mode & 0o777 == 0o600
    assert Signer.of(settings) == signer  # made once
    assert "PRIVATE" not in repr(signer)
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="read by others"):
        Signer.of(settings)


WITHOUT = """
import sys
sys.modules["c2pa"] = None
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "c2pa" else real(name, *more)
from pathlib import Path
from orchestrator.secrets import credentials
from orchestrator.settings import Settings
from orchestrator.errors import SettingsError
story = credentials.Story(what="x", model={})
for policy in ("off", "on"):
    signer = credentials.Signer.of(Settings(state_dir=Path(sys.argv[1]), credentials=policy))
    signed = signer.sign(b"picture", "image/png", story)
    print(policy, signed.data == b"picture", signed.why_not, signer.why_not)
print(credentials.read(b"picture", "image/png", Settings(state_dir=Path(sys.argv[1]))).state)
try:
    credentials.Signer.of(Settings(state_dir=Path(sys.argv[1]), credentials="required"))
except SettingsError as error:
    print(error.code)
"""


def test_without_the_extra_off_is_clean_on_says_so_and_required_refuses(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )

    assert ran.stdout.splitlines() == [
        "off True None None",
        "on True None the extra `c2pa` is not installed",
        "unread",
        "credentials_missing",
    ]


def test_what_carries_none_proves_nothing(settings: Settings) -> None:
    found = verify(encoded("PNG"), settings).credential

    assert found.state == "none"
    assert "proves nothing" in found.says


def test_signed_facts_of_strangers_are_no_error(signer: Signer, settings: Settings) -> None:
    """Whoever signs may write what they like: what is read of it is text of ours, or `unreadable`."""
    assert signer.pem is not None
    odd = {"assertions": [{"label": credentials.MODEL_LABEL, "data": {"preset": {"a": [1]}, "licence": None}}]}
    with c2pa.Signer.from_info(c2pa.C2paSignerInfo(signer.algorithm, *signer.pem, None)) as theirs:
        out = io.BytesIO()
        with c2pa.Builder(odd) as builder:
            builder.set_intent(c2pa.C2paBuilderIntent.CREATE, c2pa.C2paDigitalSourceType.DIGITAL_CREATION)
            builder.sign(theirs, "image/png", io.BytesIO(encoded("PNG")), out)

    found = credentials.read(out.getvalue(), "image/png", settings)

    assert found.state == "valid"
    assert all(isinstance(value, str) for value in (found.model or {}).values())
    assert json.dumps(found.actions)


def test_a_picture_that_cannot_be_signed_is_published_unsigned_or_not_at_all(signer: Signer) -> None:
    strict = Signer(policy="required", pem=signer.pem, algorithm=signer.algorithm)

    assert signer.sign(b"no picture", "image/png", DRAWN) == Signed(data=b"no picture", why_not=credentials.FAILED)
    broken = sign_photo(signer, b"no picture", "image/png", retold(encoded("JPEG")), PhotoLimits())
    assert broken.why_not == credentials.FAILED
    for again in (strict.sign, partial(sign_photo, strict, limits=PhotoLimits())):
        with pytest.raises(StageError) as refused:
            again(b"no picture", "image/png", retold(encoded("JPEG")))
        assert refused.value.code == "credentials_impossible"


def seen(data: bytes) -> tuple[str, ...]:
    """Return the pixels and facts of a photo as our own reader and libvips see them, or that one does not read it."""
    try:
        native = read_native(data, 10_000_000)
        facts = (native.orientation, native.alpha, native.profile, native.stays and native.stays.code)
        ours = sha256(native.pixels.tobytes()).hexdigest() + repr(facts)
    except InputError as error:
        ours = error.code
    try:
        theirs = sha256(pyvips.Image.new_from_buffer(data, "").numpy().tobytes()).hexdigest()
    except pyvips.Error:
        theirs = "not read"
    return ours, theirs


@pytest.mark.slow
def test_signing_changes_nothing_else_of_any_kind_of_photo(signer: Signer, settings: Settings) -> None:
    """The whole corpus, as two readers see it before and after."""
    wrong, signed = [], 0
    for name, data in corpus().items():
        form = photo_format(data[:64])
        if form is None:
            continue
        made = signer.sign(data, MEDIA_TYPES[form], DRAWN)
        if made.why_not is not None:
            assert (made.data, made.why_not) == (data, credentials.NO_PLACE), name
            continue
        signed += 1
        state = credentials.read(made.data, MEDIA_TYPES[form], settings).state
        if state != "valid" or seen(made.data) != seen(data):
            wrong.append(name)

    assert wrong == []
    assert signed > 300
