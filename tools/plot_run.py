"""Draw a training run and say how it went: `python tools/plot_run.py RUN [--output PICTURE.png]`.

Reads the tensorboard events under RUN (of `pretrain_gpt.py --tensorboard-dir`) and draws loss,
sparsity against its target, lambda, and active experts by layer, with the three stages of ReMoE.
"""

import argparse
import sys
from pathlib import Path

from run_log.evaluation import read_domain_losses
from run_log.picture import draw_run
from run_log.scalars import RunLogError, read_scalars
from run_log.summary import summarize


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", type=Path, help="folder with tensorboard events, at any depth")
    parser.add_argument("--output", type=Path, help="picture to write; default RUN/training.png")
    parser.add_argument(
        "--target-sparsity",
        type=float,
        help="1 - topk/experts; default: from the arguments that Megatron stored in the events",
    )
    parser.add_argument(
        "--evaluation-log",
        type=Path,
        help="console log of an evaluation with --validation-set-names, for the summary",
    )
    parser.add_argument("--title", help="title of the picture; default: the name of RUN")
    return parser.parse_args()


def main() -> int:
    """Read, draw, print the summary."""
    args = parse_args()
    try:
        run = read_scalars(args.run, args.target_sparsity)
        domains = read_domain_losses(args.evaluation_log) if args.evaluation_log else {}
        output = args.output or args.run / "training.png"
        draw_run(run, output, args.title or args.run.name)
    except RunLogError as error:
        print(f"plot_run.py: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"plot_run.py: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print(summarize(run, domains))
    print(f"picture: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
