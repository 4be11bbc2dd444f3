"""Content Credentials (C2PA): says in a picture, signed, what made or changed it, and reads what a picture says so.

The library comes with the extra `c2pa`. It is asked here alone, never reaches into the network (a picture of a stranger
may name an address), and makes no small pictures: those would show a face as it was before. Nothing may touch a file
once it is signed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from orchestrator.errors import SettingsError, StageError
from orchestrator.secrets.keyfile import make, read_closed
from orchestrator.settings import Settings
from orchestrator.version import SOFTWARE, VERSION

Box = tuple[int, int, int, int]
"""Left, top, width, height in pixels of the upright picture."""
SELF_MADE = "FPGA test signer, self-made, vouches for nobody"
MODEL_LABEL = "org.fpga-portraits.model"
MODEL_FACTS = ("preset", "version", "sha256", "licence")
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype"
MADE = f"{SOURCE_TYPES}/trainedAlgorithmicMedia"
CHANGED = f"{SOURCE_TYPES}/compositeWithTrainedAlgorithmicMedia"
HOLDERS = ("image/jpeg", "image/png", "image/webp", "image/tiff", "image/avif", "image/heif")
"""Formats of ours that have a place for a credential."""
READABLE = (*HOLDERS, "image/gif")
NO_PLACE = "the format has no place for a content credential; the picture is not signed"
FAILED = "signing failed; the picture carries no content credential"
TEST_CHAIN_DAYS = 3650
CURVES = {256: "es256", 384: "es384", 521: "es512"}
UNTRUSTED = "signingCredential.untrusted"


@dataclass(frozen=True, kw_only=True)
class Story:
    """What a credential says of one picture; no name, no prompt, no path.

    Attributes:
        what: one sentence.
        model: preset, version, tensor hash and licence of the weights.
        source: the picture that was changed and its media type; None where the picture was made from nothing. Its own
            credential is kept as an ingredient of ours.
        keep_source: whether that credential may stay: it can hold positions, which somebody may want gone.
        regions: where the picture was changed.
    """

    what: str
    model: Mapping[str, str]
    source: tuple[bytes, str] | None = None
    keep_source: bool = True
    regions: Sequence[Box] = ()


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A picture as it is published.

    Attributes:
        why_not: a sentence where its format holds no credential.
        kept_source: whether the credential of its source, if it had one, is an ingredient of ours.
    """

    data: bytes
    why_not: str | None = None
    kept_source: bool = False


@dataclass(frozen=True, kw_only=True)
class Credential:
    """What the credential of a file says, and what its signature is worth.

    Attributes:
        state: `none`; `valid`, the bytes are those that were signed; `tampered`, they are not, or the credential
            itself was changed; `expired`, they are, but the certificate was not valid; `unread`, the extra is missing.
        issuer: `trusted` where the certificate leads to a root of FPGA_TRUST_FILE, else `unknown`.
        signer: the name in the certificate, which anybody can choose unless the issuer is trusted.
        actions: what was done, oldest first: action, source type, description.
        ingredients: of each picture that this one was made of what its own credential was found to be then.
        faults: codes of what does not hold, of the C2PA specification.
    """

    state: Literal["none", "valid", "tampered", "expired", "unread"]
    issuer: Literal["trusted", "unknown"] | None = None
    signer: str | None = None
    actions: tuple[dict[str, str], ...] = ()
    model: dict[str, str] | None = None
    ingredients: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def says(self) -> str:
        """What this proves and what it does not, in sentences."""
        return f"{_SENTENCES[self.state]} {self._about_issuer()}".strip()

    def _about_issuer(self) -> str:
        if self.state not in ("valid", "expired"):
            return ""
        if self.issuer == "trusted":
            return f"The issuer is trusted: {self.signer} signed it. {_NO_PROOF}"
        return f"The issuer is unknown: anybody can make a certificate that says {self.signer!r}. {_NO_PROOF}"


_SENTENCES = {
    "none": "It carries no content credential. That proves nothing: anybody can take one out.",
    "valid": "Its content credential is valid: the file is, to the last byte, what was signed.",
    "tampered": "Its content credential does not hold: the file or the credential was changed after signing.",
    "expired": "The file is what was signed, but its certificate was not valid at that time or has run out since.",
    "unread": "Content credentials are not read here: the extra `c2pa` is not installed.",
}
_NO_PROOF = "It does not prove that what is shown happened, that the people in it agreed, or who asked for it."


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Signs under the policy of the deployment.

    Attributes:
        pem: certificates, and the private key; None where nothing is signed.
        why_not: why it signs nothing though it was to, or None.
    """

    policy: Literal["off", "on", "required"] = "off"
    pem: tuple[bytes, bytes] | None = field(default=None, repr=False)
    algorithm: str = ""
    why_not: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> Signer:
        """Return the signer of this deployment. On one machine the first call makes a test chain.

        Raises:
            SettingsError: credentials are required and cannot be signed here, or the file of the certificate is wrong.
        """
        if settings.credentials == "off":
            return cls()
        path = settings.credentials_file or settings.state_dir / "keys" / "credentials.pem"
        why_not = None
        if not installed():
            why_not = "the extra `c2pa` is not installed"
        elif not path.exists() and (settings.credentials_file or not settings.database_url.startswith("sqlite")):
            why_not = "FPGA_CREDENTIALS_FILE names no file that is here"
        if why_not is None:
            if not path.exists():
                make(path, test_chain())
            chain, key, algorithm = _load(read_closed(path).encode(), str(path))
            return cls(policy=settings.credentials, pem=(chain, key), algorithm=algorithm)
        if settings.credentials == "required":
            raise SettingsError(
                f"FPGA_CREDENTIALS is `required`, but {why_not}; mend that, or set it to `on`",
                code="credentials_missing",
            )
        return cls(policy="on", why_not=why_not)

    @property
    def name(self) -> str:
        """The common name in the certificate, or nothing."""
        if self.pem is None:
            return ""
        names = x509.load_pem_x509_certificates(self.pem[0])[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else ""

    def sign(self, data: bytes, media_type: str, story: Story) -> Signed:
        """Return a finished picture with its credential; nothing else in the file changes.

        Raises:
            StageError: `credentials_impossible`, credentials are required and this picture cannot hold one.
        """
        unsigned = self.unsigned(data, media_type)
        if unsigned is not None:
            return unsigned
        c2pa = _library()
        try:
            return self._signed(c2pa, data, media_type, story)
        except c2pa.C2paError as error:
            return self.failed(data, str(error))

    def failed(self, data: bytes, why: str) -> Signed:
        """Return a picture that could not be signed as it is.

        Raises:
            StageError: `credentials_impossible`, that is not allowed here.
        """
        if self.policy == "required":
            raise StageError(f"{FAILED} ({why[:200]}), and one is required here", code="credentials_impossible")
        return Signed(data=data, why_not=FAILED)

    def unsigned(self, data: bytes, media_type: str) -> Signed | None:
        """Return a picture as it is where it gets no credential, and None where it gets one.

        Raises:
            StageError: `credentials_impossible`, credentials are required and this picture cannot hold one.
        """
        if self.pem is None:
            return Signed(data=data)
        if _has_place(data, media_type):
            return None
        if self.policy == "required":
            raise StageError(f"{media_type}: {NO_PLACE}; it is required here", code="credentials_impossible")
        return Signed(data=data, why_not=NO_PLACE)

    def _signed(self, c2pa: Any, data: bytes, media_type: str, story: Story) -> Signed:
        assert self.pem is not None, "asked before"
        chain, key = self.pem
        with (
            c2pa.Context.from_dict(_QUIET) as context,
            c2pa.Signer.from_info(c2pa.C2paSignerInfo(self.algorithm, chain, key, None)) as signer,
        ):
            kept = False
            ingredient = {"title": "source", "relationship": "parentOf"}
            definition = _definition(story, media_type)
            if story.source is not None:
                kept = story.keep_source and _readable(c2pa, context, ingredient, *story.source)
                if not kept:
                    definition["ingredients"] = [{**ingredient, "format": story.source[1]}]
            with c2pa.Builder(definition, context=context) as builder:
                builder.set_intent(c2pa.C2paBuilderIntent.EDIT if story.source else c2pa.C2paBuilderIntent.CREATE)
                if kept and story.source:
                    builder.add_ingredient(ingredient, story.source[1], io.BytesIO(story.source[0]))
                out = io.BytesIO()
                builder.sign(signer, media_type, io.BytesIO(data), out)
        return Signed(data=out.getvalue(), kept_source=kept)


def installed() -> bool:
    """Whether the library of the extra `c2pa` is here."""
    return find_spec("c2pa") is not None


def read(data: bytes, media_type: str, settings: Settings) -> Credential:
    """Return what the credential of a picture says; what it says is as good as its signature.

    Raises:
        SettingsError: `trust_file_missing`, the roots cannot be read.
    """
    if not installed():
        return Credential(state="unread")
    if media_type not in READABLE:
        return Credential(state="none")
    c2pa = _library()
    try:
        with (
            c2pa.Context.from_dict(_trusting(settings)) as context,
            c2pa.Reader(media_type, io.BytesIO(data), context=context) as reader,
        ):
            return _credential(json.loads(reader.json()))
    except c2pa.C2paError.ManifestNotFound:
        return Credential(state="none")
    except c2pa.C2paError as error:
        return Credential(state="tampered", faults=(str(error).partition(":")[0],))
    except (LookupError, TypeError, AttributeError, ValueError):  # signed, and of a form that nobody agreed on
        return Credential(state="tampered", faults=("unreadable",))


def test_chain() -> bytes:
    """Return a new key with a certificate of a root that is forgotten at once, as PEM: for trying, it vouches for
    nobody."""
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer, subject = _name("FPGA test root, self-made"), _name(SELF_MADE)
    certificates = [
        _certificate(subject, issuer, key.public_key(), root, is_root=False),
        _certificate(issuer, issuer, root.public_key(), root, is_root=True),
    ]
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def _definition(story: Story, media_type: str) -> dict[str, Any]:
    """Return the claim: what was done, by which weights, and where."""
    action: dict[str, Any] = {
        "action": "c2pa.edited" if story.source else "c2pa.created",
        "digitalSourceType": CHANGED if story.source else MADE,
        "softwareAgent": {"name": SOFTWARE},
        "description": story.what,
    }
    if story.regions:
        action["changes"] = [{"region": [_region(box)], "description": "drawn anew"} for box in story.regions]
    return {
        "claim_generator_info": [{"name": "FPGA", "version": VERSION}],
        "format": media_type,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
            {"label": MODEL_LABEL, "data": dict(story.model)},
        ],
    }


def _region(box: Box) -> dict[str, Any]:
    left, top, width, height = box
    shape = {"type": "rectangle", "unit": "pixel", "origin": {"x": left, "y": top}, "width": width, "height": height}
    return {"type": "spatial", "shape": shape}


def _readable(c2pa: Any, context: Any, ingredient: Mapping[str, str], data: bytes, media_type: str) -> bool:
    """Whether the library takes this picture as an ingredient; one with a broken credential may not be taken."""
    if media_type not in READABLE:
        return False
    try:
        with c2pa.Builder({}, context=context) as trial:
            trial.add_ingredient(dict(ingredient), media_type, io.BytesIO(data))
    except c2pa.C2paError:
        return False
    return True


def _has_place(data: bytes, media_type: str) -> bool:
    """Whether a credential fits in without a change of anything else.

    A TIFF of several pages would get an empty page more, and what lies behind the end of a WebP would be cut off.
    """
    if media_type == "image/tiff":
        return not _has_pages(data)
    if media_type == "image/webp":
        return int.from_bytes(data[4:8], "little") + 8 >= len(data)
    return media_type in HOLDERS


def _has_pages(data: bytes) -> bool:
    """Whether a TIFF, classic or big, has a second directory beside its first."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    word, count = (8, 8) if data[2:4] in (b"+\0", b"\0+") else (4, 2)
    start = int.from_bytes(data[word : 2 * word], order)
    entries = int.from_bytes(data[start : start + count], order)
    end = start + count + entries * (20 if word == 8 else 12)
    return int.from_bytes(data[end : end + word], order) != 0


def _credential(store: Mapping[str, Any]) -> Credential:
    active = store["manifests"][store["active_manifest"]]
    results = store.get("validation_results", {}).get("activeManifest", {})
    faults = tuple(sorted({one["code"] for one in results.get("failure", ())} - {UNTRUSTED}))
    by_label = {one["label"]: one["data"] for one in active.get("assertions", ())}
    actions = [
        {
            "action": str(one["action"]),
            "source_type": str(one.get("digitalSourceType", "")).rpartition("/")[2],
            "description": str(one.get("description", "")),
        }
        for label, data in by_label.items()
        if label.startswith("c2pa.actions")
        for one in data["actions"]
    ]
    out_of_time = bool(faults) and all(code.endswith((".expired", ".outsideValidity")) for code in faults)
    signature = active.get("signature_info", {})
    return Credential(
        state="expired" if out_of_time else "tampered" if faults else "valid",
        issuer="trusted" if store.get("validation_state") == "Trusted" else "unknown",
        signer=str(signature.get("common_name") or signature.get("issuer") or "nobody"),
        actions=tuple(actions),
        model={name: str(model.get(name, "")) for name in MODEL_FACTS}
        if (model := by_label.get(MODEL_LABEL))
        else None,
        ingredients=tuple(_of_ingredient(one) for one in active.get("ingredients", ())),
        faults=faults,
    )


def _of_ingredient(ingredient: Mapping[str, Any]) -> str:
    if not ingredient.get("active_manifest"):
        return "none"
    found = ingredient.get("validation_results", {}).get("activeManifest", {})
    return "tampered" if {one["code"] for one in found.get("failure", ())} - {UNTRUSTED} else "valid"


def _load(pem: bytes, path: str) -> tuple[bytes, bytes, str]:
    """Return certificates, private key and algorithm of a file that holds both.

    Raises:
        SettingsError: `credentials_invalid`, `credentials_expired`.
    """
    wanted = f"{path} must hold a private key without a password and its certificates in PEM, leaf first"
    try:
        key, certificates = load_pem_private_key(pem, None), x509.load_pem_x509_certificates(pem)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{wanted}: {error}", code="credentials_invalid") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificates[0].public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        raise SettingsError(f"{wanted}; the first certificate is of another key", code="credentials_invalid")
    if not certificates[0].not_valid_before_utc <= datetime.now(UTC) < certificates[0].not_valid_after_utc:
        until = certificates[0].not_valid_after_utc
        raise SettingsError(f"{path}: the certificate is valid until {until:%Y-%m-%d} only", code="credentials_expired")
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size in CURVES:
        algorithm = CURVES[key.curve.key_size]
    elif isinstance(key, rsa.RSAPrivateKey):
        algorithm = "ps256"
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = "ed25519"
    else:
        raise SettingsError(f"{wanted}: P-256, P-384, P-521, RSA or Ed25519 is wanted", code="credentials_invalid")
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates), private, algorithm


def _name(common: str) -> x509.Name:
    given = {NameOID.ORGANIZATION_NAME: "FPGA test chain", NameOID.COMMON_NAME: common}
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in given.items()])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    root: ec.EllipticCurvePrivateKey,
    *,
    is_root: bool,
) -> x509.Certificate:
    began = datetime.now(UTC) - timedelta(days=1)
    usage = x509.KeyUsage(
        digital_signature=not is_root,
        key_cert_sign=is_root,
        crl_sign=is_root,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + timedelta(days=TEST_CHAIN_DAYS))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
    )
    if not is_root:
        built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return built.sign(root, SHA256())


_QUIET: dict[str, Any] = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": False},
}


def _trusting(settings: Settings) -> dict[str, Any]:
    if settings.trust_file is None:
        return {"verify": {**_QUIET["verify"], "verify_trust": True}}
    try:
        anchors = settings.trust_file.read_text()
    except OSError as error:
        raise SettingsError(
            f"FPGA_TRUST_FILE {settings.trust_file}: {error.strerror}", code="trust_file_missing"
        ) from error
    return {"verify": {**_QUIET["verify"], "verify_trust": True}, "trust": {"trust_anchors": anchors}}


def _library() -> Any:
    """Return the library, which is loaded when a picture is first signed or read."""
    import c2pa  # noqa: PLC0415 an extra

    return c2pa
