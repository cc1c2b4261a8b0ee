"""A simulated endpoint whose law is known: k servers, a service time by tokens, one queue.  The truth for a load test.

It runs in a process of its own, so that it shares no interpreter with the client that is measured.  What a closed loop
of N clients must see of it is computed here, from the law alone.
"""

from __future__ import annotations

import heapq
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from math import exp
from random import Random
from statistics import NormalDist
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Law:
    """What the endpoint does.  Times in seconds, counts in tokens.

    servers: requests that are served at the same time, each as fast as if it were alone; the others wait in one queue,
        first come, first served.
    base, per_input, per_output: a request of i input and o output tokens is served for
        `(base + per_input * i + per_output * o) * factor`; output token number j is sent when `o` is j in that formula.
    spread: the logarithm of `factor` is normal with mean 0 and this deviation; 0 makes every request equal.
    queue: requests that may wait; one more is refused with 429.  None for any number.
    task: chat, completions or embeddings, as "llm/v1/chat".
    added: tokens that the endpoint adds to each prompt.
    tokenizer: a `tokenizer.json` that counts the tokens of a prompt; without one, every word is a token.
    provisioned: minimum and maximum throughput that the endpoint's document names.
    seed: of the factors.
    """

    servers: int = 8
    base: float = 0.02
    per_input: float = 0.0
    per_output: float = 0.005
    spread: float = 0.0
    queue: int | None = None
    task: str = "llm/v1/chat"
    added: int = 0
    tokenizer: str | None = None
    provisioned: tuple[int, int] = (980, 1960)
    seed: int = 0

    def service(self, inputs: int, outputs: int, factor: float = 1.0) -> float:
        """Seconds for which a server is busy with one request."""
        return (self.base + self.per_input * inputs + self.per_output * outputs) * factor

    def factors(self) -> Random:
        """The chance of the factors, from its beginning."""
        return Random(self.seed)  # noqa: S311  a law that is to be repeated, no secret

    def factor(self, chance: Random) -> float:
        """The next factor."""
        return exp(chance.gauss(0.0, self.spread)) if self.spread else 1.0

    def latency(self, clients: int, inputs: int, outputs: int, quantile: float) -> float:
        """The quantile of the latency that each of so many clients sees, who ask anew as soon as they are answered.

        Exact where no request waits (clients <= servers), and for equal requests of clients that are a multiple of the
        servers.  Raises ValueError elsewhere: `simulate` tells of that.
        """
        if clients <= self.servers:
            deviation = NormalDist(0.0, self.spread).inv_cdf(quantile) if self.spread else 0.0
            return self.service(inputs, outputs, exp(deviation))
        if self.spread or clients % self.servers:
            raise ValueError(f"{clients} clients of {self.servers} servers: there is no closed form")
        return self.service(inputs, outputs) * clients / self.servers

    def throughput(self, clients: int, inputs: int, outputs: int) -> float:
        """Requests per second of so many clients in a closed loop: what the mean service time allows.

        Exact where no request waits, and where requests are equal; else an upper bound which many clients come near to.
        """
        mean = exp(self.spread**2 / 2)
        return min(clients, self.servers) / self.service(inputs, outputs, mean)

    def simulate(self, clients: int, inputs: int, outputs: int, requests: int) -> Simulated:
        """So many requests of each client, event by event, without any time of a client's own."""
        chance = self.factors()
        free = [0.0] * self.servers
        asking = [(0.0, client) for client in range(clients)]
        latencies, ends = [], []
        for _ in range(clients * requests):
            asked, client = heapq.heappop(asking)
            began = max(asked, heapq.heappop(free))
            ended = began + self.service(inputs, outputs, self.factor(chance))
            heapq.heappush(free, ended)
            heapq.heappush(asking, (ended, client))
            latencies.append(ended - asked)
            ends.append(ended)
        last = min(asking)[0]
        return Simulated(tuple(latencies), sum(ended <= last for ended in ends) / last)


@dataclass(frozen=True)
class Simulated:
    """The latency of each request, in the order in which they were asked, and requests per second while all asked."""

    latencies: tuple[float, ...]
    throughput: float


@dataclass(frozen=True)
class Faults:
    """What goes wrong on purpose.

    broken: each so-manieth stream breaks off after half of its tokens.
    failing: each so-manieth request is answered with 500.
    vanishes_after: the endpoint is gone when so many requests have been answered.
    forbidden: queries are refused with 403.
    ready: what the endpoint's document says of its state.
    """

    broken: int = 0
    failing: int = 0
    vanishes_after: int = 0
    forbidden: bool = False
    ready: bool = True


class LawEndpoint:
    """The simulated endpoint on loopback, while the `with` block runs.  `url` is its workspace's address.

    It answers `GET /api/2.0/serving-endpoints/NAME` and `POST /serving-endpoints/NAME/invocations`.
    """

    def __init__(self, law: Law, faults: Faults | None = None, name: str = "law") -> None:
        self.law, self.name = law, name
        self._orders = {"name": name, "law": asdict(law), "faults": asdict(faults or Faults())}
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603  this Python, and a module of ours
            [sys.executable, "-P", "-m", "catalogger.testing.law_server", json.dumps(self._orders)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        try:
            self.url = f"http://127.0.0.1:{self._told()['port']}"
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process:
            self._process.communicate()
            self._process = None

    def end(self) -> Told:
        """End it, and give what it has counted."""
        if self._process is None:
            raise ValueError("the endpoint does not run")
        said, _ = self._process.communicate()
        self._process = None
        return Told(**json.loads(said))

    def _told(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process and self._process.stdout else ""
        if not line:
            raise RuntimeError("the simulated endpoint did not start; what it said stands on stderr")
        told: dict[str, Any] = json.loads(line)
        return told


@dataclass(frozen=True)
class Told:
    """What the endpoint counted: answers, refusals by 429, tokens, and how late it sent tokens by its own clock."""

    answered: int
    refused: int
    input_tokens: int
    output_tokens: int
    late_p95: float
    late_most: float
    largest: int


def of_orders(orders: dict[str, Any]) -> tuple[str, Law, Faults]:
    """The law and the faults in what the process is told."""
    return orders["name"], Law(**orders["law"]), Faults(**orders["faults"])
