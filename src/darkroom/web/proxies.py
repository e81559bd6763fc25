"""Whose word is taken for where a request comes from: a reverse proxy's, and only where the operator has named it."""

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from waitress.proxy_headers import MalformedProxyHeader, parse_proxy_headers

from darkroom.config import ServeConfig

BELIEVED = frozenset({"x-forwarded-for", "x-forwarded-proto"})


@dataclass(frozen=True)
class Proxy:
    """The address of the proxy, * for any or nothing for none, and how many proxies add to X-Forwarded-For."""

    address: str
    hops: int

    @classmethod
    def of(cls, settings: ServeConfig) -> "Proxy":
        """The proxy that `settings` trust."""
        return cls(settings.trusted_proxy, settings.proxy_hops)

    def apply(self, environ: dict[str, Any]) -> None:
        """Put what the proxy says of client and scheme into a WSGI environment; raises `MalformedProxyHeader`.

        Of several schemes the last is taken, which is the one that the proxy itself has added.
        """
        if not self._is_at(environ["REMOTE_ADDR"]):
            return
        schemes = environ.get("HTTP_X_FORWARDED_PROTO")
        if schemes is not None:
            environ["HTTP_X_FORWARDED_PROTO"] = schemes.rpartition(",")[2].strip()
        try:
            parse_proxy_headers(environ, trusted_proxy_count=self.hops, trusted_proxy_headers=BELIEVED)
        except IndexError as error:  # waitress looks for the brackets of an address that is empty
            raise MalformedProxyHeader("X-Forwarded-For", "no address", "") from error

    def _is_at(self, peer: str) -> bool:
        """Whether a connection comes from the proxy; a socket for both kinds of addresses writes IPv4 as IPv6."""
        return self.address == "*" or (self.address != "" and _plain(self.address) == _plain(peer))

    def client(self, peer: str, forwarded: str | None) -> str:
        """The client behind the connection of `peer`, as far as the header X-Forwarded-For can be read."""
        environ = {"REMOTE_ADDR": peer} | ({} if forwarded is None else {"HTTP_X_FORWARDED_FOR": forwarded})
        with suppress(MalformedProxyHeader):
            self.apply(environ)
        return environ["REMOTE_ADDR"]


def _plain(address: str) -> IPv4Address | IPv6Address | str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed
