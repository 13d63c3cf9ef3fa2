"""Lists that fetch their pages as they are iterated.

The iterators are classes, not generators: an iteration that stops half-way needs no closing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Generic, TypeVar

from verity._concurrency import AsyncFunction
from verity.errors import VerityApiError
from verity.records import Page
from verity.values import Record

T = TypeVar("T", bound=Record)


class AsyncPages(Generic[T]):
    """A list in the ledger. Iterate over its items, or over its `pages()`.

    The first request is sent when an iteration begins. Each iteration starts again at the first page.
    """

    def __init__(self, fetch: AsyncFunction[Page[T]], cursor: str | None) -> None:
        self._fetch = fetch
        self._cursor = cursor

    def __aiter__(self) -> AsyncIterator[T]:
        return _Items(self.pages())

    def pages(self) -> AsyncIterator[Page[T]]:
        """Iterate page by page. Each page is fetched when the iteration reaches it."""
        return _PageByPage(self._fetch, self._cursor)

    async def first_page(self) -> Page[T]:
        """Fetch the page at the cursor. Its `next_cursor` tells where the next page begins."""
        return await self._fetch(self._cursor)


class _PageByPage(Generic[T]):
    """Fetches one page at a time. After an error, the next step fetches the same page again."""

    def __init__(self, fetch: AsyncFunction[Page[T]], cursor: str | None) -> None:
        self._fetch = fetch
        self._cursor = cursor
        self._ended = False

    def __aiter__(self) -> AsyncIterator[Page[T]]:
        return self

    async def __anext__(self) -> Page[T]:
        if self._ended:
            raise StopAsyncIteration
        page = await self._fetch(self._cursor)
        if page.next_cursor is not None and page.next_cursor == self._cursor:
            raise VerityApiError(
                "The ledger's list leads from a page to itself. Check that base_url is the URL of a Verity ledger.",
                code="invalid_response",
                request_id=page.request_id,
            )
        self._cursor = page.next_cursor
        self._ended = page.next_cursor is None
        return page


class _Items(Generic[T]):
    def __init__(self, pages: AsyncIterator[Page[T]]) -> None:
        self._pages = pages
        self._items: Iterator[T] = iter(())

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while True:
            for item in self._items:
                return item
            self._items = iter(await self._pages.__anext__())
