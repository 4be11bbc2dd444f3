"""Replays every attack of docs/security.md against this code and prints, by figure, what each got.

    python -m tests.attacks           all of them, several minutes
    python -m tests.attacks A1 B13    only these figures; `A` is all whose figure begins so
    python -m tests.attacks --table   as the table of docs/security.md

Each try is a test that fails where it succeeds. Exit status 1 says that one did.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
API, UNIT = "tests/unit/orchestrator/api", "tests/unit/orchestrator"
VAULT, SESSIONS = f"{UNIT}/secrets/test_vault.py", f"{API}/test_sessions.py"
HOSTILE = "tests/hostile/test_one_client_stops_nobody.py"
ACCESS, BAD_ROWS = f"{API}/test_access.py", f"{UNIT}/runtime/test_bad_rows.py"


@dataclass(frozen=True, kw_only=True)
class Attack:
    """What is tried, and by which tests: a file, a test, or a test with some of its parameters."""

    what: str
    tries: tuple[str, ...]


def hostile(*attacks: str) -> tuple[str, ...]:
    """Return the trials of a hostile client beside another owner's."""
    return tuple(f"{HOSTILE}::test_another_owners_client_works_on[{attack}]" for attack in attacks)


ATTACKS: dict[str, Attack] = {
    "A1": Attack(
        what="read and plant in another's bucket, and in the system's own",
        tries=("tests/integration/archive/test_reach_over_http.py", f"{UNIT}/archive/test_reach.py"),
    ),
    "A2": Attack(
        what="find a person after an erase: every byte of a whole system, nobody else's missing",
        tries=(
            f"{UNIT}/people/test_canary.py",
            "tests/integration/embedded/test_canary_of_a_whole_system.py",
            "tests/integration/workers/test_erase.py",
        ),
    ),
    "A3": Attack(what="outlive a revoked key, renew a session, pass for a key", tries=(SESSIONS,)),
    "A4": Attack(
        what="read the library with a key that reads",
        tries=(
            f"{API}/test_views_by_scope.py",
            f"{API}/test_every_route.py",
            f"{API}/test_tenants.py",
            f"{API}/test_links.py",
        ),
    ),
    "A5": Attack(
        what="see faces after logging out; read sheets as another user",
        tries=(
            "tests/browser/test_foundation.py::test_back_shows_no_face_after_log_out",
            f"{ACCESS}::test_no_answer_is_kept_by_a_browser",
            f"{UNIT}/results/test_results_folder.py::test_what_is_written_is_its_owners_alone_whatever_the_umask",
        ),
    ),
    "A6": Attack(what="promote, draw with, look into another's model", tries=(f"{API}/test_models_owners.py",)),
    "A7": Attack(what="lose what is sealed by a new key; put a sealed face in another's place", tries=(VAULT,)),
    "B8": Attack(
        what="end a loop by a bad row",
        tries=(BAD_ROWS, f"{HOSTILE}::test_one_owners_bad_webhook_keeps_no_other_owners_events"),
    ),
    "B9": Attack(what="hold the database by unread downloads", tries=hostile("downloads_that_nobody_reads")),
    "B10": Attack(
        what="slow senders, guessed links, waits, dry runs, streams",
        tries=(
            *hostile(
                "half_sent_requests",
                "half_sent_forms_without_a_key",
                "streams_of_all_kinds",
                "guessed_login_links",
                "waits_for_enrolments",
                "dry_runs",
            ),
            f"{ACCESS}::test_a_body_over_its_limit_is_refused_whether_its_length_is_told_or_not",
        ),
    ),
    "B11": Attack(
        what="have the server decode a picture; bombs for the child that does",
        tries=(
            f"{API}/test_views_by_scope.py::test_a_sheet_decodes_no_picture_that_was_handed_in",
            "tests/unit/workers/test_decode.py",
        ),
    ),
    "B12": Attack(what="fail others by one withdrawal", tries=("tests/unit/workers/test_people_of_a_photo.py",)),
    "B13": Attack(
        what="pass a quota by many at once, a rate by sessions",
        tries=(
            f"{UNIT}/test_quotas.py",
            f"{API}/test_overload.py",
            f"{SESSIONS}::test_sessions_ask_at_the_rate_of_their_key",
        ),
    ),
    "B14": Attack(what="put refused bytes into an upload", tries=(f"{API}/test_uploads.py",)),
    "C": Attack(
        what="foreign names, forged proxies and origins, private addresses, the audit log, passwords, containers",
        tries=(
            f"{ACCESS}::test_a_server_answers_to_no_name_of_others_and_copies_it_into_no_link",
            f"{ACCESS}::test_only_a_trusted_proxy_says_that_tls_was_spoken",
            f"{ACCESS}::test_browsers_are_told_to_stay_with_tls_where_it_is_spoken",
            f"{ACCESS}::test_a_session_acts_only_for_pages_of_this_site",
            f"{SESSIONS}::test_a_link_on_another_page_logs_nobody_in_unasked",
            f"{SESSIONS}::test_a_link_does_not_replace_a_session_unasked",
            f"{BAD_ROWS}::test_no_spelling_of_a_private_address_is_let_through",
            f"{UNIT}/runtime/test_webhooks.py",
            "tests/integration/ledger/test_audit.py",
            f"{UNIT}/status/test_doctor.py::test_what_cannot_be_reached_fails_without_telling_the_password",
            "tests/unit/test_compose.py",
        ),
    ),
    "D15": Attack(
        what="flip a byte of a signed picture, pass a forged one off as trusted",
        tries=(f"{UNIT}/secrets/test_credentials.py",),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Got:
    """What one try came to: `held`, `through` or `skipped`, and what it printed."""

    outcome: str
    seconds: float
    said: tuple[str, ...]


def replay(attacks: Mapping[str, Attack]) -> dict[str, Got]:
    """Run all tries in one go; return what each came to, by file, test and parameters."""
    wanted = list(dict.fromkeys(one.partition("::")[0] for attack in attacks.values() for one in attack.tries))
    chosen = list(dict.fromkeys(one for attack in attacks.values() for one in attack.tries))
    whole = {one for one in wanted if one in chosen}
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}", "-o", "junit_family=xunit1"]
        options += ["-o", "junit_logging=system-out"]
        asked = [one for one in chosen if one in whole or one.partition("::")[0] not in whole]
        subprocess.run([sys.executable, "-m", "pytest", *options, *asked], cwd=ROOT, check=False)
        return {
            f"{case.get('file')}::{case.get('name')}": _got(case) for case in ElementTree.parse(report).iter("testcase")
        }


def _got(case: ElementTree.Element) -> Got:
    failed = case.find("failure") is not None or case.find("error") is not None
    printed = (case.findtext("system-out") or "").splitlines()
    return Got(
        outcome="through" if failed else "skipped" if case.find("skipped") is not None else "held",
        seconds=float(case.get("time") or 0),
        said=tuple(line for line in printed if " p95 " in line),
    )


def of(attack: Attack, got: Mapping[str, Got]) -> dict[str, Got]:
    """Return what the tries of one attack came to."""
    return {
        name: one
        for name, one in got.items()
        if any(name == wanted or name.startswith((f"{wanted}::", f"{wanted}[")) for wanted in attack.tries)
    }


def row(figure: str, attack: Attack, tries: Mapping[str, Got], *, table: bool) -> str:
    """Return what one attack got, in a line; what got through is named below it."""
    outcomes = [one.outcome for one in tries.values()]
    held, through = outcomes.count("held"), [name for name, one in tries.items() if one.outcome == "through"]
    said = f"{held} of {len(outcomes)} refused" if outcomes else "nothing was tried"
    if skipped := outcomes.count("skipped"):
        said += f", {skipped} not tried here"
    if through:
        said += f"; GOT THROUGH: {', '.join(through)}"
    figures = [line for one in tries.values() for line in one.said]
    seconds = sum(one.seconds for one in tries.values())
    if table:
        return f"| {figure} | {attack.what} | {'<br>'.join([said, *figures])} | {seconds:.0f} |"
    return "\n".join([f"{figure:4} {attack.what}: {said} ({seconds:.0f} s)", *(f"     {line}" for line in figures)])


def main(words: Sequence[str]) -> int:
    """Replay the attacks of these figures, or all; return the exit status."""
    table, figures = "--table" in words, [word for word in words if not word.startswith("--")]
    chosen = {name: one for name, one in ATTACKS.items() if not figures or name.startswith(tuple(figures))}
    got = replay(chosen)
    if table:
        sys.stdout.write("| figure | attack | what it got | s |\n| --- | --- | --- | --- |\n")
    good = True
    for figure, attack in chosen.items():
        tries = of(attack, got)
        good &= bool(tries) and all(one.outcome != "through" for one in tries.values())
        sys.stdout.write(row(figure, attack, tries, table=table) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
