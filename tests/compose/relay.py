"""Hands what comes to this container's address on to its loopback, where the simulated exchange listens."""

import asyncio
import socket

PORT = 8765


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while block := await reader.read(65_536):
            writer.write(block)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", PORT)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


async def _serve() -> None:
    # Not 0.0.0.0: the exchange has the same port of 127.0.0.1.
    server = await asyncio.start_server(_relay, socket.gethostbyname(socket.gethostname()), PORT)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
