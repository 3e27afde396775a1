"""`transformers serve` in a process of its own, and clients that ask it at once."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START = 120  # seconds


class Server:
    """Serves one folder on the loopback while the `with` block lasts."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder.absolute())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def __enter__(self) -> "Server":
        command = [sys.executable, str(ROOT / "tools/serve.py"), self.folder]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + START
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                self._process.kill()
                raise SystemExit(f"transformers serve {self.folder}: did not start")
            time.sleep(0.5)
        return self

    def __exit__(self, *exception) -> None:
        self._process.terminate()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            return bool(self.complete("The", 1))
        except (urllib.error.URLError, ConnectionError):
            return False

    def complete(self, prompt: str, new_tokens: int) -> dict:
        """One answer of `/v1/completions`, greedy."""
        asked = {"model": self.folder, "prompt": prompt, "max_tokens": new_tokens, "temperature": 0}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=START) as answer:
            return json.load(answer)

    def tokens_per_second(self, prompts: list[str], clients: int, new_tokens: int) -> float:
        """Of all clients together, each with its share of the prompts; counted as the server counts."""
        begin = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            answers = list(pool.map(lambda prompt: self.complete(prompt, new_tokens), prompts))
        made = sum(answer["usage"]["completion_tokens"] for answer in answers)
        return made / (time.perf_counter() - begin)
