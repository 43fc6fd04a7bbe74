"""Which server answers when nobody chose one: the fastest that works on this machine."""

from authz.core.errors import SettingsError
from authz.service.workers.envoy_host import find_hosting
from authz.settings.settings import Settings


def choose_server(settings: Settings) -> tuple[Settings, str]:
    """
    Settle ``--server auto``.

    Returns:
        The settings with ``envoy`` or ``grpcio``, and one line that says why; it is empty when somebody chose.
    """
    if settings.server != "auto":
        return settings, ""
    if not settings.listen:
        done = ["access logs are recorded"] if settings.access_logs else []
        done += ["requests are counted"] if settings.rate_limits else []
        return _with(settings, "grpcio"), f"none: {' and '.join(done)}, no check is answered"
    if "grpc" in settings.access_logs:
        why = (
            "`access_logs: grpc` receives on its addresses; with one of their own, `grpc:ADDRESS`, Envoy could host it"
        )
        return _with(settings, "grpcio"), f"grpcio, in Python: {why}"
    try:
        hosting = find_hosting()
    except SettingsError as error:
        reason = str(error).partition(", or choose")[0]
        return _with(settings, "grpcio"), f"grpcio, in Python: hosting in Envoy would be faster, but {reason}"
    return _with(settings, "envoy"), f"envoy, which hosts the workers: {hosting.envoy.name} and pyvoy work here"


def _with(settings: Settings, server: str) -> Settings:
    return settings.model_copy(update={"server": server})
