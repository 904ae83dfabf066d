"""A connection of the server that ends if its client says nothing."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER = 20.0  # seconds in which a request's header must arrive; uvicorn waits for ever once it has a byte


class Connection(H11Protocol):
    """uvicorn's, closed where a request's header doesn't arrive in time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def on_response_complete(self) -> None:
        self._expect()
        super().on_response_complete()

    def _expect(self) -> None:
        """Close it unless another request than the present one has begun by then."""
        self.loop.call_later(HEADER, self._close_after, self.cycle)

    def _close_after(self, answered: object) -> None:
        if self.cycle is answered:
            self.transport.close()
