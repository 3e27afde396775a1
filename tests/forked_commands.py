"""Several whole commands, one after another, that pay for the import of Megatron once.

    first, second = pretrain_each([*flags], [*flags])

A process imports `pretrain_gpt` and forks for each command, so each is as fresh as a process of its
own: only the five seconds of imports are shared. A later command may load what an earlier one saved.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from commands import MOCK_DATA, TINY_MODEL, run


def pretrain_each(*commands: list[str], model=(*TINY_MODEL, *MOCK_DATA)):
    """`pretrain_gpt.py` with a tiny model on mock data, for each list of further flags."""
    with tempfile.TemporaryDirectory() as folder:
        words = [[*model, *map(str, flags)] for flags in commands]
        done = run([sys.executable, __file__, folder, json.dumps(words)], OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr[-3000:]
        codes = json.loads(done.stdout.splitlines()[-1])
        texts = [[Path(folder, f"{i}.{n}").read_text() for n in (1, 2)] for i in range(len(codes))]
    return [
        subprocess.CompletedProcess(flags, code, *text)
        for flags, code, text in zip(commands, codes, texts, strict=True)
    ]


def _serve(folder, commands):
    sys.path.insert(0, os.getcwd())
    import pretrain_gpt

    codes = []
    for i, words in enumerate(commands):
        child = os.fork()
        if child == 0:
            _become(pretrain_gpt.main, [f"{folder}/{i}.{n}" for n in (1, 2)], words)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(codes))


def _become(main, files, words):
    """Run as a process of its own would, and end."""
    from megatron.remoe.processes import die_with_parent

    die_with_parent(spawned=True)
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["pretrain_gpt.py", *words]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1], json.loads(sys.argv[2]))
