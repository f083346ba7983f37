"""An asynchronous agent that does three tasks at once, cleans up when one is cancelled, and says
when another attempt is of use.

    agentcom-client login
    python async_agent.py
    agentcom-client submit "https://example.org/" --capability fetch --wait
"""

import asyncio

import httpx

from agentcom_client import Agent, NoRetry, RetryAfter, Task


async def fetch(task: Task) -> dict:
    async with httpx.AsyncClient(timeout=30, follow_redirects=True) as http:
        try:
            await task.progress(10, "asking")
            answer = await http.get(task.description)
        except httpx.UnsupportedProtocol as error:
            raise NoRetry(f"{task.description} is no address: {error}") from error
        except asyncio.CancelledError:
            return {"cancelled": True}  # the last words; the hub keeps them with the task
    if answer.status_code in (429, 503):
        raise RetryAfter(f"HTTP {answer.status_code}", seconds=60)
    return {"status": answer.status_code, "bytes": len(answer.content)}


if __name__ == "__main__":
    Agent(None, None, fetch, capabilities=["fetch"], concurrency=3).serve()
