"""The blob store: a bucket of an S3-compatible server."""

from __future__ import annotations

import logging
from typing import Any, TypeVar
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from google.protobuf.message import Message
from moto.server import ThreadedMotoServer

KEY, SECRET, REGION = "loopback", "loopback-secret", "us-east-1"
UPLOAD_SECONDS = 3600

M = TypeVar("M", bound=Message)


class Store:
    """One bucket; everything in it goes by its s3:// address."""

    def __init__(self) -> None:
        self.bucket = f"loopback-{uuid4().hex[:8]}"  # servers of one process share their buckets
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)

    def start(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"
        self._s3: Any = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name=REGION,
            config=Config(max_pool_connections=50, s3={"addressing_style": "path"}),
        )
        self._s3.create_bucket(Bucket=self.bucket)

    def stop(self) -> None:
        """Let go of what the bucket holds, and of the server."""
        for address in self.list(self.address("")):
            self._s3.delete_object(Bucket=self.bucket, Key=self._key(address))
        self._s3.close()
        self._server.stop()

    def environment(self) -> dict[str, str]:
        """The variables by which flytekit, s3fs and boto3 find the bucket."""
        return {
            "FLYTE_AWS_ENDPOINT": self.endpoint,
            "FLYTE_AWS_ACCESS_KEY_ID": KEY,
            "FLYTE_AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def address(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def upload_url(self, address: str) -> str:
        """A presigned URL: who has it may PUT what shall lie at an address, again and again.

        Without a signature the server takes a key's first upload and answers 403 to the next.
        """
        url: str = self._s3.generate_presigned_url(
            "put_object",
            Params={"Bucket": self.bucket, "Key": self._key(address)},
            ExpiresIn=UPLOAD_SECONDS,
        )
        return url

    def put(self, address: str, content: bytes | Message) -> None:
        body = content if isinstance(content, bytes) else content.SerializeToString()
        self._s3.put_object(Bucket=self.bucket, Key=self._key(address), Body=body)

    def get(self, address: str) -> bytes | None:
        """The content, None when there is nothing."""
        try:
            found = self._s3.get_object(Bucket=self.bucket, Key=self._key(address))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise
        content: bytes = found["Body"].read()
        return content

    def message(self, address: str, kind: type[M]) -> M | None:
        """The protobuf message stored at an address, None when there is nothing."""
        content = self.get(address)
        return None if content is None else kind.FromString(content)

    def list(self, prefix: str) -> list[str]:
        """The addresses that begin with a prefix."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self._key(prefix)
        )
        return [self.address(item["Key"]) for page in pages for item in page.get("Contents", [])]

    def _key(self, address: str) -> str:
        return address.removeprefix(f"s3://{self.bucket}/")
