"""Whether measured affinity leads to good task groups: five tasks, all 52 partitions trained and compared.

``PYTHONSAFEPATH=1 .venv/bin/python bench/affinity_study.py FOLDER`` trains what FOLDER lacks (about ten CPU
minutes for each of three task sets and three seeds, one thread; killed, it loses one training), then prints
the tables of docs/results/affinity.md; ``--pictures docs/results`` also draws. Several may work on other sets
or seeds of one folder at the same time; ``--judge`` trains nothing; ``--beside OTHER`` says how well a folder
that another version trained repeats this one. ``--quick`` does it all in a few rounds: the numbers then say
nothing. How a partition is chosen is in study/methods.py, how many groups in study/rules.py, how both are
judged in study/judge.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parent))  # where PYTHONSAFEPATH is set, a script's folder is not there

from study import judge, page, splitting
from study.choices import Choices
from study.records import StudyRefused
from study.sets import SETS
from study.table import tables
from study.train import train

if TYPE_CHECKING:
    from study.table import Table

    Tables = dict[str, list[Table]]


def show(found: Tables, pictures: Path | None) -> None:
    """Print all tables, and draw if there is a folder for it."""
    choices = Choices(found)
    sections = {
        "What was trained": splitting.settings(found),
        "Is there anything to choose?": page.noise(found),
        "Who chooses well?": page.regrets(choices),
        "Share of random's regret by every criterion, and rank correlation": page.shares(choices),
        "How much must be measured, and when?": page.measuring(choices),
        "Do entries tell what pairs do to each other?": page.pairs(choices),
        "How soon do losses tell?": page.early(choices),
        "Rank agreement with lookahead on every batch": page.agreement(choices),
        "A split, or more rounds?": splitting.rounds(found),
        "Progress per energy of the best split, not splitting being 1": splitting.progress(found),
        "How many groups?": splitting.chosen(choices),
        **{f"All partitions: {name}": splitting.everything(name, each) for name, each in found.items()},
    }
    for title, text in sections.items():
        print(f"\n## {title}\n\n{text}")
    if pictures:
        from study import pictures as drawn  # noqa: PLC0415 - imports matplotlib

        drawn.draw(found, choices, pictures)


def compare(found: Tables, others: Tables) -> None:
    """Print how well tables of the same task sets and seeds repeat each other."""
    for name, one, other in ((n, a, b) for n in found for a in found[n] for b in others.get(n, ())):
        if one.setting.seed == other.setting.seed:
            alike = judge.alike(one, other)
            ranks = ", ".join(f"{rho:.2f} ({x} groups)" for x, rho in alike.ranks.items())
            print(f"\n{name}, seed {one.setting.seed}: rank correlation {ranks}; losses apart by")
            print(
                f"{alike.apart:.2f} %, by {alike.within:.2f} % once what all partitions share is taken out;"
            )
            print(f"the same pick in {alike.same_picks} of {alike.picks} cases")


def main() -> int:
    parser = argparse.ArgumentParser(description="Does measured affinity lead to good task groups?")
    parser.add_argument("folder", type=Path, help="where trainings are kept")
    parser.add_argument("--sets", default=",".join(SETS), help="of " + ", ".join(SETS))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--quick", action="store_true", help="a few rounds: shows only that it works")
    parser.add_argument("--judge", action="store_true", help="train nothing")
    parser.add_argument("--beside", type=Path, help="a folder of another version, to compare tables with")
    parser.add_argument("--pictures", type=Path, help="a folder to draw into")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        for seed in map(int, options.seeds.split(",") if not options.judge else ()):
            for name in options.sets.split(","):
                say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
                train(options.folder, name, seed, quick=options.quick, say=say)
        found = tables(options.folder)
        show(found, options.pictures)
        if options.beside:
            compare(found, tables(options.beside))
    except StudyRefused as refused:
        print(refused, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
