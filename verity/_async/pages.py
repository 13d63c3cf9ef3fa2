"""Lists that fetch their pages as they are iterated.

The iterators are classes, not generators: one that is left half-way needs no closing.
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
    """A list. Iterate over its items, or over its `pages()`; nothing is asked of the ledger before. Each iteration
    starts anew."""

    def __init__(self, fetch: AsyncFunction[Page[T]], cursor: str | None) -> None:
        self._fetch = fetch
        self._cursor = cursor

    def __aiter__(self) -> AsyncIterator[T]:
        return _Items(self.pages())

    def pages(self) -> AsyncIterator[Page[T]]:
        """The list page by page, each fetched when it is asked for."""
        return _PageByPage(self._fetch, self._cursor)

    async def first_page(self) -> Page[T]:
        """The page at the cursor, which tells where the next one begins."""
        return await self._fetch(self._cursor)


class _PageByPage(Generic[T]):
    """Where a page can't be had, it raises, and may be asked for that page again."""

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
                "The ledger's list leads from a page to itself; check that base_url leads to a Verity ledger.",
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
