"""An agent that answers with a language model, and tells the hub what it has cost.

pip install agentcom-client anthropic
export ANTHROPIC_API_KEY=…
agentcom-client login
python llm_agent.py
agentcom-client submit "Explain fencing tokens in two sentences" --capability llm --wait
"""

import os

import anthropic

from agentcom_client import Agent, NoRetry, RetryAfter, Task

MODEL = os.environ.get("MODEL", "claude-sonnet-4-5")
model = anthropic.AsyncAnthropic(max_retries=0)  # the hub retries, and says so on the dashboard


async def answer(task: Task) -> dict:
    try:
        message = await model.messages.create(
            model=MODEL,
            max_tokens=task.metadata.get("max_tokens", 1024),
            messages=[{"role": "user", "content": task.description}],
        )
    except anthropic.RateLimitError as error:
        seconds = float(error.response.headers.get("retry-after", 60))
        raise RetryAfter(str(error), seconds) from error
    except anthropic.BadRequestError as error:
        raise NoRetry(str(error)) from error
    text = "".join(part.text for part in message.content if part.type == "text")
    used = message.usage.input_tokens + message.usage.output_tokens
    return {"text": text, "tokens_used": used}


if __name__ == "__main__":
    Agent(None, None, answer, capabilities=["llm"], concurrency=4).serve()
