# SPDX-License-Identifier: Apache-2.0
"""What the services tell each other. Names and units of the JSON are those of Jaeger's HotROD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Customer:
    id: int
    name: str
    location: str

    def to_json(self) -> dict[str, Any]:
        return {"ID": self.id, "Name": self.name, "Location": self.location}

    @classmethod
    def from_json(cls, answer: dict[str, Any]) -> Customer:
        return cls(int(answer["ID"]), str(answer["Name"]), str(answer["Location"]))


@dataclass(frozen=True)
class Driver:
    id: str
    location: str


@dataclass(frozen=True)
class Route:
    pickup: str
    dropoff: str
    eta_ns: int

    def to_json(self) -> dict[str, Any]:
        return {"Pickup": self.pickup, "Dropoff": self.dropoff, "ETA": self.eta_ns}

    @classmethod
    def from_json(cls, answer: dict[str, Any]) -> Route:
        return cls(str(answer["Pickup"]), str(answer["Dropoff"]), int(answer["ETA"]))


@dataclass(frozen=True)
class Ride:
    driver: str
    eta_ns: int

    def to_json(self) -> dict[str, Any]:
        return {"Driver": self.driver, "ETA": self.eta_ns}
