"""
The token stage of an offline request: the token that goes with it, and the keys that judge it.

Nothing is fetched. With ``--claims`` a token is made and signed on the spot, and its signature is taken for good by
every rule; issuer, audience and time are still judged. Where there is nothing to judge, the libraries of keys are not
loaded.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from authz.analysis.offline.request import OfflineRequest
from authz.cli import policy_files, terminal
from authz.core.attributes import NOT_AUTHENTICATED, AttributeContext, Authentication
from authz.core.errors import AuthzError
from authz.core.introspection import Introspection, TokenAnswer
from authz.core.resources import JwtRule

if TYPE_CHECKING:
    from authz.tokens.key_sets import KeySetState


class Unanswered(AuthzError):
    """The request needs something that is not there offline; the message says which option gives it."""


class Credentials:
    """Options ``token``, ``token_file``, ``claims`` and ``jwks``. Raises OSError for unreadable files."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        given = [options["token"], options["token_file"], options["claims"]]
        if sum(value is not None for value in given) > 1:
            raise click.UsageError("--token, --token-file and --claims exclude each other")
        self._now = time.time()
        self._jwks: tuple[str, ...] = options["jwks"]
        self._needed: list[str] = []
        self._unanswered = ""
        self._states: dict[str, KeySetState] = {}
        self._rules: tuple[JwtRule, ...] = ()
        self._own_keys = ""
        self.token: str | None = options["token"]
        if options["token_file"] is not None:
            self.token = policy_files.read_bytes(options["token_file"]).decode("utf-8", "surrogateescape").strip()
        elif options["claims"] is not None:
            from authz.tokens.signing import jwks_text, make_keys, make_token

            keys = make_keys({"own": {"kty": "EC", "crv": "P-256"}})
            claims = read_claims(options["claims"])
            self.token = make_token({"key": "own", "alg": "ES256", "claims": claims}, keys, self._now)
            self._own_keys = jwks_text(keys.values())

    def attach(self, request: OfflineRequest) -> OfflineRequest:
        """Put the token into the ``authorization`` header."""
        if self.token is None:
            return request
        kept = tuple(pair for pair in request.headers if pair[0].lower() != "authorization")
        return replace(request, headers=(*kept, ("authorization", f"Bearer {self.token.removeprefix('Bearer ')}")))

    def prepare(self, rules: tuple[JwtRule, ...]) -> None:
        """Read the key sets that were given for the rules of the workload."""
        self._rules = rules
        if self._own_keys:
            self._rules = tuple(replace(rule, jwks=self._own_keys, jwks_uri="") for rule in rules)
        remote = [rule for rule in rules if not rule.jwks and not rule.is_asked_only]
        if not self._jwks:
            return
        from authz.tokens.jwks import read_key_set
        from authz.tokens.key_sets import KeySetState

        for text in self._jwks:
            source, _, path = text.rpartition("=")
            try:
                state = KeySetState(read_key_set(policy_files.read_bytes(path).decode("utf-8", "replace")), self._now)
            except ValueError as error:
                raise Unanswered(f"{path}: {error}") from error
            meant = [rule for rule in remote if not source or source in (rule.jwks_uri, rule.issuer)]
            if not meant:
                known = ", ".join(sorted({f"`{rule.jwks_uri or rule.issuer}`" for rule in remote})) or "none"
                terminal.remark(
                    f"warning: no rule of the workload takes keys from `{source or path}`; they come from {known}"
                )
            self._states |= {rule.keys_from: state for rule in meant}

    def judge(self, attributes: AttributeContext, rules: tuple[JwtRule, ...]) -> Authentication:
        """The token stage, for the pipeline; ``rules`` are those that were prepared."""
        if not self._rules:
            return NOT_AUTHENTICATED  # RA-2
        from authz.tokens.authenticate import authenticate

        keys, now = self._states, self._now
        return authenticate(
            attributes, self._rules, keys, now, on_unknown_key=self._needed.append, known_answer=self._unasked
        )

    def _unasked(self, introspection: Introspection, token: str) -> TokenAnswer:
        """Note that an issuer would have to be asked, which never happens offline."""
        self._unanswered = introspection.issuer
        return TokenAnswer(error="it is not asked offline")

    def check_answered(self) -> None:
        """Check that every key that was needed was given, and no issuer had to be asked. Raises Unanswered."""
        if self._unanswered:
            claims = json.dumps({"iss": self._unanswered, "sub": "…"}, ensure_ascii=False)
            raise Unanswered(
                f"whether the token is active is known to `{self._unanswered}`, which is not asked offline; say what "
                f"it would answer with `--claims '{claims}'`"
            )
        for source in self._needed:
            if source not in self._states:
                name = source.partition(":")[2]
                raise Unanswered(f"the keys of `{name}` are not fetched offline; give them with `--jwks {name}=FILE`")


def read_claims(text: str) -> dict[str, Any]:
    """``@FILE``, or JSON. The text is not repeated in messages. Raises a usage error for what is no object."""
    data = policy_files.read_bytes(text[1:]) if text.startswith("@") else text.encode("utf-8", "surrogateescape")
    try:
        claims = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--claims") from error
    if not isinstance(claims, dict):
        raise click.BadParameter("claims must be a JSON object", param_hint="--claims")
    return claims
