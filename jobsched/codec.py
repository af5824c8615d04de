"""Bytes and back: arguments, results, and the records that a store keeps.

Arguments are msgpack of plain values. What msgpack has no form for (UUID, Decimal, date, set,
dataclass) is written in its plain form and comes back as the annotated type, so a task that wants
a `UUID` says so in its signature. Records carry a version byte and a CRC-32, because LMDB has no
checksums of its own.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from jobsched.errors import ArgumentError, JobschedError, PayloadTooLarge
from jobsched.job import MAX_PAYLOAD, JobRecord

__all__ = [
    "BadRecord",
    "RecordForm",
    "decode_arguments",
    "decode_record",
    "decode_result",
    "encode_arguments",
    "encode_positional",
    "encode_record",
    "encode_result",
    "seal",
    "seal_all",
    "unseal",
]

_VERSION = 1
_head = struct.Struct(">BI")  # the version and the CRC-32
_HEAD = _head.size
_pack_head, _crc32 = _head.pack, zlib.crc32  # to look them up takes as long as to call them
_EMPTY = 1  # bytes of an empty list, or mapping

_plain = msgspec.msgpack.Encoder()
_encode = _plain.encode
_NO_KWARGS = _encode({})
_any = msgspec.msgpack.Decoder()
_records = msgspec.msgpack.Decoder(JobRecord)


class BadRecord(JobschedError):
    """Stored bytes are not a record of ours: damaged, or of an unknown version."""


def seal(body: bytes) -> bytes:
    """Return the record that holds a body: version byte, CRC-32 of the body, body."""
    return _pack_head(_VERSION, _crc32(body)) + body


def seal_all(bodies: Iterable[bytes]) -> list[bytes]:
    """Return the records that hold some bodies."""
    return [_pack_head(_VERSION, _crc32(body)) + body for body in bodies]


def unseal(record: bytes) -> bytes:
    """Return a record's body. Raises BadRecord when it is damaged or of another version."""
    body = record[_HEAD:]
    if record[:_HEAD] != _head.pack(_VERSION, _crc32(body)):
        if record[:1] != bytes((_VERSION,)):
            raise BadRecord(f"record of unknown version {record[:1].hex() or 'nothing'}")
        raise BadRecord("record fails its CRC-32 check")
    return body


def encode_record(record: JobRecord) -> bytes:
    """Return a job's immutable part as stored and sent."""
    return seal(_plain.encode(record))


class RecordForm:
    """Encodes records that are like one of them but for their ids and arguments, in a third of the time."""

    def __init__(self, record: bytes, mark: bytes) -> None:
        """Take the form from a record in which a mark stands for the id, and for all arguments together."""
        self._parts = unseal(record).split(mark)

    def encode_all(self, job_ids: Sequence[bytes], arguments: Sequence[bytes]) -> list[bytes]:
        """Return the records of jobs; the arguments of each are those by position and by name, encoded."""
        before, between, behind = self._parts
        bodies = [
            b"".join((before, job_id, between, packed, behind))
            for job_id, packed in zip(job_ids, arguments, strict=True)
        ]
        return seal_all(bodies)


def decode_record(data: bytes) -> JobRecord:
    """Return a job's immutable part. Raises BadRecord."""
    try:
        return _records.decode(unseal(data))
    except msgspec.MsgspecError as error:
        raise BadRecord(str(error)) from error


def encode_arguments(
    task: str, args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str] = ()
) -> tuple[bytes, bytes]:
    """Return positional and keyword arguments as msgpack.

    `names` are the parameters' names, used to say where a bad value stands.
    Raises ArgumentError naming the path (``args.user.conn``) of a value that has no plain form,
    PayloadTooLarge over 1 MiB.
    """
    try:
        packed = _plain.encode(args), _plain.encode(kwargs)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ArgumentError(_blame(task, args, kwargs, names, error)) from None
    size = len(packed[0]) + len(packed[1])
    if size > MAX_PAYLOAD:
        raise PayloadTooLarge(task, size, MAX_PAYLOAD)
    return packed


def encode_positional(each: Sequence[Sequence[Any]]) -> list[bytes] | None:
    """Return the arguments of many jobs, which have none by name, as one msgpack each of both kinds; None
    if that cannot be done with one of them: `encode_arguments` says why.
    """
    try:
        packed = [_encode(args) + _NO_KWARGS for args in each]
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    return packed if max(map(len, packed), default=0) <= MAX_PAYLOAD else None


def decode_arguments(record: JobRecord) -> tuple[list[Any], dict[str, Any]]:
    """Return a job's arguments as plain values. Raises BadRecord."""
    try:
        return (
            _any.decode(record.args) if len(record.args) > _EMPTY else [],
            _any.decode(record.kwargs) if len(record.kwargs) > _EMPTY else {},
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"its arguments cannot be read: {error}") from error


def encode_result(value: Any) -> bytes:
    """Return a job's return value as msgpack.

    Raises ArgumentError naming the path of what has no plain form, PayloadTooLarge over 1 MiB.
    """
    try:
        packed = _plain.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        found = _find(value, "result", 0) or ("result", str(error))
        msg = f"{found[0]}: {found[1]}"
        raise ArgumentError(msg) from None
    if len(packed) > MAX_PAYLOAD:
        what = "result"
        raise PayloadTooLarge(what, len(packed), MAX_PAYLOAD)
    return packed


def decode_result(data: bytes) -> Any:
    """Return a job's return value as plain values."""
    return _any.decode(data)


def _blame(
    task: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    names: Sequence[str],
    error: Exception,
) -> str:
    """Say which value cannot be encoded, by its path from ``args``."""
    labelled = [
        (f"args.{names[place]}" if place < len(names) else f"args[{place}]", value)
        for place, value in enumerate(args)
    ]
    labelled += [(f"args.{name}", value) for name, value in kwargs.items()]
    for label, value in labelled:
        found = _find(value, label, 0)
        if found:
            return f"{found[0]} of task {task!r}: {found[1]}"
    return f"the arguments of task {task!r} cannot be encoded: {error}"


def _find(value: Any, path: str, depth: int) -> tuple[str, str] | None:
    """Return path and reason of the first part of a value that cannot be encoded, or None."""
    if depth > 100:  # noqa: PLR2004 (deeper than any real payload, well below the recursion limit)
        return path, "nested more than 100 levels deep, or contains itself"
    for step, part in _parts(value):
        found = _find(part, path + step, depth + 1)
        if found:
            return found
    try:
        _plain.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, TypeError) and "Encoding objects" in reason:
            kind = type(value)
            reason = f"a {kind.__module__}.{kind.__qualname__} cannot be sent to a worker"
        return path, reason
    return None


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Return the parts of a container with the step of the path that leads to each."""
    if isinstance(value, Mapping):
        return [(f".{key}" if isinstance(key, str) else f"[{key!r}]", v) for key, v in value.items()]
    if isinstance(value, list | tuple):
        return [(f"[{place}]", part) for place, part in enumerate(value)]
    if isinstance(value, AbstractSet):
        return [("{}", part) for part in value]
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return [(f".{name}", getattr(value, name)) for name in value.__dataclass_fields__]
    if isinstance(value, msgspec.Struct):
        return [(f".{name}", getattr(value, name)) for name in value.__struct_fields__]
    return []
