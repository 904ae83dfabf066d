"""Measures how often the rule that sorts a study's curves errs, on simulated curves.

Run: python scripts/measure_study_rule.py aim/studying/error_rates.json
How long: 15 s on one core of an AMD EPYC. The same seed gives the same file.
"""

import argparse
import json
from pathlib import Path

from aim.studying.simulation import error_rates

SIMULATIONS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--simulations", type=int, default=SIMULATIONS)
    args = parser.parse_args()
    found = {
        "command": "python scripts/measure_study_rule.py aim/studying/error_rates.json",
        "simulations": args.simulations,
        **error_rates(args.simulations),
    }
    args.file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for key, what in (("grids", "seeds alone"), ("grids_of_tests", f"seeds and a test of {found['videos']} videos")):
        for name, rates in found[key].items():
            print(f"{name}, {what}: {100 * rates['false_emergent']:.1f} % of smooth curves called emergent, "
                  f"{100 * rates['found_steps']:.1f} % of steps found")  # fmt: skip


if __name__ == "__main__":
    main()
