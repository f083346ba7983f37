"""An agent of plain functions: each task has a thread of its own, so blocking is fine.

agentcom-client login
python thread_agent.py
agentcom-client submit "10000" --capability prime --wait
"""

from agentcom_client import Agent, NoRetry, ThreadTask


def nth_prime(task: ThreadTask) -> dict:
    """The task's description says which one."""
    try:
        wanted = int(task.description)
    except ValueError as error:
        raise NoRetry(f"{task.description} is no number") from error
    found: list[int] = []
    candidate = 2
    while len(found) < wanted:
        if all(candidate % prime for prime in found if prime * prime <= candidate):
            found.append(candidate)
            if len(found) % 1_000 == 0:
                task.progress(100 * len(found) / wanted, f"{len(found)} found")
                task.check()  # ends here when the task is cancelled
        candidate += 1
    return {"prime": found[-1]}


if __name__ == "__main__":
    Agent(None, None, nth_prime, capabilities=["prime"], concurrency=4).serve()
