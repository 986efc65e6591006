"""Pictures of a request -> the pixels that the tower reads, in a bounded number of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from siqvl.errors import UserError
from siqvl.model.processing import SiQVLProcessor
from siqvl.serving.fetch_picture import fetch_picture
from siqvl.serving.picture_decoding import LARGE, decoded, pixels_of
from siqvl.serving.server.asked.returned_memory import return_memory
from siqvl.serving.server.refusals import Refused
from siqvl.serving.server.server_settings import ServerSettings

#: Pictures that are fetched at a time.
FETCHING = 4


class RequestPictures:
    """Fetches and decodes pictures of requests, one after the other for each of them.

    Args:
        max_pixels: of one picture.
    """

    def __init__(
        self, processor: SiQVLProcessor, settings: ServerSettings, max_pixels: int
    ) -> None:
        self._processor, self._settings = processor, settings
        self._max_pixels = max_pixels
        self._decoders = ThreadPoolExecutor(settings.decoders, "decode")
        self._fetchers = ThreadPoolExecutor(FETCHING, "fetch")

    def close(self) -> None:
        """Takes no more work."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._fetchers.shutdown(wait=False, cancel_futures=True)

    async def pixels(self, pictures: Sequence[bytes | str]) -> torch.Tensor | None:
        """Decodes the pictures of one request.

        Args:
            pictures: files, or addresses on the web.

        Returns:
            [pictures, 3, image_size, image_size]; None where there are none.

        Raises:
            Refused: too many, too large together, not to be fetched, or no pictures.
        """
        if len(pictures) > self._settings.max_pictures:
            raise self._refused(
                f"{len(pictures)} pictures, at most {self._settings.max_pictures} are read"
            )
        loop = asyncio.get_running_loop()
        found: list[torch.Tensor] = []
        left = self._settings.max_request_pixels
        # those that are there first, by their heads alone
        for one in pictures:
            if isinstance(one, bytes):
                left = self._less(left, one)
            elif not self._settings.allow_urls:
                raise self._refused("addresses are not fetched by this server: send data URIs")
        for number, one in enumerate(pictures, start=1):
            try:
                data = one
                if isinstance(data, str):
                    data = await loop.run_in_executor(self._fetchers, self._fetched, data)
                    left = self._less(left, data)
                found.append(await loop.run_in_executor(self._decoders, self._seen, data))
            except UserError as error:
                raise self._refused(f"picture {number}: {error.message}") from None
        return torch.cat(found) if found else None

    def _less(self, left: int, data: bytes) -> int:
        left -= pixels_of(data)
        if left < 0:
            raise self._refused(
                f"its pictures have more than {self._settings.max_request_pixels:,} pixels together"
            )
        return left

    def _fetched(self, url: str) -> bytes:
        return fetch_picture(
            url, limit_bytes=self._settings.url_bytes, timeout=self._settings.url_seconds
        )

    def _seen(self, data: bytes) -> torch.Tensor:
        picture = decoded(data, self._processor.image_processor, self._max_pixels)
        made = self._processor.image_processor(images=[picture], return_tensors="pt")
        pixels: torch.Tensor = made["pixel_values"]
        if pixels_of(data) > LARGE:
            return_memory()
        return pixels

    def _refused(self, sentence: str) -> Refused:
        return Refused(400, sentence, param="messages")
