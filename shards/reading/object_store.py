"""Object stores: the files of a shard folder by URL (s3://bucket/prefix, gs://..., any of fsspec's), in plain calls.

Every request has a time limit, every object is written whole or not at all, and every failure is one line. A store
that has answered and then does not is asked again for PATIENCE seconds: so a training outlasts what networks do.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shards.errors import DataError, Unreachable
from shards.format.whole_files import PARTIAL

CHUNK = 16 * 2**20  # bytes of one request when a file is fetched
READ_LIMIT = 256 * 2**20  # bytes of a file that is read into memory whole
REQUEST_LIMIT = 120.0  # seconds; CHUNK in that time is 140 KB a second
SLOWEST = 140_000  # bytes a second; what goes in one request gets REQUEST_LIMIT and the time it needs at this rate
PATIENCE = 150.0  # seconds; with a last request it stays below what others wait for this process (cache, prefetch)
PAUSES = 0.25, 5.0  # seconds between requests to a store that does not answer: at first, at most
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
# Limits below REQUEST_LIMIT, so that botocore can try again within it.
_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 50}}}
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login",
}
# What a store says that cannot serve now: S3's SlowDown, ServiceUnavailable, InternalError, codes without a name.
_PASSES = (errno.EBUSY, errno.EREMOTEIO, errno.EIO, errno.ETIMEDOUT)
_answered: set[str] = set()  # stores that this process has had an answer from
_silent: set[str] = set()  # those of them that do not answer now


def is_url(text: object) -> bool:
    """Whether a place is named by a URL ("s3://bucket/prefix") and not by a path."""
    scheme, found, _ = str(text).partition("://")
    return bool(found) and scheme.isascii() and scheme.isalnum()


class Bucket:
    """The objects right below a URL, by name. Cheap to make and to pickle: it connects at the first request.

    Safe under threads, and in a forked child, which connects anew. All methods raise DataError, one line with the URL
    and the fix.
    """

    def __init__(self, url: str) -> None:
        self.url = str(url).rstrip("/")
        if not is_url(self.url):
            raise DataError(f"{url} is no URL: it begins with a protocol, as in s3://bucket/folder")
        parts = urlsplit(self.url)
        self.protocol = parts.scheme
        if self.protocol in ("file", "local"):
            raise DataError(f"{url}: name a folder of this machine by its path alone, {parts.path or '...'}")
        if not parts.netloc:
            raise DataError(f"{url} names no bucket: write {self.protocol}://BUCKET/FOLDER")
        self._connected: tuple[int, Any] | None = None  # the process, its fsspec file system

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_connected": None}

    def names(self) -> set[str]:
        """The names of the objects right below the URL; empty where nothing is there yet."""
        try:
            listed = self._call("", "ls", self._path(), detail=True)
        except Missing:
            bucket = self._path().split("/")[0]
            if self.protocol != "memory" and not self._call("", "exists", bucket):
                raise DataError(f"{self.url}: no such bucket, or none that you may see: make it first") from None
            return set()
        return {entry["name"].rpartition("/")[2] for entry in listed if entry["type"] == "file"}

    def size(self, name: str) -> int:
        """Bytes of an object."""
        return int(self._call(name, "info", self._path(name))["size"])

    def read(self, name: str) -> bytes:
        """The bytes of an object that memory holds: a manifest, an index. More than READ_LIMIT are refused."""
        size = self.size(name)
        if size > READ_LIMIT:
            raise DataError(f"{self.url}/{name} has {size} bytes: no file of a shard folder but a tar is so large")
        path, limit = self._path(name), _time_limit(size)
        return self._call(name, "cat_file", path, start=0, end=size, limit=limit) if size else b""

    def read_at(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of an object from `offset`."""
        end, limit = offset + length, _time_limit(length)
        return self._call(name, "cat_file", self._path(name), start=offset, end=end, limit=limit) if length else b""

    def chunks(self, name: str) -> Iterator[bytes]:
        """An object's bytes from first to last, in parts of at most CHUNK: each a request with a time limit."""
        size = self.size(name)
        for start in range(0, size, CHUNK):
            end = min(start + CHUNK, size)
            data = self._call(name, "cat_file", self._path(name), start=start, end=end)
            if len(data) != end - start:
                raise DataError(f"{self.url}/{name} was replaced while it was being read; run the same again")
            yield data

    def write(self, name: str, data: bytes) -> None:
        """Makes or replaces an object."""
        self._call(name, "pipe_file", self._path(name), data, limit=_time_limit(len(data)))

    def upload(self, local: Path, name: str) -> None:
        """Makes or replaces an object by the bytes of a local file."""
        limit = _time_limit(local.stat().st_size)
        self._call(name, "put_file", str(local), self._path(name), limit=limit)

    def download(self, name: str, local: Path) -> None:
        """Makes or replaces a local file by an object's bytes; a file of that name is whole."""
        partial = local.with_name(local.name + PARTIAL)
        try:
            with open(partial, "wb") as file:
                for chunk in self.chunks(name):
                    file.write(chunk)
            os.replace(partial, local)
        except OSError as error:
            raise DataError(f"{local} cannot be written ({error.strerror}): {self.url}/{name} goes there") from None
        finally:
            partial.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Removes an object; one that is not there is no error."""
        try:
            self._call(name, "rm_file", self._path(name))
        except Missing:
            return

    def _path(self, name: str = "") -> str:
        parts = urlsplit(self.url)
        return "/".join(part for part in (parts.netloc + parts.path.rstrip("/"), name) if part)

    def _call(self, name: str, method: str, *arguments: Any, limit: float | None = None, **options: Any) -> Any:
        """A request of the protocol's package, at most `limit` seconds; its failures as DataError.

        Asked again while a store that has answered before does not; the first time that it does not is told.
        """
        limit = limit or REQUEST_LIMIT
        where = f"{self.url}/{name}" if name else self.url
        store = f"{os.environ.get('AWS_ENDPOINT_URL', '')} {self.protocol}://{urlsplit(self.url).netloc}"
        began, pause = time.monotonic(), PAUSES[0]
        while True:
            try:
                found = self._request(method, arguments, options, limit)
            except FileNotFoundError:
                _answered.add(store)
                raise Missing(f"{where}: no such object or bucket; check the URL with the store's own tool") from None
            except (DataError, MemoryError):
                raise
            except Exception as error:  # each protocol's package has exceptions of its own
                why, waited = self._explain(error, limit), time.monotonic() - began
                if store not in _answered or not _may_pass(error):
                    raise Unreachable(f"{where}: {why}") from None
                if waited > PATIENCE:
                    raise Unreachable(f"{where}: {why} (asked again for {waited:.0f} s)") from None
                if store not in _silent:
                    _silent.add(store)
                    logging.getLogger(__name__).warning(f"{where}: {why}; it is asked again for {PATIENCE:g} s")
                time.sleep(pause)
                pause = min(2 * pause, PAUSES[1])
            else:
                _answered.add(store)
                _silent.discard(store)
                return found

    def _request(self, method: str, arguments: tuple, options: dict[str, Any], limit: float) -> Any:
        files = self._files()
        if not files.async_impl:
            return getattr(files, method)(*arguments, **options)
        from fsspec.asyn import sync

        return sync(files.loop, getattr(files, f"_{method}"), *arguments, timeout=limit, **options)

    def _files(self) -> Any:
        if self._connected is not None and self._connected[0] == os.getpid():
            return self._connected[1]
        import fsspec

        try:
            files = fsspec.filesystem(self.protocol, use_listings_cache=False, **_OPTIONS.get(self.protocol, {}))
        except ImportError:
            package = _PACKAGES.get(self.protocol)
            fix = f"pip install {package}" if package else "install the package that fsspec's documentation names"
            raise DataError(f"{self.url}: the package for {self.protocol}:// is not installed: {fix}") from None
        except ValueError:
            raise DataError(
                f"{self.url}: no such protocol as {self.protocol}://; use s3:// or a local folder"
            ) from None
        self._connected = os.getpid(), files
        return files

    def _explain(self, error: Exception, limit: float) -> str:
        kind, text = type(error).__name__, " ".join(str(error).split()) or type(error).__name__
        if "Credentials" in kind or "Token" in kind:
            return f"no credentials ({text[:200]}); {_CREDENTIALS.get(self.protocol, 'set those of the store')}"
        if isinstance(error, PermissionError):
            return f"not allowed ({text[:200]}): check the credentials and the rights on the bucket"
        if _is_timeout(error):
            return f"no answer within {limit:.0f} s: is the store reachable from here? The same command goes on"
        if _is_connection(error):
            return f"cannot be reached ({text[:200]}): check the network and AWS_ENDPOINT_URL, if it is set"
        return f"failed ({kind}: {text[:300]})"


class Missing(DataError):
    """No such object: told apart where that is no error."""


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, TimeoutError) or "Timeout" in type(error).__name__


def _is_connection(error: Exception) -> bool:
    kind = type(error).__name__
    return isinstance(error, ConnectionError) or "Connection" in kind or "Endpoint" in kind


def _may_pass(error: Exception) -> bool:
    """Whether the same request may be answered in a while."""
    if isinstance(error, PermissionError):
        return False
    return _is_timeout(error) or _is_connection(error) or getattr(error, "errno", None) in _PASSES


def _time_limit(size: int) -> float:
    return REQUEST_LIMIT + size / SLOWEST
