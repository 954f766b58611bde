# SPDX-License-Identifier: Apache-2.0
"""Which Services lead to which endpoints, followed by whoever has to know it at once for each request."""

from __future__ import annotations

import ipaddress
import logging
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

#: Addresses with ports; beyond it new ones are not known, which is logged.
MAX_ENDPOINTS = 100_000

#: How many are told at a time: the agent's thread has other things to do.
_TOLD_AT_ONCE = 1000

Place = tuple[bytes, int]  # an address of 16 bytes, and a port
_Key = tuple[str, str]  # a Service's namespace and name


class Backend(NamedTuple):
    """A port of a Service that leads to an endpoint.

    Attributes:
        addresses: The Service's virtual IPs, of 16 bytes each.
        of_requests: Attributes of requests that go through the Service.
        endpoint: Attributes of the endpoint.
    """

    namespace: str
    name: str
    addresses: bytes
    port: int
    of_requests: Mapping[str, Any]
    endpoint: dict[str, Any]


class Told(NamedTuple):
    """What has changed for an endpoint.

    Attributes:
        backends: All that lead there now, each with whether no Service of another namespace has its name.
    """

    place: Place
    backends: Sequence[tuple[Backend, bool]]


@lru_cache(maxsize=65536)
def packed(address: str) -> bytes | None:
    """The 16 bytes of an address, IPv4 as mapped into IPv6; None: it is none."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    mapped = bytes(10) + b"\xff\xff" if parsed.version == 4 else b""
    return mapped + parsed.packed


class Follower:
    """The endpoints of which somebody was not told yet."""

    def __init__(self, backends: Backends, places: Iterable[Place]) -> None:
        self._backends = backends
        self.places = dict.fromkeys(places)

    def take(self) -> Sequence[Told]:
        """Some that have changed; call it again for more. Of nothing new it costs next to nothing."""
        return self._backends.told(self.places) if self.places else ()


class Backends:
    """May be told and followed by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at: dict[Place, tuple[Backend, ...]] = {}
        self._of: dict[_Key, dict[Place, tuple[Backend, ...]]] = {}
        self._namespaces: dict[str, set[str]] = {}  # in which there is a Service of that name
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()
        self._is_full = False

    def follow(self) -> Follower:
        """Be told of all endpoints, and then of those that change, for as long as the Follower is kept."""
        with self._lock:
            follower = Follower(self, self._at)
            self._followers.add(follower)
        return follower

    def endpoint(self, place: Place) -> dict[str, Any] | None:
        """Attributes of the endpoint there; the same ones are the same object."""
        found = self._at.get(place)
        return found[0].endpoint if found else None

    def put(
        self,
        namespace: str,
        name: str,
        routes: Iterable[tuple[Backend, Iterable[tuple[str, int, dict[str, Any]]]]] = (),
    ) -> None:
        """There is that Service.

        Args:
            namespace: Its namespace.
            name: Its name.
            routes: All its ports, each with its endpoints: address, port, attributes. None of a Service without
                a virtual IP ("headless"): its clients choose among endpoints themselves.
        """
        new: dict[Place, tuple[Backend, ...]] = {}
        for backend, endpoints in routes:
            for address, port, attributes in endpoints:
                if place_address := packed(address):
                    place = place_address, port
                    new[place] = (*new.get(place, ()), backend._replace(endpoint=attributes))
        with self._lock:
            self._say(namespace, name, True)
            self._replace((namespace, name), new)

    def remove(self, namespace: str, name: str) -> None:
        """There is no such Service any more."""
        with self._lock:
            self._say(namespace, name, False)
            self._replace((namespace, name), {})

    def told(self, places: dict[Place, None]) -> Sequence[Told]:
        """What leads to the first of these places, which are taken out."""
        with self._lock:
            some = [place for place, _ in zip(places, range(_TOLD_AT_ONCE), strict=False)]
            for place in some:
                del places[place]
            return [
                Told(
                    place,
                    [
                        (each, len(self._namespaces[each.name]) == 1)
                        for each in self._at.get(place, ())
                    ],
                )
                for place in some
            ]

    def _say(self, namespace: str, name: str, is_there: bool) -> None:
        """Note whether there is such a Service: names that become unique, or cease to be, are told anew."""
        namespaces = self._namespaces.setdefault(name, set())
        before = set(namespaces)
        (namespaces.add if is_there else namespaces.discard)(namespace)
        if len(before | namespaces) == 2 and before != namespaces:
            for each in before | namespaces:
                self._tell(self._of.get((each, name), ()))
        if not namespaces:
            del self._namespaces[name]

    def _replace(self, key: _Key, new: dict[Place, tuple[Backend, ...]]) -> None:
        old = self._of.pop(key, {})
        changed = [place for place in {**old, **new} if old.get(place, ()) != new.get(place, ())]
        for place in changed:
            leading = [each for each in self._at.get(place, ()) if (each[0], each[1]) != key]
            if place not in self._at and len(self._at) >= MAX_ENDPOINTS:
                if not self._is_full:
                    log.warning("names: more than %d endpoints; others have none", MAX_ENDPOINTS)
                self._is_full = True
                del new[place]
                continue
            leading += new.get(place, ())
            if leading:
                self._at[place] = tuple(leading)
            else:
                del self._at[place]
        for place, same in old.items():  # the same objects stay
            if place in new and new[place] == same:
                new[place] = same
        if new:
            self._of[key] = new
        self._tell(changed)

    def _tell(self, places: Iterable[Place]) -> None:
        for follower in self._followers:
            follower.places.update(dict.fromkeys(places))
