"""
A browser login as Envoy's OAuth2 filter: before everything that decides, so that the policies see the issuer's token.

Only a browser that opens a page (``Sec-Fetch-Mode: navigate``) and brings no session is led to the issuer. Requests
with a token of their own pass untouched; whatever else has no session goes on without one and the policies decide,
except that a script of a page gets 401: it could do nothing with a page of the issuer.
"""

import ipaddress
import json
import re
from urllib.parse import urlsplit

from envoy_data_plane.envoy.config.cluster.v3 import (
    Cluster,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
    ClusterEdsClusterConfig,
)
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation as RequestMutation
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    HttpUri,
    WatchedDirectory,
)
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import HeaderMutation, Mutations
from envoy_data_plane.envoy.extensions.filters.http.header_to_metadata.v3 import Config, ConfigKeyValuePair, ConfigRule
from envoy_data_plane.envoy.extensions.filters.http.oauth2.v3 import (
    CookieConfig,
    CookieConfigs,
    CookieConfigSameSite,
    OAuth2,
    OAuth2Config,
    OAuth2ConfigAuthType,
    OAuth2Credentials,
    OAuth2CredentialsCookieNames,
    OAuth2TokenForwarding,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import GenericSecret, SdsSecretConfig, Secret
from envoy_data_plane.envoy.type.matcher.v3 import PathMatcher, RegexMatchAndSubstitute, RegexMatcher, StringMatcher

from authz.envoy.http_options import http1_upstream
from authz.envoy.messages import assignment, at, followed_file, pack, seconds
from authz.envoy.options import CLIENT_SECRET, HMAC_KEY, RenderOptions
from authz.envoy.tls import outside_client
from authz.mesh.login import Login, LoginEndpoints, LoginToken
from authz.mesh.nouns import Address, MeshWorkload, Place
from authz.mesh.traffic_policy import ClientTls

COOKIES = {
    "bearer_token": "__Host-BearerToken",
    "oauth_hmac": "__Host-OauthHMAC",
    "oauth_expires": "__Host-OauthExpires",
    "id_token": "__Host-IdToken",
    "refresh_token": "__Host-RefreshToken",
    "oauth_nonce": "__Host-OauthNonce",
    "code_verifier": "__Host-OauthCodeVerifier",
}
"""The prefix makes browsers refuse such a cookie from another host of the domain: nobody can plant a session."""
ISSUER_SECONDS = 5
ID_TOKEN_HEADER = "x-authz-id-token"  # noqa: S105  # a name
"""Used only between two filters of the gateway."""
_METADATA = "authz.login"
_OWN_QUERY = r".*[?&]access_token=.*"
"""Where RequestAuthentication looks for a token by default, besides the header."""


def login_filters(login: Login, hosts: tuple[str, ...], options: RenderOptions) -> tuple[HttpFilter, ...]:
    """
    The filters of a gateway's server with a login, first of all. Its issuer's endpoints must be among the options.

    ``hosts`` are those of the server: a browser is sent back to no other one.
    """
    return _oauth2(login, hosts, options), *_tidied(login)


def _oauth2(login: Login, hosts: tuple[str, ...], options: RenderOptions) -> HttpFilter:
    endpoints = options.logins[login.issuer]
    takes_id = login.token is LoginToken.ID
    config = OAuth2Config(
        token_endpoint=HttpUri(uri=endpoints.token, cluster=login_cluster_name(login), timeout=seconds(ISSUER_SECONDS)),
        authorization_endpoint=endpoints.authorization,
        end_session_endpoint=endpoints.end_session,
        credentials=OAuth2Credentials(
            client_id=login.client_id,
            token_secret=_secret(login, CLIENT_SECRET),
            hmac_secret=_secret(login, HMAC_KEY),
            cookie_names=OAuth2CredentialsCookieNames(**COOKIES),
        ),
        auth_type=OAuth2ConfigAuthType.BASIC_AUTH if endpoints.basic else OAuth2ConfigAuthType.URL_ENCODED_BODY,
        # The scheme is not taken from a header: a login needs TLS.
        redirect_uri=f"https://%REQ(:AUTHORITY)%{login.redirect_path}",
        redirect_path_matcher=_path(login.redirect_path),
        signout_path=_path(login.logout_path),
        auth_scopes=list(login.scopes),
        use_refresh_token=True,
        forward_bearer_token=not takes_id,
        forward_id_token=OAuth2TokenForwarding(header=ID_TOKEN_HEADER) if takes_id else None,
        pass_through_matcher=[
            HeaderMatcher(name="authorization", present_match=True),
            HeaderMatcher(name=":path", string_match=StringMatcher(safe_regex=RegexMatcher(regex=_OWN_QUERY))),
        ],
        allow_failed_matcher=[
            HeaderMatcher(name="sec-fetch-mode", present_match=True, invert_match=True),
            HeaderMatcher(name=":method", string_match=StringMatcher(exact="OPTIONS")),
            *(_open(path) for path in login.open_paths),
        ],
        deny_redirect_matcher=[
            HeaderMatcher(name="sec-fetch-mode", string_match=StringMatcher(exact="navigate"), invert_match=True)
        ],
        cookie_configs=_cookie_configs(),
        allowed_redirect_domains=[] if "*" in hosts else list(hosts),
    )
    return HttpFilter(name="envoy.filters.http.oauth2", typed_config=pack(OAuth2(config=config)))


def _tidied(login: Login) -> tuple[HttpFilter, HttpFilter]:
    """
    Take the session's cookies out of the request: Envoy 1.40 hands access and ID token on in them, decrypted.

    The ``cookie`` header without them goes into metadata and from there into a header again, unless nothing is left. An
    ID token goes the same way: Envoy cannot put it into the header by which a request passes the login.
    """
    names = "|".join(re.escape(name) for name in COOKIES.values())
    rules = [_kept("cookie", f"(^|; ?)({names})(\\.[^=;]*)?=[^;]*", "")]
    headers = [_written("cookie", HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD)]
    if login.token is LoginToken.ID:
        rules.append(_kept(ID_TOKEN_HEADER, "^", "Bearer "))
        headers.append(_written("authorization", HeaderValueOptionHeaderAppendAction.ADD_IF_ABSENT, ID_TOKEN_HEADER))
    mutations = Mutations(request_mutations=[RequestMutation(append=header) for header in headers])
    return (
        HttpFilter(name="envoy.filters.http.header_to_metadata", typed_config=pack(Config(request_rules=rules))),
        HttpFilter(name="envoy.filters.http.header_mutation", typed_config=pack(HeaderMutation(mutations=mutations))),
    )


def _kept(header: str, pattern: str, substitution: str) -> ConfigRule:
    """Copy a header of the request into metadata, with every match of a pattern replaced."""
    rewrite = RegexMatchAndSubstitute(pattern=RegexMatcher(regex=pattern), substitution=substitution)
    pair = ConfigKeyValuePair(metadata_namespace=_METADATA, key=header, regex_value_rewrite=rewrite)
    return ConfigRule(header=header, on_header_present=pair, remove=True)


def _written(header: str, action: HeaderValueOptionHeaderAppendAction, key: str = "") -> HeaderValueOption:
    """A header of what was kept by ``key``, its own name by default; none where nothing was."""
    value = f"%DYNAMIC_METADATA({_METADATA}:{key or header})%"
    return HeaderValueOption(header=HeaderValue(key=header, value=value), append_action=action)


def _cookie_configs() -> CookieConfigs:
    """Lax: not sent with what another site's page posts or loads, but sent when a link leads here."""
    lax = CookieConfig(same_site=CookieConfigSameSite.LAX)
    return CookieConfigs(
        bearer_token_cookie_config=lax,
        oauth_hmac_cookie_config=lax,
        oauth_expires_cookie_config=lax,
        id_token_cookie_config=lax,
        refresh_token_cookie_config=lax,
        oauth_nonce_cookie_config=lax,
        code_verifier_cookie_config=lax,
    )


def _path(exact: str) -> PathMatcher:
    return PathMatcher(path=StringMatcher(exact=exact))


def _open(path: str) -> HeaderMatcher:
    """``:path`` has the query, which is not part of a path."""
    if path.endswith("*"):
        return HeaderMatcher(name=":path", string_match=StringMatcher(prefix=path[:-1]))
    regex = RegexMatcher(regex=f"{re.escape(path)}(\\?.*)?")
    return HeaderMatcher(name=":path", string_match=StringMatcher(safe_regex=regex))


# --- secrets ----------------------------------------------------------------------------------------------------------


def _secret(login: Login, what: str) -> SdsSecretConfig:
    name = secret_name(login, what)
    return SdsSecretConfig(name=name, sds_config=followed_file("sds", f"{name}.yaml", wait_for_ever=True))


def secret_name(login: Login, what: str) -> str:
    """Name of a login's secret, and of its file below ``sds/``."""
    return f"{login.credential}.{what}"


def login_secret_files(workload: MeshWorkload) -> dict[str, Secret]:
    """The files below ``sds/`` that tell a gateway where the secrets of its logins are; no secret is in them."""
    logins = dict.fromkeys(server.login for server in workload.servers if server.login is not None)
    return {
        f"{secret_name(login, what)}.yaml": Secret(
            name=secret_name(login, what),
            generic_secret=GenericSecret(
                secret=DataSource(
                    filename=f"certs/{login.credential}/{what}",
                    watched_directory=WatchedDirectory(path=f"certs/{login.credential}"),
                )
            ),
        )
        for login in logins
        for what in (CLIENT_SECRET, HMAC_KEY)
    }


# --- the way to the issuer --------------------------------------------------------------------------------------------


def login_cluster_name(login: Login) -> str:
    """Name of the cluster by which a gateway reaches the issuer."""
    return f"login|{login.credential}"


def login_endpoints_name(login: Login) -> str:
    """Name of the file of endpoints, where the issuer's URL has an address instead of a name."""
    return f"login_{login.credential}"


def login_clusters(workload: MeshWorkload, options: RenderOptions) -> list[Cluster]:
    """One for each login of a gateway: to the host of the token endpoint, by TLS where its URL says so."""
    logins = dict.fromkeys(server.login for server in workload.servers if server.login is not None)
    return [_cluster(login, options.logins[login.issuer]) for login in logins]


def _cluster(login: Login, endpoints: LoginEndpoints) -> Cluster:
    name, place = login_cluster_name(login), _token_place(endpoints)
    cluster = Cluster(name=name, connect_timeout=seconds(2), typed_extension_protocol_options=http1_upstream())
    if _is_address(place.host):
        file = login_endpoints_name(login)
        cluster.type = ClusterDiscoveryType.EDS
        cluster.eds_cluster_config = ClusterEdsClusterConfig(
            service_name=file, eds_config=followed_file("eds", f"{file}.yaml", wait_for_ever=True)
        )
    else:
        cluster.type = ClusterDiscoveryType.LOGICAL_DNS
        cluster.dns_lookup_family = ClusterDnsLookupFamily.V4_PREFERRED
        cluster.load_assignment = assignment(name, [at(place)])
    if urlsplit(endpoints.token).scheme == "https":
        sni = "" if _is_address(place.host) else place.host
        tls = ClientTls(ca_certificates=login.ca_certificates, sni=sni, subject_alt_names=(place.host,))
        cluster.transport_socket = outside_client(tls)
    return cluster


def login_place(login: Login, endpoints: LoginEndpoints) -> Place | None:
    """Where the token endpoint is in both worlds; None where it is given by name."""
    place = _token_place(endpoints)
    if not _is_address(place.host):
        return None
    return Place(place, Address(login.compose_address or place.host, place.port))


def _token_place(endpoints: LoginEndpoints) -> Address:
    url = urlsplit(endpoints.token)
    return Address(url.hostname or "", url.port or (443 if url.scheme == "https" else 80))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


# --- what is kept -----------------------------------------------------------------------------------------------------


def kept_file(login: Login) -> str:
    """Where what the issuer says about itself is kept, in case it does not answer."""
    return f"login/{login.credential}.json"


def kept_document(login: Login, endpoints: LoginEndpoints) -> bytes:
    """That file: the part of a discovery document that counts."""
    methods = ["client_secret_basic" if endpoints.basic else "client_secret_post"]
    document = {
        "issuer": login.issuer,
        "authorization_endpoint": endpoints.authorization,
        "token_endpoint": endpoints.token,
        **({"end_session_endpoint": endpoints.end_session} if endpoints.end_session else {}),
        "token_endpoint_auth_methods_supported": methods,
    }
    return json.dumps(document, indent=1).encode() + b"\n"
