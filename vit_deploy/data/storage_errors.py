"""What other file systems say through pyarrow when they fail, in words."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pyarrow as pa

from vit_deploy.core.stderr import Captured
from vit_deploy.data import hadoop
from vit_deploy.data.addresses import Address
from vit_deploy.errors import DataError, MissingEngineError, RemoteError, VitDeployError

REFUSALS = (
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "INVALID_CLIENT_TOKEN_ID", "MISSING_AUTHENTICATION_TOKEN"),
    *("SIGNATURE", "OAuth2", "PERMISSION_DENIED", "UNAUTHENTICATED", "Permission denied", "HTTP response code 403"),
    *("status code: 401", "status code: 403"),
)
SILENCES = ("NETWORK_CONNECTION", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CURL error", "curlCode", "Connection refused")
CREDENTIALS_IN_ADDRESS = re.compile(r"://[^'\"]*@")  # errors repeat the address that they are about
REACHING = "check the network and the address, of a server of your own with ?endpoint_override=HOST:PORT"
CREDENTIALS = (
    "for s3 set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for gs GOOGLE_APPLICATION_CREDENTIALS, "
    "or write gs://anonymous@bucket where anybody may read"
)


@contextlib.contextmanager
def explained(place: Address) -> Iterator[None]:
    """A block whose errors of pyarrow are said in words.

    Raises:
        DataError: nothing there, or an address that cannot be.
        MissingEngineError: hdfs without Hadoop's library.
        RemoteError: the file system does not answer, or refuses.
    """
    of_hadoop, printed = place.scheme in hadoop.SCHEMES, Captured()
    try:
        with hadoop.quiet() if of_hadoop else contextlib.nullcontext(printed) as printed:
            yield
    except FileNotFoundError as error:
        raise DataError(f"there is nothing at {place.shown}", fix="check the address") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        said = hadoop.reason(printed.text) or str(error)
        raise _in_words(place, CREDENTIALS_IN_ADDRESS.sub("://", " ".join(said.split()))) from error


def _in_words(place: Address, said: str) -> VitDeployError:
    """The error that a file system's own words are."""
    of_hadoop = place.scheme in hadoop.SCHEMES
    if "Unrecognized filesystem type" in said:
        return DataError(
            f"{place.scheme}:// is no file system that pyarrow reads: {place.shown}",
            fix="give s3://, gs://, hdfs:// or a path",
        )
    if "Unable to load libjvm" in said or "load libhdfs" in said:  # the second time: a prior attempt
        what = "Java's libjvm" if "libjvm" in said else "Hadoop's libhdfs"
        return MissingEngineError(
            f"hdfs:// is read by Hadoop's own client, and {what} is not found: {place.shown}",
            fix="install a Java runtime and Hadoop's client, and set JAVA_HOME, HADOOP_HOME, and CLASSPATH to what "
            "`hadoop classpath --glob` says",
        )
    if of_hadoop and any(word in said for word in hadoop.NO_CLASSES):
        return MissingEngineError(
            f"hdfs:// is read by Hadoop's own client, and Java does not find its classes: {_short(said)}",
            fix=hadoop.CLASSES,
        )
    if "NO_SUCH_BUCKET" in said:
        return DataError(f"there is no bucket {place.bucket}: {place.shown}", fix="check the address")
    if any(word in said for word in REFUSALS):
        return RemoteError(
            f"{place.shown} is not for these credentials: {_short(said)}",
            fix=hadoop.CREDENTIALS if of_hadoop else CREDENTIALS,
        )
    if any(word in said for word in (*SILENCES, *(hadoop.SILENCES if of_hadoop else ()))):
        return RemoteError(
            f"the file system of {place.shown} does not answer: {_short(said)}",
            fix=hadoop.REACHING if of_hadoop else REACHING,
        )
    return RemoteError(
        f"{place.shown} cannot be read: {_short(said)}", fix="check the address, and what its storage asks for"
    )


def _short(said: str) -> str:
    return said if len(said) < 300 else f"{said[:300]}…"
