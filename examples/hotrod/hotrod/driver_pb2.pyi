from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DriverLocationRequest(_message.Message):
    __slots__ = ("location",)
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    location: str
    def __init__(self, location: _Optional[str] = ...) -> None: ...

class DriverLocation(_message.Message):
    __slots__ = ("driver_id", "location")
    DRIVER_ID_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    driver_id: str
    location: str
    def __init__(self, driver_id: _Optional[str] = ..., location: _Optional[str] = ...) -> None: ...

class DriverLocationResponse(_message.Message):
    __slots__ = ("locations",)
    LOCATIONS_FIELD_NUMBER: _ClassVar[int]
    locations: _containers.RepeatedCompositeFieldContainer[DriverLocation]
    def __init__(self, locations: _Optional[_Iterable[_Union[DriverLocation, _Mapping]]] = ...) -> None: ...
